"""The end of a filtering stage: what was kept, what was dropped and why, whether any is left."""

from __future__ import annotations

from collections import Counter

from infra.errors import PermanentError
from infra.tables import read_columns
from infra.work import Work
from schemas.artifact import Artifact, DropTable
from schemas.records import DROP_SCHEMA


def tally(stage: str, kept: Artifact, drops: DropTable, work: Work) -> None:
    """Count `kept` and `dropped/REASON` from the outputs themselves, so that they always add up.

    Raises:
        PermanentError: if nothing is left; the message is the funnel.
    """
    reasons = count_reasons(drops, work)
    work.count("kept", kept.records)
    for reason, count in sorted(reasons.items()):
        work.count(f"dropped/{reason}", count)
    if not kept.records:
        lost = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise PermanentError(
            f"{stage}: no pair is left of {reasons.total()} ({lost or 'none came in'});"
            " look at the sources, or at the parameters of this stage"
        )


def count_reasons(drops: DropTable, work: Work) -> Counter[str]:
    """How many pairs were dropped for each reason."""
    reasons: Counter[str] = Counter()
    for unit in drops.units:
        table = read_columns(work.fetch(unit), DROP_SCHEMA, ["reason"])
        reasons.update(table["reason"].to_pylist())
    return reasons
