"""Says when the codes of an image tokenizer stop telling pictures apart, while it trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_FLAG = "codebook_collapsed"  # of the training's batches, and under a prefix of judged pictures
_SOUND = 3  # values in a row without a flag until a codebook counts as in use again


class CollapseAlarm:
    """Says that the codebook has collapsed, once each time that it does, and when it is over.

    What counts as collapsed is the network's to say (`codebook_collapsed` is not 0).

    Args:
        say: tells whoever watches.
        known: metrics that were logged before, so that a resumed training says nothing twice.
    """

    def __init__(self, say: Callable[[str], None], known: Iterable[Mapping[str, Any]]) -> None:
        self._say = say
        self._sound = Counter[str]()
        self._collapsed: set[str] = set()
        for entry in sorted(known, key=lambda entry: int(entry["step"])):
            if entry["name"].endswith(_FLAG):
                self._note(entry["name"], entry["value"])

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Look at the metrics of an update."""
        for name in metrics:
            if name.endswith(_FLAG):
                before = bool(self._collapsed)
                self._note(name, metrics[name])
                if bool(self._collapsed) != before:
                    self._say(_words(name.removesuffix(_FLAG), metrics, step, not before))

    def _note(self, name: str, value: float) -> None:
        self._sound[name] = 0 if value else self._sound[name] + 1
        if value:
            self._collapsed.add(name)
        elif self._sound[name] >= _SOUND:
            self._collapsed.discard(name)


def _words(prefix: str, metrics: Mapping[str, float], step: int, collapsed: bool) -> str:
    where = prefix.rstrip("/").replace("_", " ") or "the batch"
    figure = (
        f"of {where} is {metrics[f'{prefix}perplexity']:.1f},"
        f" {metrics[f'{prefix}perplexity_share']:.1%} of what is possible"
    )
    if not collapsed:
        return f"update {step}: the codebook is in use again: the perplexity {figure}"
    return (
        f"update {step}: the codebook has collapsed (collapse_below): the perplexity {figure}, and"
        " nothing that is trained on such codes can draw; unless it comes back by itself, try"
        " `codebook_start: clusters`, `centred`, `balance_weight`, another kl_weight or a longer"
        " kl_warmup, or a slower fall of the temperature (temperature_steps)"
    )
