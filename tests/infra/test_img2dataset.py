"""The program that fetches: nothing of it outlives what started it, whatever is killed."""

import contextlib
import os
import signal
import socket
import time

import psutil
import pytest

from infra.img2dataset import Settings, start_img2dataset


@contextlib.contextmanager
def silent_server():
    """Takes connections and never answers; the address of a picture there."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/a.png"


@pytest.mark.parametrize("victim", ["guard", "program"])
def test_a_killed_program_leaves_nothing_behind(tmp_path, victim):
    with silent_server() as url:
        urls = [f"{url}?{number}" for number in range(8)]
        settings = Settings(processes=2, threads=2)
        with start_img2dataset(urls, tmp_path / "out", settings, tmp_path / "log") as running:
            guard = psutil.Process(running.pid)
            deadline = time.monotonic() + 60
            while len(below := guard.children(recursive=True)) < 5:  # it, two helpers, two workers
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.05)
            os.kill(guard.pid if victim == "guard" else guard.children()[0].pid, signal.SIGKILL)
            _, alive = psutil.wait_procs(below, timeout=10)

    said = [" ".join(process.cmdline()) for process in alive]
    for process in alive:
        process.kill()
    assert said == []
