"""What is declared wrongly about machines is refused with the way out, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from infra.errors import PermanentError
from infra.launch.board import Board
from infra.launch.choice import LaunchChoice, host_and_port

MACHINES = {"launcher": "rendezvous", "machines": 4, "address": "10.0.0.1:29500", "shared": "/mnt"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"launcher": "rendezvouz"}, "did you mean 'rendezvous'"),
        ({"launcher": "local"}, "machines: launcher `local` has this one only, not 4"),
        ({"shared": None}, "shared: launcher `rendezvous` needs a folder"),
        ({"address": None}, "address: several machines need one.*10.0.0.1:29500"),
        ({"address": "10.0.0.1"}, "the port is missing; write HOST:PORT"),
        ({"address": "[fd00::1]"}, "the port is missing"),
        ({"address": "10.0.0.1:https"}, "'https' is no port"),
        ({"address": "10.0.0.1:70000"}, "'70000' is no port"),
        ({"address": ":29500"}, "'' is no host"),
        ({"address": "fd00::1:29500"}, r"brackets: \[fd00::1\]:29500"),
        ({"machines": 0}, "machines"),
        ({"processes": 0}, "processes"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_way_out(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        LaunchChoice.model_validate({**MACHINES, **changes})


def test_where_it_runs_is_no_part_of_the_identity() -> None:
    assert LaunchChoice.model_validate(MACHINES).identity() == LaunchChoice().identity() == {}


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert host_and_port("[fd00::1]:29500") == ("fd00::1", 29500)
    assert host_and_port("node-0.cluster:1") == ("node-0.cluster", 1)


def test_a_shared_folder_that_is_not_there_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="no folder .*/nowhere.*mkdir"):
        Board(tmp_path / "nowhere")
