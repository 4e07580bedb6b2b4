"""A real headless browser for tests, driven through its DevTools protocol over two pipes.

Needs nothing but the browser: `.ci/run` installs it, and sets `TAPIR_NEEDS_BROWSER` so that its
absence fails there instead of skipping.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import pytest

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_PATIENCE = 20.0  # seconds for anything that a page is waited for
_KEYS = {"Enter": ("\r", 13), "Tab": ("\t", 9), "Backspace": ("", 8)}


def find_browser() -> str:
    """The path of a browser; skips the test where there is none, but never in CI."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        reason = f"no browser: none of {', '.join(_NAMES)} is installed"
        if os.environ.get("TAPIR_NEEDS_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def _high(end: int) -> int:
    """The same end of a pipe above 3 and 4, which are the browser's own."""
    moved = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(end)
    return moved


class Browser:
    """One page of a browser; `with` ends it."""

    def __init__(self, profile: Path, size: tuple[int, int] = (1000, 1000)) -> None:
        to_browser, self._write = (_high(end) for end in os.pipe())
        self._read, from_browser = (_high(end) for end in os.pipe())
        self._process = subprocess.Popen(
            [
                "bash", "-c", 'exec "$0" "$@" 3<&"$IN" 4>&"$OUT"', find_browser(), "--headless",
                "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", f"--user-data-dir={profile}",
                f"--window-size={size[0]},{size[1]}", "--remote-debugging-pipe",
            ],
            env={**os.environ, "IN": str(to_browser), "OUT": str(from_browser)},
            pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._numbers = itertools.count(1)
        self._buffer = b""
        self.events: list[dict[str, Any]] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    _session: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **params: Any) -> Any:
        """A method of the protocol, on the page."""
        return self._call(method, **params)

    def open(self, url: str) -> None:
        """Go to a page and wait until it is there."""
        self.wait_for_load(lambda: self.call("Page.navigate", url=url))

    def wait_for_load(self, act: Any) -> None:
        """Do what leads to another page, and wait until that is there and drawn.

        Nobody acts on a page before it is drawn, and only then does the browser focus what the page
        wants focused; what acted before would be in its way.
        """
        before = self._loads()
        act()
        self.wait(lambda: self._loads() > before)
        # A picture of it waits for a frame, also of a page that may run no scripts.
        clip = {"x": 0, "y": 0, "width": 1, "height": 1, "scale": 1}
        self.call("Page.captureScreenshot", clip=clip)

    def wait(self, true: Any) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + _PATIENCE
        while not true():
            assert time.monotonic() < deadline, "the page did not get there"
            time.sleep(0.01)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key."""
        text, code = _KEYS.get(key, (key, ord(key[0])))
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, selector: str) -> None:
        """Click with the mouse in the middle of an element."""
        where = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        place = {"x": where[0], "y": where[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **place)

    def screenshot(self, path: Path) -> None:
        """What the page looks like, all of it, as PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def complaints(self) -> list[str]:
        """What the browser logged: refused resources, errors of scripts."""
        self.call("Runtime.evaluate", expression="0")  # takes in what has come meanwhile
        logged = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        thrown = [e["params"] for e in self.events if e["method"] == "Runtime.exceptionThrown"]
        return [entry["text"] for entry in logged] + [str(one) for one in thrown]

    def requested(self) -> list[str]:
        """Addresses that pages asked for."""
        kind = "Network.requestWillBeSent"
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == kind]

    def _loads(self) -> int:
        self.call("Runtime.evaluate", expression="0")
        return sum(event["method"] == "Page.loadEventFired" for event in self.events)

    def _call(self, method: str, **params: Any) -> Any:
        message: dict[str, Any] = {"id": next(self._numbers), "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == message["id"]:
                assert "error" not in answer, answer
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 16)
            assert part, "the browser has ended"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found
