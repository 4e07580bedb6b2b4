"""A checkpoint is whole or not one; what was altered is refused and the one before it used."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model_zoo.training import checkpoints


def _save(folder: Path, step: int) -> Path:
    checkpoints.begin(folder, step)
    written = checkpoints.unfinished(folder, step)
    (written / "part").mkdir()
    (written / "part/weights").write_bytes(b"weights of %d" % step)
    (written / "state.json").write_text(f'{{"step": {step}}}')
    checkpoints.publish(folder, step)
    return checkpoints.finished(folder, step)


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        _save(tmp_path, step)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-0000010", "step-0000015"]
    assert checkpoints.newest(tmp_path) == tmp_path / "step-0000015"
    assert checkpoints.step_of(tmp_path / "step-0000015") == 15
    assert [path.name for path in checkpoints.complete_checkpoints(tmp_path)] == names


def test_there_may_be_none(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "absent") is None


def test_one_that_was_not_finished_is_none_and_is_cleared_away(tmp_path: Path) -> None:
    _save(tmp_path, 5)
    checkpoints.begin(tmp_path, 10)
    (checkpoints.unfinished(tmp_path, 10) / "weights").write_bytes(b"half")
    assert checkpoints.newest(tmp_path) == tmp_path / "step-0000005"
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000005"]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a flipped bit": lambda c: _flip(c / "part/weights"),
    "a truncated file": lambda c: (c / "part/weights").write_bytes(b"wei"),
    "a missing file": lambda c: (c / "state.json").unlink(),
    "a file too many": lambda c: (c / "more.pt").write_bytes(b"x"),
    "no list": lambda c: (c / checkpoints.HASHES).unlink(),
    "an empty list": lambda c: (c / checkpoints.HASHES).write_text(""),
    "a list of rubbish": lambda c: (c / checkpoints.HASHES).write_bytes(b"\xff\n\nx"),
    "an altered list": lambda c: _flip(c / checkpoints.HASHES),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_said_and_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    _save(tmp_path, 5)
    DAMAGE[damage](_save(tmp_path, 10))
    assert checkpoints.newest(tmp_path) == tmp_path / "step-0000005"
    assert "checkpoint step-0000010 is refused: " in capsys.readouterr().err
    assert (tmp_path / "damaged-step-0000010").is_dir()
    # It is neither counted among those kept nor in the way of a new one.
    _save(tmp_path, 10)
    assert checkpoints.newest(tmp_path) == tmp_path / "step-0000010"
    assert (tmp_path / "step-0000005").is_dir()


def _with_loss(folder: Path, step: int, loss: object, **keep: int) -> None:
    checkpoints.begin(folder, step)
    written = checkpoints.unfinished(folder, step)
    (written / checkpoints.STATE).write_text(json.dumps({"loss": loss}))
    checkpoints.publish(folder, step, **keep)


def test_the_best_are_kept_beside_the_newest(tmp_path: Path) -> None:
    for step, loss in enumerate([5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 7.0], start=1):
        _with_loss(tmp_path, step, loss, keep=2, keep_best=2)
    left = [checkpoints.step_of(path) for path in checkpoints.complete_checkpoints(tmp_path)]
    assert left == [2, 4, 6, 7]
    assert checkpoints.newest(tmp_path) == tmp_path / "step-0000007"


def test_one_that_does_not_say_its_loss_is_not_among_the_best(tmp_path: Path) -> None:
    for step, loss in enumerate([None, "low", 9.0, 8.0, 7.0], start=1):
        _with_loss(tmp_path, step, loss, keep=1, keep_best=1)
    left = [checkpoints.step_of(path) for path in checkpoints.complete_checkpoints(tmp_path)]
    assert left == [4, 5]


def test_a_sealed_file_is_not_read_again_but_checked_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints.begin(tmp_path, 5)
    weights = checkpoints.unfinished(tmp_path, 5) / "weights"
    weights.write_bytes(b"weights")
    checkpoints.seal(weights)
    weights.write_bytes(b"w3ights")  # damaged between its sealing and the end of the checkpoint
    checkpoints.publish(tmp_path, 5)
    written = checkpoints.finished(tmp_path, 5)
    assert sorted(path.name for path in written.iterdir()) == [checkpoints.HASHES, "weights"]
    assert checkpoints.find_damage(written) == "weights is not what was written"
    assert checkpoints.newest(tmp_path) is None
    assert "checkpoint step-0000005 is refused: weights is not what" in capsys.readouterr().err


def test_sealed_or_not_the_list_of_hashes_is_the_same(tmp_path: Path) -> None:
    lists = []
    for folder in (tmp_path / "sealed", tmp_path / "not"):
        checkpoints.begin(folder, 5)
        for name in ("b", "a"):
            path = checkpoints.unfinished(folder, 5) / name
            path.write_text(name)
            if folder.name == "sealed":
                checkpoints.seal(path)
        checkpoints.publish(folder, 5)
        assert checkpoints.find_damage(checkpoints.finished(folder, 5)) is None
        lists.append((checkpoints.finished(folder, 5) / checkpoints.HASHES).read_text())
    assert lists[0] == lists[1]
    assert lists[0].startswith(hashlib.sha256(b"a").hexdigest() + "  a\n")


def test_one_made_again_after_a_restart_replaces_the_first(tmp_path: Path) -> None:
    _with_loss(tmp_path, 5, 1.0)
    _with_loss(tmp_path, 5, 2.0)
    assert checkpoints.read_state(tmp_path / "step-0000005") == {"loss": 2.0}


def _with_files(folder: Path, step: int, *files: str, listed: tuple[str, ...]) -> Path:
    checkpoints.begin(folder, step)
    written = checkpoints.unfinished(folder, step)
    for name in files:
        (written / name).write_text(name)
    (written / checkpoints.STATE).write_text(json.dumps({checkpoints.FILES: listed}))
    return written


def test_without_a_file_that_its_state_lists_it_is_not_published(tmp_path: Path) -> None:
    both = ("errors-00000-00000", "errors-00001-00000")
    _with_files(tmp_path, 5, *both, listed=both)
    checkpoints.publish(tmp_path, 5)
    _with_files(tmp_path, 10, both[0], listed=both)
    with pytest.raises(FileNotFoundError, match="of update 10: .* has no errors-00001-00000$"):
        checkpoints.publish(tmp_path, 10)
    assert checkpoints.newest(tmp_path) == tmp_path / "step-0000005"


def test_without_a_file_that_its_state_lists_it_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though all that its list of hashes names is there, and right."""
    both = ("shard-00000", "shard-00001")
    _with_files(tmp_path, 5, *both, listed=both)
    checkpoints.publish(tmp_path, 5)
    written = _with_files(tmp_path, 10, both[0], listed=both)
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(written.iterdir())
    ]
    (written / checkpoints.HASHES).write_text("".join(lines))
    written.rename(checkpoints.finished(tmp_path, 10))
    assert checkpoints.newest(tmp_path) == tmp_path / "step-0000005"
    said = capsys.readouterr().err
    assert "checkpoint step-0000010 is refused: it has no shard-00001" in said


def _write_much(path: Path) -> None:
    path.write_bytes(bytes(2 << 20))


def _save_much(path: Path) -> None:
    save_file({"w": torch.zeros(1 << 19)}, path)


@pytest.mark.parametrize("write", [_write_much, _save_much])
def test_a_full_disk_says_from_where_the_training_goes_on(
    megabyte: Path, write: Callable[[Path], None]
) -> None:
    for step, wanted in ((5, "the beginning"), (10, "update 5"), (15, "update 10")):
        checkpoints.begin(megabyte, step)
        path = checkpoints.unfinished(megabyte, step) / "weights"
        words = rf"checkpoint of update {step}: the disk is full .* goes on from {wanted}$"
        with (
            pytest.raises(ValueError, match=words) as refused,
            checkpoints.explaining_full_disk(megabyte, step),
        ):
            write(path)
        assert refused.value.__cause__ is not None
        assert not path.parent.exists()
        _save(megabyte, step)
    assert checkpoints.newest(megabyte) == megabyte / "step-0000015"


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    checkpoints.begin(tmp_path, 5)
    absent = checkpoints.unfinished(tmp_path, 5) / "absent/weights"
    with (
        pytest.raises(FileNotFoundError),
        checkpoints.explaining_full_disk(tmp_path, 5),
    ):
        absent.write_bytes(b"")
    assert checkpoints.unfinished(tmp_path, 5).is_dir()
