"""Ask people which of two models' pictures they prefer, and say what they said.

A side is named as everything else is: a registered model, a pipeline or one of its stages, a
digest; or a folder that `tapir sample` has written. Votes lie in `votes.sqlite` of the home folder.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.environment import Environment
from infra.errors import PermanentError
from infra.manifests import read_manifest
from infra.store import Store
from infra.trace import Reference, chain, resolve
from infra.voting.ballot import QUESTIONS, Ballot, Side
from infra.voting.result import INTERVAL, VOTERS, Outcome, count
from infra.voting.server import Booth, VotingServer
from infra.voting.votes import Votes
from schemas.artifact import Candidates, RankedCandidates
from schemas.manifest import Manifest, Output
from tasks.ballots import contents, make_pairs, pictures_in, pictures_of

FILE = "votes.sqlite"


@dataclass(frozen=True)
class Election:
    """What is asked, and how it stands."""

    ballot: Ballot
    votes: Votes

    @property
    def outcomes(self) -> list[Outcome]:
        """The answers to each question so far."""
        pairs = [pair.key for pair in self.ballot.pairs]
        return count(pairs, self.votes.on(pair.id for pair in pairs))


def prepare(
    store: Store, environment: Environment, first: str, second: str, captions: int | None = None,
    seed: int = 0,
) -> Election:  # fmt: skip
    """The pairs of two sides.

    Args:
        first, second: what each side is called.
        captions: so many of the common captions, drawn by the seed; all of them if None.
        seed: of that draw, and of the order and sides in which people see the pairs.

    Raises:
        PermanentError: if a side is not there, or both have no caption in common.
        DamagedUnit: if a file of pictures is missing or altered.
    """
    with tempfile.TemporaryDirectory() as folder:
        both = [_pictures(store, environment, name, Path(folder)) for name in (first, second)]
    pairs = make_pairs(*both)
    if captions is not None and captions < len(pairs):
        # By id, so that the choice does not depend on which side is named first.
        ordered = sorted(pairs, key=lambda pair: pair.key.id)
        pairs = tuple(random.Random(seed).sample(ordered, captions))
    sides = [Side(name, contents(one)) for name, one in zip((first, second), both, strict=True)]
    ballot = Ballot(sides[0], sides[1], pairs, seed)
    return Election(ballot, Votes(environment.home / FILE))


def serve(election: Election, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve the page until the process is interrupted; `say` is told its address.

    Raises:
        PermanentError: if nothing can listen there.
    """
    try:
        server = VotingServer(Booth(election.ballot, election.votes), host, port)
    except OSError as error:
        raise PermanentError(f"--host {host} --port {port}: {error.strerror}") from error
    with server:
        say(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def as_text(election: Election) -> str:
    """The outcomes in words."""
    ballot = election.ballot
    lines = [f"A: {ballot.first.name}", f"B: {ballot.second.name}"]
    for one in election.outcomes:
        lines += ["", QUESTIONS[one.question], f"  {_decided(one)}"]
        lines.append(f"  {one.votes_first} of all {one.votes} votes are for A")
    return "\n".join(lines)


def as_json(election: Election) -> dict[str, Any]:
    """The outcomes as data."""
    return {
        "first": asdict(election.ballot.first), "second": asdict(election.ballot.second),
        "captions": len(election.ballot.pairs), "voters": VOTERS, "interval": INTERVAL,
        "outcomes": [asdict(one) for one in election.outcomes],
    }  # fmt: skip


def _decided(one: Outcome) -> str:
    if one.share is None or one.low is None or one.high is None:
        return f"no caption has {VOTERS} votes yet (of {one.undecided})"
    by_votes = ", ".join(str(number) for number in one.by_votes)
    return (
        f"A has the majority of {VOTERS} for {one.first} of {one.first + one.second} captions:"
        f" {one.share:.1%}, {one.low:.1%} to {one.high:.1%} ({INTERVAL});"
        f" with 0 to {VOTERS} votes for A: {by_votes}; not decided yet: {one.undecided}"
    )


def _pictures(store: Store, environment: Environment, name: str, folder: Path) -> dict[str, bytes]:
    if not name.startswith("models:/") and Path(name).is_dir():
        return pictures_in(Path(name))
    drawn = _drawn(store, environment, name)
    return pictures_of(store.fetch(unit, folder) for unit in drawn.units)


def _drawn(store: Store, environment: Environment, name: str) -> Output:
    """The pictures that a name leads to: its own, or those ranked that it was made with."""
    if "/" not in name and (stages := store.names(f"pipelines/{name}")):
        pointers = [store.read(f"pipelines/{name}/{stage}") for stage in stages]
        found = (one["provenance"] for one in pointers if one)
        reference = Reference(name, tuple(found))
    else:
        reference = resolve(store, name, environment.tracking_uri)
    named = [read_manifest(store, one) for one in reference.manifests]
    if len(named) == 1 and named[0] and (own := _outputs(named[0], Candidates.kind)):
        return own[0]
    behind = chain(store, reference).manifests
    ranked = [(one, out) for one in behind for out in _outputs(one, RankedCandidates.kind)]
    if not ranked:
        raise PermanentError(f"{name}: it has no ranked pictures; name a model or its `ranked`")
    return max(ranked, key=lambda found: found[0].run.ended)[1]


def _outputs(manifest: Manifest, kind: str) -> list[Output]:
    return [output for output in manifest.outputs.values() if output.kind == kind]
