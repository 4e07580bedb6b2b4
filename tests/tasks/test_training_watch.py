"""A store that cannot be reached for a while is said, and ends no training; a lost lease does."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import Fenced
from infra.work import Event, Work
from tasks import training_watch
from tasks.train_prior import PriorParams
from tasks.training_process import train_network
from tasks.training_watch import Saver
from tests.tasks.attempt import CONFIG, SIZES, TRAINING, pairs

_STEPS = 12


class Store:
    """What a Work saves to: unreachable while `error` is set."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.tries = self.saved = 0

    def save(self, state: Path) -> None:
        self.tries += 1
        if self.error is not None:
            raise self.error
        self.saved += 1


class Said:
    """The messages of a Work."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: Event) -> None:
        if event.kind == "message":
            self.texts.append(event.values["text"])


def _train(work: Work, folder: Path) -> Path:
    training = {**TRAINING, "steps": _STEPS, "checkpoint_every": 3, "log_every": 1}
    params = PriorParams(config=CONFIG, training=training)  # type: ignore[arg-type]
    config = params.with_sizes(SIZES)
    return train_network(params, params.training, config, [pairs(folder)], work)


def test_a_training_goes_on_where_the_store_is_away(tmp_path: Path) -> None:
    store, said = Store(), Said()
    store.error = ConnectionError("no route to the store")
    work = Work.local(tmp_path, save=store.save, listen=said)
    assert _train(work, tmp_path).exists()
    steps = [entry["step"] for entry in work.metrics() if entry["name"] == "loss"]
    assert steps == list(range(1, _STEPS + 1))
    assert any((tmp_path / "state/frozen/checkpoints").glob("step-*"))
    assert store.tries >= 1 and store.saved == 0
    [text] = [text for text in said.texts if "store" in text]
    assert "the training goes on" in text and "no route to the store" in text


def test_an_attempt_that_was_replaced_ends_its_training(tmp_path: Path) -> None:
    def guard() -> None:
        raise Fenced("attempt 1 was replaced by another")

    with pytest.raises(Fenced, match="replaced by another"):
        _train(Work.local(tmp_path, guard=guard), tmp_path)


def test_it_is_tried_again_and_said_at_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(training_watch.time, "monotonic", lambda: now[0])
    store, said = Store(), Said()
    saver = Saver(Work.local(tmp_path, save=store.save, listen=said))
    saver.look(new=False)
    assert store.tries == 0
    saver.look(new=True)
    assert (store.tries, store.saved, said.texts) == (1, 1, [])

    store.error = TimeoutError("slow")
    for second in range(1201):  # twenty minutes
        now[0] = 2000.0 + second
        saver.look(new=second % 100 == 0)
    assert store.tries == 1 + 41  # every 30 s, however often there is something new
    assert len(said.texts) == 3  # at once, after 10 and after 20 minutes
    assert all("TimeoutError: slow" in text for text in said.texts)

    store.error = None
    now[0] += 30
    saver.look(new=False)
    assert store.saved == 2
    assert said.texts[3:] == ["the newest checkpoint is in the store again"]
    saver.look(new=False)
    assert store.saved == 2
    store.error = TimeoutError("slow")  # a new one is said at once
    saver.look(new=True)
    assert len(said.texts) == 5
