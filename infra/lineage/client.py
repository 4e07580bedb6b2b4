"""MLflow, opened once and spoken to by one thread.

Importing MLflow takes 1.5 s and opening its database 1 s more (2 s when it has to be made), so both
happen in that thread while others go on. One writer also keeps SQLite from locking, and calls that
nobody waits for come one after the other, in order.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

T = TypeVar("T")

_SQLITE = "sqlite:///"
_opening = threading.Lock()


class IndexIncomplete(Exception):
    """MLflow refused something; whatever was made is in the store all the same."""


@functools.cache
def open_client(tracking_uri: str) -> MlflowClient:
    """A client of the tracking server, or of the SQLite file, which is made if it is not there."""
    with _opening, _alone(tracking_uri):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        _make_database(tracking_uri)
        return MlflowClient(tracking_uri, registry_uri=tracking_uri)


def _make_database(tracking_uri: str) -> None:
    """Make the SQLite file, if it is not there, under another name, and show it when it is whole.

    MLflow makes its tables one after the other; killed between two, it could never open them again.
    """
    if not tracking_uri.startswith(_SQLITE):
        return
    path = Path(tracking_uri.removeprefix(_SQLITE))
    if path.exists():
        return
    from mlflow.tracking import MlflowClient

    partial = path.with_name(f".{path.name}.partial")
    for left in partial.parent.glob(f"{partial.name}*"):
        left.unlink()
    MlflowClient(f"{_SQLITE}{partial}").search_experiments(max_results=1)
    partial.rename(path)


def artifact_root(tracking_uri: str) -> Path | None:
    """Folder of artifacts beside a SQLite file; None for a server, which has its own."""
    if not tracking_uri.startswith(_SQLITE):
        return None
    return Path(tracking_uri.removeprefix(_SQLITE)).parent / "mlflow-artifacts"


def experiment(client: MlflowClient, tracking_uri: str, name: str) -> str:
    """Id of the experiment of this name, made if it is not there."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    root = artifact_root(tracking_uri)
    location = (root / name).as_uri() if root else None
    try:
        return str(client.create_experiment(name, location))
    except MlflowException as error:
        found = client.get_experiment_by_name(name)  # another process was faster
        if found is None:
            raise error
        return str(found.experiment_id)


@contextlib.contextmanager
def _alone(tracking_uri: str) -> Iterator[None]:
    # Two processes that make the tables at the same time fail each other.
    root = artifact_root(tracking_uri)
    if root is None:
        yield
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / ".mlflow.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Writer:
    """The one thread that speaks to MLflow for a run of a pipeline."""

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")
        self._errors: list[BaseException] = []
        self.later(open_client, tracking_uri)

    @property
    def client(self) -> MlflowClient:
        """The client; only for use in the thread itself."""
        return open_client(self._uri)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the thread, after all that was asked for before, and wait for it."""
        return self._thread.submit(function, *args).result()

    def later(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function in the thread some time; `settle` raises what it raises."""
        self._thread.submit(function, *args).add_done_callback(self._note)

    def settle(self) -> None:
        """Wait until all is done.

        Raises:
            IndexIncomplete: if something was refused, with the first reason.
        """
        self.call(lambda: None)
        errors, self._errors = self._errors, []
        if errors:
            raise IndexIncomplete(
                f"the index in MLflow ({self._uri}) is incomplete: {errors[0]}. All that was made"
                " is in the store; `tapir reindex` completes the index"
            ) from errors[0]

    def _note(self, future: Future[Any]) -> None:
        error = future.exception()
        if error is not None:
            self._errors.append(error)
