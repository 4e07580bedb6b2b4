"""Units are made once, wherever they are made: inline, on Dask workers that share only a store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from infra.errors import DamagedUnit, WorkersDied
from infra.process import start_guarded, wait_for
from infra.work import Event, ShardWork, Work
from schemas.artifact import Unit
from schemas.stage import Source
from tests.s3 import s3_server

_ROOT = Path(__file__).parents[2]


def shout(unit: Unit | Source, shard: ShardWork, mark: str) -> None:
    """Upper case and a mark; the record of where it ran is no part of the result."""
    text = shard.fetch(unit).read_text().upper() + mark
    path = shard.scratch / "loud.txt"
    path.write_text(text)
    shard.add("loud", path, f"loud-{unit.name}", len(text))
    shard.count("letters", len(text))


def fail_on_b(unit: Unit | Source, shard: ShardWork) -> None:
    """Fails for one unit, after the others."""
    if unit.name == "b.txt":
        time.sleep(0.2)
        raise RuntimeError("b is bad")
    shout(unit, shard, "")


def die_of_b(unit: Unit | Source, shard: ShardWork) -> None:
    """Takes the worker with it for one unit, as a crash or the lack of memory does."""
    if unit.name == "b.txt":
        os.kill(os.getpid(), signal.SIGKILL)
    shout(unit, shard, "")


def _units(work: Work, names: str = "abc") -> list[Unit]:
    units = []
    for name in names:
        path = work.scratch / f"{name}.txt"
        path.write_text(name * 3)
        units.append(work.add(path, f"{name}.txt"))
    return units


def test_outputs_come_in_the_order_of_the_items(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    mapped = work.map(shout, _units(work), mark="!")
    assert [u.name for u in mapped.units("loud")] == ["loud-a.txt", "loud-b.txt", "loud-c.txt"]
    assert work.fetch(mapped.units("loud")[1]).read_text() == "BBB!"
    assert mapped.counts == {"letters": 12}
    assert work.counts == {"letters": 12}


def test_a_finished_unit_is_not_made_again(tmp_path: Path) -> None:
    first = Work.local(tmp_path)
    before = first.map(shout, _units(first), mark="!")
    second = Work.local(tmp_path)
    units = _units(second, "abcd")
    made = second.made
    after = second.map(shout, units, mark="!")
    assert after.units("loud")[:3] == before.units("loud")
    assert (second.made - made, second.reused) == (1, 3)


def test_another_configuration_or_code_is_another_unit(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    work.map(shout, _units(work), mark="!")
    other = Work.local(tmp_path, code="edited")
    other.map(shout, _units(other), mark="!")
    other.map(shout, _units(other), mark="?")
    assert other.reused == 0


def test_what_was_finished_before_a_failure_stays(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    with pytest.raises(RuntimeError, match="b is bad"):
        work.map(fail_on_b, _units(work))
    again = Work.local(tmp_path)
    assert [bool(again._recall(key)) for key in _keys(again)] == [True]


def _keys(work: Work) -> list[str]:
    return [name.removesuffix(".json") for name in work.store.names("memo")]


def test_a_unit_with_lost_bytes_is_made_again(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    lost = work.map(shout, _units(work), mark="!").units("loud")[0]
    work.store.discard(lost.sha256)
    again = Work.local(tmp_path)
    assert again.map(shout, _units(again), mark="!").units("loud")[0] == lost
    assert again.store.check(lost) is None
    assert again.reused == 2


def test_configuration_without_a_stable_text_is_refused(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    with pytest.raises(TypeError, match="set has no text"):
        work.map(shout, _units(work), mark={"!"})


def test_metrics_keep_the_last_value_of_a_step_and_survive_a_torn_line(tmp_path: Path) -> None:
    seen: list[Event] = []
    work = Work.local(tmp_path, listen=seen.append)
    work.metric("loss", 3.0, 1)
    work.metric("loss", 2.0, 2)
    work.log({"loss": 2.5, "rate": 0.1}, 1)
    with (work.state / "metrics.jsonl").open("a") as file:
        file.write('{"name": "lo')
    found = [(m["name"], m["step"], m["value"]) for m in work.metrics()]
    assert found == [("loss", 1, 2.5), ("loss", 2, 2.0), ("rate", 1, 0.1)]
    assert [len(event.values["entries"]) for event in seen] == [1, 1, 2]


@contextmanager
def _cluster(folder: Path, workers: int = 2) -> Iterator[str]:
    """A scheduler and workers as processes of their own, each in a folder of its own."""
    with ExitStack() as stack:
        found = folder / "scheduler.json"
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        options += ["--scheduler-file", str(found)]
        (folder / "s").mkdir()
        scheduler = stack.enter_context(
            start_guarded(
                [*command, *options], log=folder / "s.log", cwd=folder / "s", env=environment
            )
        )
        wait_for(found, scheduler, 30)
        for number in range(workers):
            place = folder / f"w{number}"
            place.mkdir()
            command = [sys.executable, "-m", "distributed.cli.dask_worker"]
            options = ["--scheduler-file", str(found), "--nthreads", "1", "--no-dashboard"]
            log = folder / f"w{number}.log"
            stack.enter_context(
                start_guarded([*command, *options], log=log, cwd=place, env=environment)
            )
        yield json.loads(found.read_text())["address"]


def test_workers_without_a_shared_folder_share_a_store_on_s3(tmp_path: Path) -> None:
    from infra.environment import Environment
    from infra.store import Store

    with s3_server() as url, _cluster(tmp_path) as address:
        environment = Environment(home=tmp_path / "home", store_url=url, dask=address)
        work = Work(Store(url), environment, tmp_path / "x", tmp_path / "state", "code")
        try:
            mapped = work.map(shout, _units(work, "abcdef"), mark="!")
            assert [u.name for u in mapped.units("loud")] == [f"loud-{c}.txt" for c in "abcdef"]
            assert all(work.store.check(unit) is None for unit in mapped.units("loud"))
            lost = mapped.units("loud")[0]
            work.store.discard(lost.sha256)
            with pytest.raises(DamagedUnit):
                work.map(shout, mapped.units("loud"), mark="?")
        finally:
            environment.close()


def test_a_unit_that_workers_die_of_is_named_and_the_others_are_made(tmp_path: Path) -> None:
    from infra.environment import Environment
    from infra.store import Store

    with _cluster(tmp_path) as address:
        environment = Environment(home=tmp_path / "home", dask=address)
        store = Store(environment.store_url)
        work = Work(store, environment, tmp_path / "x", tmp_path / "state", "code")
        try:
            units = _units(work, "abcdef")
            with pytest.raises(WorkersDied, match=r"given b\.txt died over it: it was killed"):
                work.map(die_of_b, units)
            assert [work.is_made(die_of_b, unit) for unit in units] == [
                unit.name != "b.txt" for unit in units
            ]
        finally:
            environment.close()


def test_a_local_cluster_is_started_when_none_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from infra.environment import Environment\n"
        "from infra.store import Store; from infra.work import Work\n"
        "from tests.infra.test_work import _units, shout\n"
        "if __name__ == '__main__':\n"
        "    home = Path(sys.argv[1]); e = Environment(home=home)\n"
        "    w = Work(Store(e.store_url), e, home / 'x', home / 'state', 'code')\n"
        "    print(w.map(shout, _units(w), mark='!').counts['letters']); e.close()\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "home")], capture_output=True, text=True,
        check=True, cwd=_ROOT, env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )  # fmt: skip
    assert done.stdout.strip() == "12"
