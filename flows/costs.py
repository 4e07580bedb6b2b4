"""`tapir plan --cost`: which stages are planned, and how the figures are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from flows.declaration import BoundPipeline, BoundStage
from schemas.artifact import ImageShards
from schemas.stage import StageParams
from tasks.costs.figures import Figure, Section, Unit
from tasks.costs.plan import Assumptions, Stages, plan_costs
from tasks.encode_pairs import EncodeParams
from tasks.import_image_tokenizer import ImportParams
from tasks.train_image_tokenizer import ImageTokenizerParams
from tasks.train_prior import PriorParams, train_prior
from tasks.train_ranker import RankerParams
from tasks.train_text_tokenizer import TextTokenizerParams

Params = TypeVar("Params", bound=StageParams)


def costs(pipeline: BoundPipeline, given: Assumptions) -> dict[str, list[Section]]:
    """The plan of every prior that a pipeline trains, by stage.

    Raises:
        ValueError: if it trains none, or what is declared and what is given do not fit together.
    """
    priors = [one for one in pipeline.stages.values() if one.spec is _PRIOR]
    if not priors:
        raise ValueError(f"{pipeline.file}: there is no stage of {_PRIOR.name} to plan")
    return {prior.name: plan_costs(_stages(pipeline, prior), given) for prior in priors}


_TOKENIZERS: tuple[type[ImageTokenizerParams | ImportParams], ...] = (
    ImageTokenizerParams, ImportParams,
)  # fmt: skip
_PRIOR = train_prior.spec  # type: ignore[attr-defined]


def _stages(pipeline: BoundPipeline, prior: BoundStage) -> Stages:
    def params(argument: str, *kinds: type[Params]) -> Params:
        found = pipeline.stages[prior.inputs[argument].stage]
        if not isinstance(found.params, kinds):
            raise ValueError(f"{found.name}: {found.spec.name} is no stage that can be planned")
        return found.params

    assert isinstance(prior.params, PriorParams)
    return Stages(
        prior=prior.params,
        codes=params("codes", EncodeParams),
        text_tokenizer=params("text_tokenizer", TextTokenizerParams),
        image_tokenizer=params("image_tokenizer", *_TOKENIZERS),
        pictures=tuple(
            name for name, stage in pipeline.stages.items()
            if _writes_pictures(stage) and any(map(_is_pictures, stage.spec.inputs.values()))
        ),
        prepared=_prepared(pipeline),
        rankers={
            name: stage.params for name, stage in pipeline.stages.items()
            if isinstance(stage.params, RankerParams) and stage.params.training
        },
    )  # fmt: skip


def _prepared(pipeline: BoundPipeline) -> dict[str, int]:
    """Sides of the pictures that stages keep; an evaluator finds those of its ranker."""
    found: dict[str, int] = {}
    seen = []
    for name, stage in pipeline.stages.items():
        params = stage.params.model_dump()
        if not params.get("training") or params.get("pictures") != "prepared":
            continue
        same = (stage.inputs, params["picture_side"], params["config"].get("text_length"))
        if same not in seen:
            seen.append(same)
            found[name] = params["picture_side"]
    return found


def _writes_pictures(stage: BoundStage) -> bool:
    return any(map(_is_pictures, stage.spec.outputs.values()))


def _is_pictures(kind: type[Any]) -> bool:
    return issubclass(kind, ImageShards)


def as_json(found: Mapping[str, list[Section]]) -> dict[str, Any]:
    """Plain values: by stage and title, a verdict and figures with value, unit and formula."""
    return {
        stage: {
            section.title: {
                "verdict": section.verdict,
                "figures": {
                    one.name: {k: v for k, v in asdict(one).items() if k != "name"}
                    for one in section.figures
                },
            }
            for section in sections
        }
        for stage, sections in found.items()
    }


def as_text(found: Mapping[str, list[Section]]) -> str:
    """A line a figure: name, value, formula."""
    lines = []
    for stage, sections in found.items():
        lines.append(f"{stage}: what it would take")
        for section in sections:
            lines += ["", section.title]
            lines += [_line(one) for one in section.figures]
            lines += [f"  => {section.verdict}"] if section.verdict else []
    return "\n".join(lines)


def _line(figure: Figure) -> str:
    return f"  {figure.name:31} {_SHOWN[figure.unit](figure.value):>16}  {figure.how}"


def _scaled(unit: str) -> Callable[[float], str]:
    def show(value: float) -> str:
        for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
            if abs(value) >= 10**power:
                return f"{value / 10**power:.4g} {prefix}{unit}"
        return f"{value:.4g} {unit}"

    return show


def _duration(seconds: float) -> str:
    for name, length in (("days", 86_400), ("hours", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {name}"
    return f"{seconds:.3g} s"


_SHOWN: dict[Unit, Callable[[float], str]] = {
    "parameters": lambda value: f"{value:,.0f}",
    "GPUs": lambda value: f"{value:,.0f}",
    "bytes": _scaled("B"),
    "FLOP": _scaled("FLOP"),
    "bit/s": _scaled("bit/s"),
    "s": _duration,
    "GPU hours": lambda value: f"{value:,.1f}",
    "USD": lambda value: f"$ {value:,.2f}" if value < 100 else f"$ {value:,.0f}",
    "share": lambda value: f"{100 * value:.1f} %",
    "times": lambda value: f"{value:,.4g} x",
    "tokens/s": lambda value: f"{value:,.0f} tokens/s",
}
