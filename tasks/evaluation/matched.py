"""What a ranker that did not choose the pictures says of them: do they match their own captions?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.candidates import PromptCandidates
from tasks.judging import Judge
from tasks.measures import frechet_distance, rank_of_own

Groups = Mapping[str, Sequence[PromptCandidates]]


def own_ranks(judge: Judge, groups: Groups) -> dict[str, np.ndarray]:
    """By group, int [P, N]: the rank of the own prompt among all prompts, for each candidate."""
    texts = sorted({one.prompt.text for prompts in groups.values() for one in prompts})
    place = {text: index for index, text in enumerate(texts)}
    captions = judge.texts(texts)
    found = {}
    for group, prompts in groups.items():
        similarity = judge.images(np.stack([one.pictures for one in prompts])) @ captions.T
        own = np.array([place[one.prompt.text] for one in prompts])
        found[group] = rank_of_own(similarity, own[:, None])
    return found


def rank_metrics(ranks: np.ndarray, prefix: str) -> dict[str, float]:
    """How well the first-ranked pictures [:, 0] and all of them find their own prompt."""
    found = {}
    for name, some in (("", ranks[:, 0]), ("_average", ranks)):
        found[f"{prefix}own_caption_rank{name}"] = float(some.mean())
        found[f"{prefix}own_caption_reciprocal_rank{name}"] = float((1 / some).mean())
        found[f"{prefix}own_caption_in_5{name}"] = float((some <= 5).mean())
    return found


def distance(judge: Judge, groups: Groups, originals: np.ndarray) -> dict[str, float]:
    """Fréchet distance of drawn and training pictures on the evaluating ranker's features."""
    drawn = [one.pictures for prompts in groups.values() for one in prompts]
    features = judge.images(np.concatenate(drawn)), judge.images(originals)
    return {"frechet_distance_on_evaluator_features": frechet_distance(*features)}
