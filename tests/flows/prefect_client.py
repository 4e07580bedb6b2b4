"""A Prefect server as a person uses it: its command line, and what its API says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.flows.command import ROOT


class Prefect:
    """Prefect's own command line against a server, as docs/deploy.md uses it."""

    def __init__(self, server: str, folder: Path) -> None:
        self.environment = {
            **os.environ, "PREFECT_API_URL": server, "PREFECT_HOME": str(folder / "prefect"),
            "TAPIR_CODE": str(ROOT), "PYTHONPATH": str(ROOT),
        }  # fmt: skip

    def __call__(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def asked(server: str, what: str) -> list[dict[str, Any]]:
    """Everything of a kind that the server knows."""
    request = urllib.request.Request(
        f"{server}/{what}", b"{}", {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found
