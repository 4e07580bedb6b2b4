"""A checkpoint is whole or not one; what was altered is refused and the one before it used."""

from pathlib import Path

import pytest

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
