"""The generated site that a declaration asks for: made once, served while the pipeline runs."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from flows.declaration import BoundPipeline
from infra.demo_web.process import serve_site
from infra.environment import Environment
from infra.process import start_guarded
from schemas.base import canonical
from schemas.pipeline import Web


@contextlib.contextmanager
def serving(
    pipeline: BoundPipeline, environment: Environment, say: Callable[[str], None]
) -> Iterator[None]:
    """Serve the pipeline's generated site on loopback, if it declares one.

    Raises:
        ProcessFailed, RuntimeError: if the site cannot be made or served.
    """
    if pipeline.web is None:
        yield
        return
    folder = make_site(pipeline.web, environment, say)
    with serve_site(folder):
        yield


def make_site(web: Web, environment: Environment, say: Callable[[str], None]) -> Path:
    """The folder of a generated site, made unless it is there with the same settings."""
    folder = environment.home / "web" / web.variant
    stamp, wanted = folder / "made.json", json.loads(canonical(web))
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return folder
    say(f"making the site {web.variant}")
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "infra.demo_web", "make", str(folder)]
    command += ["--variant", web.variant, "--seed", str(web.seed)]
    command += ["--pages", str(web.pages)] if web.pages else []
    command += ["--font", web.font] if web.font else []
    log = environment.home / "logs" / f"make-{web.variant}.log"
    with start_guarded(command, log=log) as maker:
        maker.check()
    stamp.write_text(json.dumps(wanted))
    return folder
