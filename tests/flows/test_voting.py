"""`tapir vote` finds the pictures of what it is told, serves them, and says how it stands."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows import voting
from infra.environment import Environment
from infra.errors import PermanentError
from infra.store import Store
from schemas.artifact import Candidates, Evaluation, RankedCandidates
from tasks.candidates import CandidateSet, Prompt
from tests.flows.command import Tapir
from tests.flows.judged import Judged
from tests.infra.making import manifest, publish

CAPTIONS = [f"caption {number}" for number in range(6)]


class Home:
    """A home in which three stages have drawn; levels of grey say which and what."""

    def __init__(self, folder: Path) -> None:
        self.environment = Environment(home=folder / "home")
        self.store = Store(self.environment.store_url)
        self.folder = folder
        drawn = self._publish("samples", Candidates, self._unit("a", 0, CAPTIONS))
        self._publish("ranked", RankedCandidates, self._unit("b", 100, CAPTIONS[::-1]), r=drawn)
        ranked = self._publish("other", RankedCandidates, self._unit("c", 200, CAPTIONS[:4]))
        path = folder / "metrics.json"
        path.write_text("{}")
        self._publish("judged", Evaluation, self.store.put(path, "metrics.json"), r=ranked)

    def _unit(self, name: str, level: int, captions: list[str]) -> Any:
        levels = np.array([[level + int(one[-1])] * 2 for one in captions], np.uint8)
        pictures = levels[:, :, None, None, None] * np.ones((1, 1, 3, 4, 4), np.uint8)
        seeds = np.arange(len(captions) * 2).reshape(-1, 2)
        codes = np.zeros((len(captions), 2, 1, 1), np.int32)
        path = self.folder / f"{name}.safetensors"
        CandidateSet(tuple(map(Prompt, captions)), seeds, codes, pictures).write(path)
        return self.store.put(path, path.name)

    def _publish(self, stage: str, kind: Any, unit: Any, **inputs: Any) -> Any:
        return publish(self.store, manifest(stage, {"output": kind(units=(unit,))}, inputs))

    def prepare(self, first: str, second: str, **options: Any) -> voting.Election:
        return voting.prepare(self.store, self.environment, first, second, **options)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_stage_means_its_own_pictures_or_those_behind_it(home: Home) -> None:
    pairs = home.prepare("shapes/samples", "shapes/judged").ballot.pairs
    assert [pair.caption for pair in pairs] == CAPTIONS[:4]
    again = home.prepare("shapes/samples", "shapes/other").ballot.pairs
    assert [pair.key for pair in pairs] == [pair.key for pair in again]
    assert len(home.prepare("shapes/samples", "shapes/ranked").ballot.pairs) == 6


def test_a_registered_model_means_what_its_own_evaluation_looked_at(tmp_path: Path) -> None:
    judged = Judged(tmp_path)
    judged.register(judged.train("one", [True, True, False]), 0.6)
    champion = judged.manifests()["ranked"].provenance
    judged.train("other", [True, False, False])
    pairs = [
        voting.prepare(judged.store, judged.environment, name, "shapes").ballot.pairs
        for name in ("models:/shapes@champion", champion)
    ]
    assert [pair.key for pair in pairs[0]] == [pair.key for pair in pairs[1]]
    assert len(pairs[0]) == 3
    with pytest.raises(PermanentError, match="there is no such model"):
        voting.prepare(judged.store, judged.environment, "models:/shapes@other", "shapes")


@pytest.mark.parametrize("name", ["shapes/nothing", "nothing"])
def test_what_is_not_there_is_refused(home: Home, name: str) -> None:
    with pytest.raises(PermanentError):
        home.prepare("shapes/ranked", name)


def test_the_captions_drawn_do_not_depend_on_who_is_first(home: Home) -> None:
    def captions(*sides: str, seed: int) -> set[str]:
        ballot = home.prepare(*sides, captions=3, seed=seed).ballot
        return {pair.caption for pair in ballot.pairs}

    sides = ("shapes/ranked", "shapes/samples")
    assert len(captions(*sides, seed=1)) == 3
    assert captions(*sides, seed=1) == captions(*sides[::-1], seed=1)
    assert len({frozenset(captions(*sides, seed=seed)) for seed in range(8)}) > 1


def test_the_command_serves_until_it_is_stopped_and_then_says_how_it_stands(home: Home) -> None:
    sides = ("shapes/ranked", "shapes/other")
    election = home.prepare(*sides)
    for pair in election.ballot.pairs[:3]:
        for number in range(5):  # A is more realistic in all, and matches better in none
            chosen = {"realistic": pair.key.first, "matching": pair.key.second}
            election.votes.cast(str(number), pair.key, chosen, pair.key.first)
    tapir = Tapir(home.folder, "")
    process = tapir.start("vote", *sides)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("4 pairs")
    address = process.stdout.readline().strip()
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert b"Your name" in answer.read()
    process.send_signal(signal.SIGINT)
    said, problems = process.communicate(timeout=30)
    assert (process.returncode, problems) == (0, "")
    assert "majority of 5 for 3 of 3 captions: 100.0%, 43.9% to 100.0% (Wilson, 95 %)" in said
    assert "majority of 5 for 0 of 3 captions: 0.0%, 0.0% to 56.1% (Wilson, 95 %)" in said
    assert said.count("not decided yet: 1") == 2

    exchanged = json.loads(tapir("vote", *sides[::-1], "--result", "--json"))
    realistic, matching = exchanged["outcomes"]
    assert (realistic["first"], matching["first"]) == (0, 3)
    assert realistic["by_votes"] == [3, 0, 0, 0, 0, 0]
