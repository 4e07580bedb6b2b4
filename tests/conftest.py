"""What all tests share: no telemetry, no network but loopback, and stages made for tests."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.update(
    DO_NOT_TRACK="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    MLFLOW_DISABLE_TELEMETRY="true",
    PREFECT_LOGGING_LEVEL="ERROR",
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "2"),
)

import tasks

STAGES = Path(__file__).parent / "stages"
# Declarations find a stage as the module of its name in `tasks`; the tests' own are found as well.
tasks.__path__.append(str(STAGES))
