"""A web server in a process of its own: it outlives whatever a test kills, and logs every request.

    python tests/tasks/web.py FOLDER

serves FOLDER/site.json, a list of answers by "host/path":
    {"status": 200, "type": "image/png", "body": "<base64>", "headers": {}, "delay": 0.0,
     "first": [another answer, for the first request, …]}
and appends "host/path" to FOLDER/requests.log. FOLDER/hosts.json tells the gateway where it is.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web


async def serve(folder: Path) -> None:
    """Serve until killed."""
    site = json.loads((folder / "site.json").read_text())
    seen: Counter[str] = Counter()
    log = (folder / "requests.log").open("a", buffering=1)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        name = request.host.partition(":")[0] + request.path
        log.write(name + "\n")
        seen[name] += 1
        entry = site.get(name, {"status": 404})
        first = entry.get("first", [])
        answer = first[seen[name] - 1] if seen[name] <= len(first) else entry
        await asyncio.sleep(answer.get("delay", 0.0))
        headers = {"Content-Type": answer.get("type", "image/png"), **answer.get("headers", {})}
        body = base64.b64decode(answer.get("body", ""))
        return web.Response(status=answer.get("status", 200), body=body, headers=headers)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    names = sorted({name.partition("/")[0] for name in site})
    hosts = {f"{name}:80": f"127.0.0.1:{port}" for name in names}
    partial = folder / "hosts.part"
    partial.write_text(json.dumps({"hosts": hosts}))
    partial.rename(folder / "hosts.json")
    await asyncio.Event().wait()


@contextlib.contextmanager
def serving(folder: Path, site: dict[str, dict[str, Any]]) -> Iterator[Path]:
    """Serve a site from another process; gives the path of `private_hosts`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.json").write_text(json.dumps(site))
    process = subprocess.Popen([sys.executable, __file__, str(folder)])
    try:
        deadline = time.monotonic() + 30
        while not (folder / "hosts.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield folder / "hosts.json"
    finally:
        process.kill()
        process.wait()


def requests(folder: Path) -> Counter[str]:
    """How often each "host/path" was requested."""
    path = folder / "requests.log"
    return Counter(path.read_text().split()) if path.exists() else Counter()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
