"""Draw candidates for prompts: the prior gives codes, the image tokenizer's decoder the pictures.

The seed of each candidate is a function of the declared seed, the prompt and the candidate's
number, so a prompt's candidates do not depend on the prompts beside it. Prompts go in batches, one
unit each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from infra.errors import PermanentError
from infra.work import ShardWork, Work
from model_zoo.generators import CACHE_GB, read_sampling, sampler_of
from model_zoo.weights import read_header
from schemas.artifact import (
    Candidates,
    EvaluationPairs,
    ImageTokenizer,
    Prior,
    TextTokenizer,
    Unit,
)  # fmt: skip
from schemas.stage import operational, stage
from tasks.candidates import CandidateSet, Prompt
from tasks.devices import steady_threads
from tasks.fitting import check_painting
from tasks.networks import NetworkParams
from tasks.painting import Painter, candidate_seeds
from tasks.prepared import captions_of
from tasks.tokens import encode_prompts, load_tokenizer


class SampleParams(NetworkParams):
    """What is drawn, how often and how."""

    networks: tuple[str, ...] = ("dalle", "dvae")
    prompts: tuple[str, ...] = ()
    prompts_file: str | None = None
    """JSON `{GROUP: [{"prompt": TEXT, "why": TEXT}, ...]}`; a path, or `home://...`."""
    per_group: int | None = Field(default=None, gt=0)
    """Only so many prompts of each group, the first ones."""
    candidates: int = Field(default=16, gt=0)
    seed: int = Field(default=0, ge=0)
    sampling: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    """The generator's settings; which there are is its own matter (`model_zoo.generators`)."""
    prompts_per_unit: int = Field(default=20, gt=0)
    cache_gb: float = operational(CACHE_GB, gt=0, allow_inf_nan=False)
    """Memory, in 10^9 bytes, for keys and values of the candidates that are drawn together."""

    @field_validator("sampling")
    @classmethod
    def _is_known(cls, sampling: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        networks = info.data.get("networks", ())
        generators = [name for name in networks if sampler_of(name)]
        if networks and not generators:
            raise ValueError(f"none of the networks {networks} draws codes")
        for name in generators:
            read_sampling(name, sampling)
        return sampling

    @model_validator(mode="after")
    def _has_prompts(self) -> Self:
        if self.prompts and self.prompts_file:
            raise ValueError("give either prompts or prompts_file")
        return self

    def sources(self) -> tuple[str, ...]:
        """The file of prompts."""
        return (self.prompts_file,) if self.prompts_file else ()


@stage(retries=2, cores=2, memory_gb=2.0, versions=("torch", "tokenizers"))
def sample_images(
    prior: Prior, image_tokenizer: ImageTokenizer, text_tokenizer: TextTokenizer,
    params: SampleParams, work: Work, pairs: EvaluationPairs | None = None,
) -> Candidates:  # fmt: skip
    """Draw the candidates of every prompt, and of every caption of a set to evaluate on."""
    captions = captions_of(work.fetch(unit) for unit in pairs.units) if pairs else ()
    drawn_for = [Prompt(text, "captions") for text in dict.fromkeys(captions)]
    prompts = [*read_prompts(params, work), *drawn_for]
    if not prompts:
        raise PermanentError("prompts: give prompts, prompts_file, or pairs as an input")
    for network in (prior, image_tokenizer):
        params.check(work.fetch(network.units[0]))
    files = (work.fetch(part.units[0]) for part in (prior, image_tokenizer, text_tokenizer))
    _refuse_undrawable(prompts, *files)
    mapped = work.map(
        draw_prompts, list(_batches(prompts, params, work)), prior=prior.units[0],
        image_tokenizer=image_tokenizer.units[0], text_tokenizer=text_tokenizer.units[0],
        candidates=params.candidates, seed=params.seed, sampling=params.sampling,
        cache_gb=params.cache_gb,
    )  # fmt: skip
    return Candidates(units=mapped.units("candidates"))


def draw_prompts(
    unit: Unit, shard: ShardWork, *, prior: Unit, image_tokenizer: Unit, text_tokenizer: Unit,
    candidates: int, seed: int, sampling: dict[str, Any], cache_gb: float,
) -> None:  # fmt: skip
    """Draw the prompts of one batch.

    Raises:
        PermanentError: for what the prior cannot draw, or not within `cache_gb`.
    """
    prompts = tuple(Prompt(**one) for one in json.loads(shard.fetch(unit).read_text()))
    texts = [prompt.text for prompt in prompts]
    files = (shard.fetch(one) for one in (prior, image_tokenizer, text_tokenizer))
    seeds = candidate_seeds(seed, texts, candidates)
    with steady_threads():
        painter = Painter(*files)
        settings = read_sampling(painter.prior.name, sampling)
        try:
            codes, pictures = painter.paint(texts, seeds, settings, cache_gb=cache_gb)
        except ValueError as error:  # of settings: another attempt would fail alike
            raise PermanentError(str(error)) from error
    name = unit.name.replace("prompts", "candidates").replace(".json", ".safetensors")
    path = shard.scratch / name
    CandidateSet(prompts, seeds, codes, pictures).write(path)
    shard.add("candidates", path, name, records=seeds.size)
    shard.count("pictures", seeds.size)


def read_prompts(params: SampleParams, work: Work) -> list[Prompt]:
    """The declared prompts, by group; none if none are declared.

    Raises:
        PermanentError: if the file is not of the form that it should be, or has no prompt.
    """
    if not params.prompts_file:
        return [Prompt(text) for text in params.prompts]
    groups = _groups(work.fetch(work.sources[0]), str(params.prompts_file))
    prompts = [prompt for group in groups for prompt in group[: params.per_group]]
    if not prompts:
        raise PermanentError(f"{params.prompts_file}: there is not one prompt in it")
    return prompts


def _groups(path: Path, name: str) -> list[list[Prompt]]:
    try:
        groups = json.loads(path.read_bytes())
        return [
            [Prompt(str(one["prompt"]), group, str(one.get("why", ""))) for one in prompts]
            for group, prompts in groups.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PermanentError(
            f'{name}: must be JSON of the form {{"GROUP": [{{"prompt": "TEXT"}}, ...]}}; {error!r}'
        ) from error


def _refuse_undrawable(
    prompts: Sequence[Prompt], prior: Path, image_tokenizer: Path, text_tokenizer: Path
) -> None:
    tokenizer = load_tokenizer(text_tokenizer)
    check_painting(prior, image_tokenizer, tokenizer)
    _, config = read_header(prior)
    encode_prompts(tokenizer, [prompt.text for prompt in prompts], config["text_length"])


def _batches(prompts: Sequence[Prompt], params: SampleParams, work: Work) -> Iterator[Unit]:
    for number, start in enumerate(range(0, len(prompts), params.prompts_per_unit)):
        batch = prompts[start : start + params.prompts_per_unit]
        path = work.scratch / f"prompts-{number:05d}.json"
        path.write_text(json.dumps([asdict(prompt) for prompt in batch]))
        yield work.store.put(path, path.name, len(batch))
