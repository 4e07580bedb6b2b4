"""Distances of two sets of pictures by their features [N, D], as torch-fidelity computes them.

Features are taken as float64: distances of neighbours are sums of large numbers that cancel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from infra.errors import PermanentError

_SPLITS = 10  # of the Inception Score, as in its paper (Salimans et al., 2016)
_ROWS = 1024  # of a matrix of distances that are held at once
SHUFFLE_SEED = 2020  # which pictures fall into which split; the library's own


def fid(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Fréchet distance of both sets, each taken as one Gaussian (Heusel et al., 2017).

    With few pictures it is too large, the more so the fewer there are.

    Raises:
        PermanentError: if a set has too few pictures for its covariance to be of full rank.
    """
    from torch_fidelity import metric_fid

    check_count(min(len(first), len(second)), first.shape[1])
    statistics = [metric_fid.fid_features_to_statistics(_rows(one)) for one in (first, second)]
    found = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    return _finite({"fid": found[metric_fid.KEY_METRIC_FID]})


def check_count(count: int, width: int) -> None:
    """Refuse a Fréchet distance that means nothing.

    Raises:
        PermanentError: for fewer pictures than features and one.
    """
    if count <= width:
        raise PermanentError(
            f"comparison: {count} pictures on a side, and {width} features each: a Fréchet distance"
            f" needs {width + 1} or more; compare more pictures, or on features of fewer"
        )


def precision_recall(drawn: np.ndarray, real: np.ndarray, neighbours: int) -> dict[str, float]:
    """How many drawn pictures lie among the real ones, and the other way round.

    Raises:
        PermanentError: if a set has not so many neighbours.
    """
    from torch_fidelity import metric_prc

    count = min(len(drawn), len(real))
    if count <= neighbours:
        raise PermanentError(f"comparison.neighbours: {neighbours}, of {count} pictures on a side")
    found = metric_prc.prc_features_to_metric(
        _rows(drawn), _rows(real), prc_neighborhood=neighbours, prc_batch_size=_ROWS,
        save_cpu_ram=True, verbose=False,
    )  # fmt: skip
    names = {
        "precision": metric_prc.KEY_METRIC_PRECISION, "recall": metric_prc.KEY_METRIC_RECALL,
    }  # fmt: skip
    return _finite({name: found[key] for name, key in names.items()})


def inception_score(logits: np.ndarray) -> dict[str, float]:
    """How sure and how various the classes of drawn pictures are (Salimans et al., 2016).

    Raises:
        PermanentError: if there are fewer pictures than splits.
    """
    from torch_fidelity import metric_isc

    if len(logits) < _SPLITS:
        raise PermanentError(f"comparison: an Inception Score of {len(logits)} pictures; {_SPLITS}"
                             " or more are needed, and thousands to compare it")  # fmt: skip
    found = metric_isc.isc_features_to_metric(
        _rows(logits), splits=_SPLITS, shuffle=True, rng_seed=SHUFFLE_SEED
    )
    return _finite({"inception_score": found[metric_isc.KEY_METRIC_ISC_MEAN]})


def _rows(features: np.ndarray) -> torch.Tensor:
    rows = np.ascontiguousarray(features, dtype=np.float64)
    wrong = len(rows) - int(np.isfinite(rows).all(axis=1).sum())
    if wrong:
        raise PermanentError(
            f"comparison: {wrong} of {len(rows)} pictures have features that are no numbers; the"
            " network that gives them is damaged"
        )
    return torch.from_numpy(rows)


def _finite(found: Mapping[str, float]) -> dict[str, float]:
    for name, value in found.items():
        if not math.isfinite(value):
            raise PermanentError(f"comparison: {name} is {value}, which is no number to compare")
    return {name: float(value) for name, value in found.items()}
