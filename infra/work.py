"""The work of one attempt at a stage: units in, units out, progress, metrics, durable state.

`Work.map` fans a function out over units, one call a unit, and remembers what each call gave under
a key of code, configuration and unit. A finished unit is thus never made again: not after a kill,
not by a second attempt, and not next month, when more units stand beside it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.disk import explaining_full_disk
from infra.environment import Environment
from infra.errors import DamagedUnit, WorkersDied
from infra.sources import fetch_source
from infra.store import Store
from schemas.artifact import Unit
from schemas.base import canonical, digest
from schemas.manifest import InputRef
from schemas.stage import Source

Item = Unit | Source
FROZEN = "frozen"  # folder of the state whose files never change once written; linked, not copied


@dataclass(frozen=True)
class Event:
    """Something a person who watches wants to know: progress, a metric, a message."""

    kind: str  # "progress" | "metrics" | "message"
    values: dict[str, Any]


@dataclass
class ShardWork:
    """What a function that makes one unit gets: its scratch folder, and where outputs go."""

    store: Store
    scratch: Path
    outputs: dict[str, list[Unit]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def fetch(self, item: Item) -> Path:
        """A local, hash-checked file of a unit or source; read it, never write it."""
        return _fetch(self.store, item, self.scratch / "fetched")

    def add(self, output: str, path: Path, name: str, records: int | None = None) -> Unit:
        """Store a file as a unit of the named output."""
        unit = self.store.put(path, name, records)
        self.outputs.setdefault(output, []).append(unit)
        return unit

    def count(self, name: str, n: int = 1) -> None:
        """Add to a counter of the stage."""
        self.counts[name] += n


@dataclass(frozen=True)
class Mapped:
    """What the calls of a map gave, in the order of the items."""

    outputs: tuple[dict[str, tuple[Unit, ...]], ...]
    counts: dict[str, int]

    def units(self, output: str) -> tuple[Unit, ...]:
        """All units of one output, in the order of the items they came from."""
        return tuple(unit for one in self.outputs for unit in one.get(output, ()))


class Work:
    """One attempt at a stage; see the module's text."""

    def __init__(
        self,
        store: Store,
        environment: Environment,
        scratch: Path,
        state: Path,
        code: str,
        sources: tuple[Source, ...] = (),
        inputs: Mapping[str, InputRef] | None = None,
        listen: Callable[[Event], None] = lambda event: None,
        guard: Callable[[], None] = lambda: None,
        save: Callable[[Path], None] = lambda state: None,
    ) -> None:
        self.store = store
        self.environment = environment
        self.scratch = scratch
        self.state = state
        self.sources = sources
        self.inputs = dict(inputs or {})  # where each input came from, by argument
        self.counts: Counter[str] = Counter()
        self.made = 0  # units made by this attempt
        self.reused = 0  # units that an earlier attempt or run had made
        self.side: list[Unit] = []
        self._code = code
        self._listen = listen
        self._guard = guard
        self._save = save
        self._lock = threading.Lock()
        scratch.mkdir(parents=True, exist_ok=True)
        (state / FROZEN).mkdir(parents=True, exist_ok=True)

    @classmethod
    def local(cls, folder: Path, **options: Any) -> Work:
        """A real Work on a local store in `folder`, with calls run one after the other."""
        environment = Environment(home=folder, dask="inline")
        store = Store(environment.store_url)
        scratch = folder / "scratch" / uuid.uuid4().hex
        options = {"code": "local", "state": folder / "state", **options}
        return cls(store, environment, scratch, **options)

    # Units

    def fetch(self, item: Item) -> Path:
        """A local, hash-checked file of a unit or source; read it, never write it.

        Raises:
            DamagedUnit: if the stored bytes are missing or altered.
        """
        return _fetch(self.store, item, self.scratch / "fetched")

    def add(self, path: Path, name: str, records: int | None = None) -> Unit:
        """Store a file as a unit."""
        self._guard()
        self.made += 1
        return self.store.put(path, name, records)

    def add_side(self, path: Path, name: str, records: int | None = None) -> Unit:
        """Store a file of run-dependent facts, kept with the manifest outside the digests."""
        unit = self.store.put(path, name, records)
        self.side.append(unit)
        return unit

    def map(self, function: Callable[..., None], items: Sequence[Item], **config: Any) -> Mapped:
        """Call `function(item, shard, **config)` once for each item, fanned out on Dask.

        The function must be importable by name; `config` is part of what a call is known by.

        Raises:
            ConnectionError: if the Dask scheduler goes; asking later may help.
            WorkersDied: if several workers died over one item; the others are made all the same.
        """
        keys = [self._key(function, item, config) for item in items]
        found = {key: memo for key in dict.fromkeys(keys) if (memo := self._recall(key))}
        todo = {k: item for k, item in zip(keys, items, strict=True) if k not in found}
        self.reused += len(found)
        for done, (key, memo) in enumerate(self._run(function, todo, config), start=1):
            found[key] = memo
            self.made += 1
            self.progress(len(items) - len(todo) + done, len(items), "units")
        return self._mapped([found[key] for key in keys])

    def is_made(self, function: Callable[..., None], item: Item, **config: Any) -> bool:
        """Whether `map` would find what this call gives, and not make it."""
        return self._recall(self._key(function, item, config)) is not None

    def _key(self, function: Callable[..., None], item: Item, config: dict[str, Any]) -> str:
        name = f"{function.__module__}:{function.__qualname__}"
        return digest([self._code, name, canonical(config), _identity(item)])

    def _mapped(self, memos: list[dict[str, Any]]) -> Mapped:
        outputs = tuple(
            {name: tuple(Unit(**u) for u in units) for name, units in memo["outputs"].items()}
            for memo in memos
        )
        counts: Counter[str] = Counter()
        for memo in memos:
            counts.update(memo["counts"])
        self.counts.update(counts)
        return Mapped(outputs, dict(counts))

    def _recall(self, key: str) -> dict[str, Any] | None:
        memo = self.store.read(f"memo/{key}.json")
        if memo is None:
            return None
        units = [Unit(**unit) for units in memo["outputs"].values() for unit in units]
        return memo if all(self.store.has(unit) for unit in units) else None

    def _run(
        self, function: Callable[..., None], todo: dict[str, Item], config: dict[str, Any]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        base = None if self.environment.dask else str(self.scratch)
        calls = [(self.store, base, key, function, item, config) for key, item in todo.items()]
        # One call is not worth a cluster's start.
        client = self.environment.client() if len(calls) > 1 else None
        if client is None:
            for call in calls:
                self._guard()
                yield run_call(*call)
            return
        yield from self._run_on(client, calls)

    def _run_on(self, client: Any, calls: list[tuple[Any, ...]]) -> Iterator[Any]:
        from distributed import KilledWorker, as_completed
        from distributed.comm import CommClosedError

        # pure=False: Dask's own idea of sameness is not ours, and a retry must really run.
        futures = [client.submit(run_call, *call, pure=False, retries=0) for call in calls]
        items = dict(zip(futures, (call[4] for call in calls), strict=True))
        address = client.scheduler.address
        deadly: list[str] = []
        try:
            for future in as_completed(futures, loop=client.loop):
                self._guard()
                try:
                    made = future.result()
                except KilledWorker:
                    deadly.append(items[future].name)
                else:
                    yield made
        # Nobody here cancels what is still waited for.
        except (CancelledError, CommClosedError) as error:
            raise ConnectionError(
                f"the Dask scheduler at {address} has gone; what was finished is kept, and the"
                " rest is made once it is back"
            ) from error
        except BaseException:
            client.cancel(futures)
            raise
        if deadly:
            raise WorkersDied(
                f"each worker process that was given {_some(deadly)} died over it: it was killed,"
                " as the system does when memory is short, or what it read crashed a library. All"
                " else is made and kept; give workers more memory, or leave out what is named"
            )

    # What people see

    def progress(self, done: int, total: int | None, unit: str = "units") -> None:
        """Say how far the work is."""
        self._listen(Event("progress", {"done": done, "total": total, "unit": unit}))

    def metric(self, name: str, value: float, step: int = 0) -> None:
        """Log a value of a metric over time; the last one logged for a step counts."""
        self.log({name: value}, step)

    def log(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log several metrics of a step together, which costs no more than one."""
        entries = [
            {"name": name, "value": float(value), "step": int(step)}
            for name, value in values.items()
        ]
        with self._lock, (self.state / "metrics.jsonl").open("a") as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in entries))
        self._listen(Event("metrics", {"entries": entries}))

    def message(self, text: str) -> None:
        """Say something in words."""
        self._listen(Event("message", {"text": text}))

    def count(self, name: str, n: int = 1) -> None:
        """Add to a counter of the stage; counters stand in the manifest and in MLflow."""
        with self._lock:
            self.counts[name] += n

    # What survives

    def save_state(self) -> None:
        """Bring the state folder to the store, where another machine can resume from it."""
        self._guard()
        self._save(self.state)

    def metrics(self) -> list[dict[str, Any]]:
        """All metrics logged so far, one value for each name and step, in order."""
        path = self.state / "metrics.jsonl"
        if not path.exists():
            return []
        found = {}
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # a kill may tear the last line
                entry = json.loads(line)
                found[entry["name"], entry["step"]] = entry
        return sorted(found.values(), key=lambda entry: (entry["name"], entry["step"]))


def run_call(
    store: Store,
    base: str | None,
    key: str,
    function: Callable[..., None],
    item: Item,
    config: dict[str, Any],
) -> tuple[str, dict[str, Any]]:
    """Make one unit, on whatever worker this runs, and remember it under `key`."""
    scratch = Path(tempfile.mkdtemp(prefix="tapir-", dir=base))
    try:
        shard = ShardWork(store, scratch)
        # Here, where the space that is free is still that of the moment and the machine.
        with explaining_full_disk(*store.local_folders(), scratch):
            function(item, shard, **config)
            memo = {
                "outputs": {n: [u.model_dump() for u in us] for n, us in shard.outputs.items()},
                "counts": dict(shard.counts),
            }
            store.write(f"memo/{key}.json", memo)
        return key, memo
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _identity(item: Item) -> list[str]:
    return [item.name, item.sha256 if isinstance(item, Unit) else item.identity]


def _fetch(store: Store, item: Item, folder: Path) -> Path:
    if isinstance(item, Unit):
        return store.fetch(item, folder)
    return fetch_source(item, folder)


__all__ = ["DamagedUnit", "Event", "Mapped", "ShardWork", "Work", "run_call"]
