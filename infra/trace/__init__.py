"""From a result back to its sources: which manifests, and whether every file is as it was made.

All is read from the store alone; only a model's alias is looked up in MLflow, and the record of the
version that it names is in the store again.
"""

from infra.trace.chain import Chain, chain
from infra.trace.reference import Reference, resolve
from infra.trace.verification import verify
from infra.trace.view import chain_json, render

__all__ = ["Chain", "Reference", "chain", "chain_json", "render", "resolve", "verify"]
