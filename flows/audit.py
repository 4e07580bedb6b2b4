"""For auditors: the chain from a model or artifact back to its sources, every file hashed again."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from infra.environment import Environment
from infra.store import Store
from infra.trace import chain, render, resolve, verify


class AuditFailed(Exception):
    """Files of the chain are missing or altered; the message names them."""


@flow(name="audit", persist_result=False)
def audit(ref: str, home: str = ".tapir", store: str = "") -> str:
    """Trace and verify a reference; the trace, which is also kept as a Prefect artifact.

    Raises:
        AuditFailed: naming each file that is missing or altered.
    """
    environment = Environment(home=Path(home), store_url=store)
    opened = Store(environment.store_url)
    found = resolve(opened, ref, environment.tracking_uri)
    text, problems = render(chain(opened, found)), verify(opened, found)
    verdict = "\n".join(f"- {p}" for p in problems) or "All files are as they were made."
    create_markdown_artifact(f"# {ref}\n\n{verdict}\n\n```\n{text}\n```\n", key="audit")
    if problems:
        raise AuditFailed("\n".join(problems))
    return text
