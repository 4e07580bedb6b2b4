"""What a ranker that did not choose the pictures says of them: do they match their own captions?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.candidates import PromptCandidates
from tasks.judging import Judge
from tasks.measures import rank_of_own

_PROMPTS = 64  # whose candidates are held against all prompts at a time

Groups = Mapping[str, Sequence[PromptCandidates]]


def own_ranks(judge: Judge, groups: Groups) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By group [P, N]: the rank of the own prompt among all, and its cosine, for each candidate."""
    texts = sorted({one.prompt.text for prompts in groups.values() for one in prompts})
    place = {text: index for index, text in enumerate(texts)}
    captions = judge.texts(texts)
    ranks, cosines = {}, {}
    for group, prompts in groups.items():
        found = []
        for start in range(0, len(prompts), _PROMPTS):
            some = prompts[start : start + _PROMPTS]
            similarity = judge.images(np.stack([one.pictures for one in some])) @ captions.T
            own = np.array([place[one.prompt.text] for one in some])
            cosine = np.take_along_axis(similarity, own[:, None, None], -1)[..., 0]
            found.append((rank_of_own(similarity, own[:, None]), cosine))
        ranks[group], cosines[group] = map(np.concatenate, zip(*found, strict=True))
    return ranks, cosines


def rank_metrics(ranks: np.ndarray, prefix: str) -> dict[str, float]:
    """How well the first-ranked pictures [:, 0] and all of them find their own prompt."""
    found = {}
    for name, some in (("", ranks[:, 0]), ("_average", ranks)):
        found[f"{prefix}own_caption_rank{name}"] = float(some.mean())
        found[f"{prefix}own_caption_reciprocal_rank{name}"] = float((1 / some).mean())
        found[f"{prefix}own_caption_in_5{name}"] = float((some <= 5).mean())
    return found
