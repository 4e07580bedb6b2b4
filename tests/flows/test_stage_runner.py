"""Cached by our fingerprint in our store, units made once, published last, damage made good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.stage_runner import clear_scratch, completed
from infra.attempt import Attempt
from infra.errors import DamagedUnit, LeaseHeld, PermanentError
from infra.manifests import latest, read_manifest
from infra.store import Store
from tests.flows.conftest import Words

_INPUTS = "inputs: {words: words.kept}"
SEPARATED = (_INPUTS, _INPUTS + "\n    params: {separator: '-'}")


def test_a_second_run_makes_nothing(words: Words) -> None:
    first, made = words.run()
    again, made_again = words.run()
    assert made == ["words", "joined"]
    assert made_again == []
    assert again == first


def test_a_changed_parameter_runs_its_stage_and_what_depends_on_it(words: Words) -> None:
    words.run()
    words.change(*SEPARATED)
    assert words.run()[1] == ["joined"]


def test_same_bytes_from_a_changed_stage_run_nothing_after_it(words: Words) -> None:
    words.write("a", "bb ccc")
    words.write("b", "dd ffff")
    words.run()
    words.change("minimum: 2", "minimum: 1")  # no word has one letter: the same are kept
    assert words.run()[1] == ["words"]


def test_operational_parameters_are_no_part_of_the_identity(words: Words) -> None:
    words.run()
    words.change("minimum: 2", "minimum: 2, pause: 0.001")
    assert words.run()[1] == []


def test_a_new_source_makes_its_own_units_only(words: Words) -> None:
    words.run()
    words.write("c", "gg h")
    manifests, made = words.run()
    assert made == ["words", "joined"]
    run = manifests["words"].run
    assert (run.units_made, run.units_reused) == (1, 2)
    assert manifests["words"].counts == {"words": 8}


def test_a_replaced_source_under_the_same_name_is_noticed(words: Words) -> None:
    words.run()
    words.write("a", "b cc ccc")
    assert words.run()[1] == ["words", "joined"]


def test_a_missing_source_stops_before_any_work(words: Words) -> None:
    words.change("*.txt", "*.nothing")
    with pytest.raises(PermanentError, match=r"stage words: the source .* is missing"):
        words.run()
    assert words.store.names("memo") == []


def test_manifests_chain_and_name_their_own_hash(words: Words) -> None:
    manifests, _ = words.run()
    joined = manifests["joined"]
    assert joined.inputs["words"].provenance == manifests["words"].provenance
    assert read_manifest(words.store, joined.provenance) == joined
    assert latest(words.store, "words", "joined") == joined


def test_an_altered_manifest_is_not_believed(words: Words) -> None:
    joined = words.run()[0]["joined"]
    path = Path(words.store.path(f"manifests/{joined.provenance}.json"))
    path.write_text(path.read_text().replace('"joined.txt"', '"forged.txt"'))
    assert read_manifest(words.store, joined.provenance) is None
    assert completed(words.store, joined.fingerprint) is None


def test_an_altered_unit_is_named_discarded_and_made_again(words: Words) -> None:
    manifests, _ = words.run()
    unit = manifests["words"].outputs["kept"].units[0]
    blob = Path(words.store.path(words.store.blob(unit.sha256)))
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes().replace(b"bb", b"xx"))
    words.change(*SEPARATED)
    with pytest.raises(DamagedUnit, match=r"a\.txt-kept\.json"):
        words.run()
    again, made = words.run()
    assert made == ["words", "joined"]
    assert again["words"] == manifests["words"]  # the same bytes came back: its record holds again
    assert words.store.check(unit) is None


def test_a_living_attempt_keeps_others_away_and_a_dead_one_does_not(words: Words) -> None:
    first = Attempt(words.store, words.environment, "f" * 64)
    with pytest.raises(LeaseHeld, match=f"process {os.getpid()}"):
        Attempt(words.store, words.environment, "f" * 64)
    (first.state / "journal").write_text("kept")
    first.close()
    second = Attempt(words.store, words.environment, "f" * 64)
    assert (second.state / "journal").read_text() == "kept"
    assert not first.state.exists()  # a late write of the first would not reach the second
    second.finish()
    assert words.store.names("partial") == []


_KILLED = """
import sys
from pathlib import Path
import tests.conftest
from tests.flows.conftest import Words

class Again(Words):
    def write(self, name, text): pass

words = Again(Path(sys.argv[1]))
words.change("minimum: 2", "minimum: 2, pause: 0.3")
print("started", flush=True)
words.run()
"""


@pytest.mark.parametrize("delay", [0.0, 0.25, 0.5, 0.7, 1.0])
def test_killed_at_any_moment_and_run_again_gives_the_same(
    words: Words, tmp_path: Path, delay: float
) -> None:
    expected = {name: one.outputs for name, one in Words(tmp_path / "undisturbed").run()[0].items()}
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(words.folder)], cwd=root, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    known = len(words.store.names("memo"))
    manifests, made = words.run()
    assert {name: one.outputs for name, one in manifests.items()} == expected
    if "words" in made:
        run = manifests["words"].run
        assert (run.units_made, run.units_reused) == (2 - known, known)
    assert Store(words.environment.store_url).names("partial") == []


def test_an_attempt_killed_while_it_was_forgotten_is_forgotten_by_the_next_run(
    words: Words,
) -> None:
    manifests, _ = words.run()
    for manifest in manifests.values():  # all that was in it had been removed
        Path(words.store.root, "partial", manifest.fingerprint).mkdir(parents=True)
    assert words.run()[1] == []
    assert words.store.names("partial") == []


def test_scratch_of_killed_effects_goes_and_that_of_living_ones_stays(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for owner in (dead.pid, os.getpid()):
        (tmp_path / f"scratch-{owner}-abc").mkdir()
    (tmp_path / "state").mkdir()
    clear_scratch(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"scratch-{os.getpid()}-abc", "state",
    ]  # fmt: skip
