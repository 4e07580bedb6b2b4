"""Every network learns as it did: a loss curve from fixed seeds is the one on file."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch

from tests.model_zoo.golden import FILE, NETWORKS, STEPS, curve

# One thread instead of two, and no vector instructions, change these losses by less than 1e-5; a
# caption's share of 0.12 instead of 0.125, or embeddings drawn 1 % wider, by 3e-4 and more.
TOLERANCE = 2e-4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So small a network gains nothing from a second thread, and waits for it on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_loss_falls_along_the_golden_curve(name: str) -> None:
    golden = json.loads(FILE.read_text())[name]
    assert len(golden) == STEPS
    assert golden[-1] < golden[0]
    assert curve(name) == pytest.approx(golden, rel=TOLERANCE)
