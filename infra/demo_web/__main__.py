"""`python -m infra.demo_web make DIR` and `python -m infra.demo_web serve DIR`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import stat
import sys
import threading
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "make":
            return _make(options)
        asyncio.run(_serve(options.folder, options.log))
    except (FileNotFoundError, ValueError) as error:
        print(f"demo web: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.demo_web", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="make a site")
    make.add_argument("folder", type=Path)
    make.add_argument("--variant", default="shapes", help="shapes, second or emoji")
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--pages", type=int, help="about how many; not for emoji")
    make.add_argument("--two-things", type=float, default=0.55, help="share of scenes with two")
    make.add_argument("--font", type=Path, help="colour font file, for emoji")
    serve = commands.add_parser(
        "serve", help="serve a site until SIGTERM, or until standard input ends where it is a pipe"
    )
    serve.add_argument("folder", type=Path)
    serve.add_argument("--log", type=Path, help="access log; by default beside the site")
    return parser


def _make(options: argparse.Namespace) -> int:
    # Serving needs none of the libraries that drawing does, and starts four times faster.
    from infra.demo_web.emoji import DEFAULT_FONT
    from infra.demo_web.make import make_site

    summary = make_site(
        options.folder,
        variant=options.variant,
        seed=options.seed,
        pages=options.pages,
        two_things=options.two_things,
        font=options.font or DEFAULT_FONT,
    )
    images = sum(summary.images.values())
    print(f"{summary.folder}: {summary.pages} pages, {images} images, {summary.files} WARC files")
    return 0


async def _serve(folder: Path, log: Path | None) -> None:
    from infra.demo_web.server import DemoServer

    server = DemoServer(folder, log)
    ports = await server.start()
    print(json.dumps(ports._asdict()), flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    # A parent that holds the other end of a pipe ends the server with it, also when it is killed.
    # A terminal or /dev/null has no other end.
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        watch = threading.Thread(target=_wait_for_end, args=(loop, ended), daemon=True)
        watch.start()
    await ended.wait()
    await server.close()


def _wait_for_end(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    sys.stdin.buffer.read()
    loop.call_soon_threadsafe(ended.set)


if __name__ == "__main__":
    sys.exit(main())
