"""Where a run happens: the home folder, the store, the machine's cores, the Dask cluster.

Nothing here bears on what a stage makes, so nothing here is part of a fingerprint.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

HOME_SCHEME = "home://"


@dataclass
class Environment:
    """A home folder with its store, and the means of work.

    Attributes:
        home: local folder of state (`--home`, `$TAPIR_HOME`, `.tapir`).
        store_url: any fsspec URL; by default the folder `store` in home.
        dask: address of a Dask scheduler; None starts a LocalCluster when it is first needed,
            and "inline" runs the calls one after the other in this process.
    """

    home: Path
    store_url: str = ""
    dask: str | None = None
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    memory_gb: float = field(default_factory=lambda: psutil.virtual_memory().total / 2**30)
    _client: Any = field(default=None, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.home = self.home.absolute()
        self.store_url = self.store_url or str(self.home / "store")

    @property
    def tracking_uri(self) -> str:
        """Where MLflow keeps its index: `$MLFLOW_TRACKING_URI`, or a SQLite file in home."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.home / 'mlflow.db'}"

    def local(self, text: str) -> str:
        """A declared path with `home://` resolved; other text as it is."""
        if text.startswith(HOME_SCHEME):
            return str(self.home / text.removeprefix(HOME_SCHEME))
        return text

    def client(self) -> Any:
        """The Dask client, started on first use; None when calls run inline.

        One that has closed, because its scheduler was gone for too long, is replaced.
        """
        with self._lock:
            if self._client is not None and self._client.status == "closed":
                self._client = None
            if self._client is None and self.dask != "inline":
                self._client = _connect(self.dask, self.cores)
            return self._client

    def close(self) -> None:
        """Leave the cluster, and end it if it was started here."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                if self._client.cluster is not None:
                    self._client.cluster.close()
                self._client = None


def _connect(address: str | None, cores: int) -> Any:
    # Imported here: a run with everything cached never needs a cluster, and the import takes 0.5 s.
    import dask
    from distributed import Client, LocalCluster

    # The sampling profiler holds frames of the working thread, so that what they refer to may be
    # dropped in another thread; parsed pages (resiliparse) cannot be.
    dask.config.set({"distributed.worker.profile.enabled": False})
    # By default a worker gives freed memory back at once, and a network that draws takes as much
    # again for every code.
    dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**28})
    dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**28})
    # Prefect's logging set-up would have it tell of every worker that comes and goes.
    logging.getLogger("distributed").setLevel(logging.WARNING)
    if address is not None:
        return Client(address, set_as_default=False)
    cluster = LocalCluster(
        n_workers=cores, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    )
    return Client(cluster, set_as_default=False)
