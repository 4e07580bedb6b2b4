"""Images a second through img2dataset with and without the fetch gateway, over http and https.

    python tests/benchmarks/bench_gateway.py [--images 4000] [--runs 1]

Everything runs on this machine: nginx (or, without it, an aiohttp server), the gateway, and
img2dataset with as many processes as cores. Start-up of img2dataset (some seconds) is not counted:
the rate is that between its first and its last image, read from its own statistics.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import socket
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import infra.img2dataset  # noqa: E402
from infra.gateway.client import RunningGateway  # noqa: E402
from infra.gateway.config import GatewayConfig  # noqa: E402
from infra.gateway.journal import JournalReader  # noqa: E402
from infra.gateway.outcomes import url_key  # noqa: E402
from infra.gateway.table import UrlTable  # noqa: E402
from infra.img2dataset import Settings, read_results, start_img2dataset  # noqa: E402
from infra.process import start_guarded  # noqa: E402

HOST = "localhost"

NGINX = """
    daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
    events {{ worker_connections 1024; }}
    http {{
        access_log off; keepalive_timeout 30; keepalive_requests 100000; types {{ image/jpeg jpg; }}
        client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;
        fastcgi_temp_path {folder}/t3;
        uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
        server {{ listen 127.0.0.1:{port}; root {site}; }}
        server {{ listen 127.0.0.1:{tls_port} ssl; root {site};
                 ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; }}
    }}
"""

PLAIN = """
    import asyncio, ssl, sys
    from aiohttp import web
    site, port, tls_port, folder = sys.argv[1:]
    app = web.Application()
    app.router.add_static("/", site)
    async def main():
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
        await web.TCPSite(runner, "127.0.0.1", int(port)).start()
        await web.TCPSite(runner, "127.0.0.1", int(tls_port), ssl_context=tls).start()
        await asyncio.Event().wait()
    asyncio.run(main())
"""


def make_site(folder: Path, count: int) -> float:
    """Write `count` small JPEGs (of 200 kinds); their mean size in bytes."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    pictures = []
    for _ in range(200):
        coarse = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((160, 160), Image.Resampling.BICUBIC).save(buffer, "JPEG")
        pictures.append(buffer.getvalue())
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(pictures[number % 200])
    return sum(map(len, pictures)) / len(pictures)


def make_certificate(folder: Path) -> None:
    """A self-signed certificate for the host."""
    status = os.system(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        f" -keyout {folder}/key.pem -out {folder}/cert.pem -subj /CN=bench"
        f" -addext subjectAltName=DNS:{HOST} >/dev/null 2>&1"
    )
    assert status == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(folder: Path, site: Path) -> Iterator[tuple[str, int, int]]:
    """Serve the site; the server's name, its port, its TLS port."""
    port, tls_port = free_port(), free_port()
    make_certificate(folder)
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx:
        settings = folder / "nginx.conf"
        settings.write_text(
            textwrap.dedent(NGINX).format(folder=folder, site=site, port=port, tls_port=tls_port)
        )
        # Workers drop to another user, who must be able to look into the folder.
        for part in (folder, site):
            part.chmod(0o755)
        command = [nginx, "-c", str(settings), "-p", str(folder)]
    else:
        arguments = [str(site), str(port), str(tls_port), str(folder)]
        command = [sys.executable, "-c", textwrap.dedent(PLAIN), *arguments]
    with start_guarded(command, log=folder / "server.log") as process:
        for _ in range(200):
            assert process.poll() is None, (folder / "server.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", tls_port), 1):
                break
            time.sleep(0.05)
        yield "nginx" if nginx else "aiohttp", port, tls_port


def rate(urls: list[str], folder: Path, processes: int, threads: int) -> tuple[float, float]:
    """Images a second by img2dataset's own clock, and seconds with its start-up."""
    started = time.monotonic()
    settings = Settings(processes=processes, threads=threads)
    start_img2dataset(urls, folder, settings, folder.with_suffix(".log")).check(240)
    elapsed = time.monotonic() - started
    came = sum(1 for result in read_results(folder) if result.tar is not None)
    assert came == len(urls), (came, folder.with_suffix(".log").read_text()[-2000:])
    stats = [json.loads(path.read_text()) for path in (folder / "output").glob("*_stats.json")]
    span = max(s["end_time"] for s in stats) - min(s["start_time"] for s in stats)
    return len(urls) / span, elapsed


def through_gateway(
    urls: list[str], folder: Path, hosts: dict[str, str], processes: int, threads: int
) -> tuple[float, float]:
    """As `rate`, with the gateway between."""
    folder.mkdir()
    shutil.copy(folder.parent / "cert.pem", folder / "cert.pem")
    (folder / "hosts.json").write_text(json.dumps({"hosts": hosts, "ca_file": "cert.pem"}))
    with UrlTable(folder / "urls.sqlite", write=True) as table:
        table.want("chunk", [(url_key(url), url) for url in urls])
    config = GatewayConfig(
        table=folder / "urls.sqlite",
        journal=folder / "journal.sqlite",
        spool=folder / "spool",
        ready=folder / "ready.json",
        user_agent="TapirBench/1.0 (+https://example.org/bot)",
        private_hosts=folder / "hosts.json",
        host_rate=0,
        host_connections=threads,
    )
    with RunningGateway(config, folder / "gateway.log") as gateway:
        asked = [gateway.url(url_key(url)) for url in urls]
        found = rate(asked, folder / "run", processes, threads)
    with JournalReader(config.journal) as journal:
        assert journal.counts() == {"ok": len(urls), "requests": len(urls)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--only", choices=["http", "https"], default=None)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="bench-") as text:
        folder = Path(text)
        size = make_site(folder / "site", options.images)
        with server(folder, folder / "site") as (name, port, tls_port):
            print(f"{options.images} JPEGs of {size / 1000:.1f} kB from {name}, {cores} cores")
            # Only here does img2dataset speak to a site itself, and must trust its certificate.
            os.environ["SSL_CERT_FILE"] = str(folder / "cert.pem")
            infra.img2dataset._KEPT_VARIABLES += ("SSL_CERT_FILE",)
            for scheme, target in (("http", port), ("https", tls_port)):
                if options.only not in (None, scheme):
                    continue
                urls = [f"{scheme}://{HOST}:{target}/{n}.jpg" for n in range(options.images)]
                hosts = {f"{HOST}:{target}": f"127.0.0.1:{target}"}
                arguments = (cores, options.threads)
                direct = rate(urls, folder / f"direct-{scheme}", *arguments)
                gated = through_gateway(urls, folder / f"gate-{scheme}", hosts, *arguments)
                print(
                    f"{scheme:5}  img2dataset alone {direct[0]:6.0f}/s ({direct[1]:.1f} s whole)"
                    f"  through the gateway {gated[0]:6.0f}/s ({gated[1]:.1f} s whole)"
                    f"  ratio {gated[0] / direct[0]:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
