"""The gateway's door: HTTP on loopback, `GET /KEY`.

200 with the image's bytes; 403 for a URL that is never to be asked for again, 503 for one that may
be, each with the outcome as reason phrase and in `X-Outcome`; 404 for a key that is not in the
table. `GET /` tells the counters.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import traceback
from pathlib import Path

from aiohttp import web

from infra.gateway.config import GatewayConfig
from infra.gateway.gateway import Answer, Gateway

_FATAL = 70  # exit status when the disk is full or the journal cannot be written


async def serve(config: GatewayConfig) -> None:
    """Serve until SIGTERM; `config.ready` is written when the port is open."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with Gateway(config) as gateway:
        runner = web.ServerRunner(
            web.Server(lambda request: _handle(gateway, request), access_log=None)
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        _announce(config.ready, runner.addresses[0][1])
        await stopped.wait()
        await runner.cleanup()
        print(json.dumps(gateway.counts, sort_keys=True), flush=True)


async def _handle(gateway: Gateway, request: web.BaseRequest) -> web.StreamResponse:
    if request.method != "GET":
        return web.Response(status=405)
    key = request.path.removeprefix("/")
    if not key:
        return web.json_response(gateway.counts)
    try:
        answer = await gateway.answer(key)
    except (OSError, sqlite3.Error):
        # An outcome that cannot be kept must not be made: end, and let the run say why.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(_FATAL)
    if answer is None:
        return web.Response(status=404, reason="unknown key")
    return _response(answer)


def _response(answer: Answer) -> web.Response:
    attempt = answer.attempt
    headers = {"X-Outcome": attempt.outcome.value}
    if answer.body is not None:
        return web.Response(
            body=answer.body, headers=headers, content_type="application/octet-stream"
        )
    status = 403 if attempt.permanent else 503
    return web.Response(status=status, reason=attempt.outcome.value, headers=headers)


def _announce(ready: Path, port: int) -> None:
    partial = ready.with_suffix(".part")
    partial.write_text(json.dumps({"port": port, "pid": os.getpid()}))
    partial.rename(ready)
