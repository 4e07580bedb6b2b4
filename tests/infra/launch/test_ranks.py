"""Ranks get their threads and the right interface, and a taken port is said before they start."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infra.launch.ranks import (
    Place,
    check_interface,
    check_port_is_free,
    interface_towards,
    rank_command,
    rank_environment,
)


def test_ranks_have_their_threads_whatever_dask_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    program = "import torch; print(torch.get_num_threads())"
    said = subprocess.run(
        [sys.executable, "-c", program], env=rank_environment(cores=2, processes=1),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout == "2\n"


def test_one_process_is_started_as_it_is_and_several_by_torchrun() -> None:
    run = Path("/runs/RUN.json")
    assert rank_command("a.b", run, 1, 60.0) == [sys.executable, "-m", "a.b", str(run)]
    several = rank_command("a.b", run, 4, 60.0)
    assert "--nproc-per-node=4" in several and "--standalone" in several
    place = Place(1, 2, "[fd00::1]:29500", "name")
    meeting = rank_command("a.b", run, 1, 60.0, place)
    assert {"--nnodes=2", "--node-rank=1", "--master-addr=fd00::1"} <= set(meeting)
    assert meeting[-3:] == ["-m", "a.b", str(run)]


def test_the_interface_is_the_one_that_leads_to_machine_0() -> None:
    assert interface_towards("127.0.0.1:29500") == "lo"
    environment = rank_environment(2, 1, "lo")
    assert environment["GLOO_SOCKET_IFNAME"] == "lo"
    assert environment["NCCL_SOCKET_IFNAME"] == "=lo"  # this very one, not all that begin so
    with pytest.raises(ValueError, match="cannot reach it"):
        interface_towards("no-such-host.invalid:29500")
    with pytest.raises(ValueError, match=r"'ib7': this machine has .*lo"):
        check_interface("ib7")


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} is taken on machine 0"):
            check_port_is_free(f"127.0.0.1:{port}")
    check_port_is_free(f"127.0.0.1:{port}")
