"""The gateway as a program of its own, for the stage that needs it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Self

from infra.gateway.config import GatewayConfig
from infra.process import Guarded, start_guarded, wait_for

_START = 60.0  # seconds until it must listen, on a machine that is busy with other things
_GRACE = 10.0  # seconds to write the journal's end


class RunningGateway:
    """A gateway in a process that dies with this one; use it in a `with` statement."""

    def __init__(self, config: GatewayConfig, log: Path) -> None:
        config.ready.unlink(missing_ok=True)
        settings = config.ready.with_name("gateway.json")
        settings.write_text(config.model_dump_json())
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "infra.gateway", str(settings)]
        self.process: Guarded = start_guarded(command, log=log, env=environment)
        try:
            wait_for(config.ready, self.process, _START)
        except BaseException:
            self.process.terminate(0.0)
            raise
        self.port = int(json.loads(config.ready.read_text())["port"])

    def url(self, key: str) -> str:
        """Where the image with this key is to be had."""
        return f"http://127.0.0.1:{self.port}/{key}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.process.terminate(_GRACE)
