"""Lineage in MLflow: an index over the manifests, which are the truth.

A parent run is a run of a pipeline, a nested run one of its stages. Everything here can be rebuilt
from the store, so nothing that a result depends on is kept in MLflow alone.
"""

from infra.lineage.client import IndexIncomplete
from infra.lineage.index import Lineage
from infra.lineage.mending import Reindexed

__all__ = ["IndexIncomplete", "Lineage", "Reindexed"]
