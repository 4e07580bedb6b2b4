"""The average of weights, held in fragments."""

import torch

from model_zoo.training.ema import Average
from model_zoo.training.fragments import Fragment


def test_it_starts_at_the_first_weights_and_moves_by_its_decay() -> None:
    draw = torch.Generator().manual_seed(0)
    home = torch.randn(4, 5, generator=draw)
    fragments = [Fragment("a", (20,), 0, home, 0, 12), Fragment("b", (20,), 4, home, 12, 8)]
    average = Average(fragments, decay=0.9)
    wanted = home.double().view(-1)
    for _ in range(30):
        home.add_(torch.randn(4, 5, generator=draw))
        average.update()
        wanted = 0.9 * wanted + 0.1 * home.double().view(-1)
    found = torch.cat(average.values).double()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert [len(one) for one in average.values] == [12, 8]


def test_it_leaves_the_weights_alone() -> None:
    home = torch.ones(3)
    average = Average([Fragment("a", (3,), 0, home, 0, 3)], decay=0.5)
    home.fill_(3.0)
    average.update()
    assert average.values[0].tolist() == [2.0] * 3
    assert home.tolist() == [3.0] * 3


def test_a_process_without_fragments_has_nothing_to_average() -> None:
    average = Average([], decay=0.5)
    average.update()
    assert average.values == []
