"""The server's own log: what was asked of it, what it gave, and what of that should not have been.

One JSON object a line, written when a request is over, in the order in which they ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

from infra.demo_web.kinds import Policy

LOG_FILE = "access.jsonl"
# Request headers that are written down, in lower case.
LOGGED = ("user-agent", "accept", "accept-encoding", "range", "referer", "cookie", "connection")


@dataclass(frozen=True)
class LogEntry:
    """One request, or one connection to the trap.

    Attributes:
        time: seconds since the epoch, when the request had been read.
        status: 0 for the trap, which answers nothing.
        sent: bytes of the body that were handed to the network; of `size` that there are.
    """

    time: float
    scheme: str
    method: str = ""
    host: str = ""
    path: str = ""
    status: int = 0
    policy: Policy = Policy.OPEN
    sent: int = 0
    size: int = 0
    headers: dict[str, str] = field(default_factory=dict)


class AccessLog:
    """Appends entries to a file, each at once."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("ab", buffering=0)

    def write(self, entry: LogEntry) -> None:
        """Append one entry."""
        self._file.write(json.dumps(asdict(entry), separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: Path) -> list[LogEntry]:
    """All entries of a log."""
    entries = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            fields = json.loads(line)
            entries.append(LogEntry(**{**fields, "policy": Policy(fields["policy"])}))
    return entries


def violations(entries: Iterable[LogEntry]) -> list[str]:
    """What a polite and careful client would not have done, in words.

    That is: a request that robots.txt or the page forbids, a body that was read although the
    headers forbid it, and any connection to the trap, to which only redirects lead.
    """
    found = []
    for entry in entries:
        what = f"{entry.method} {entry.scheme}://{entry.host}{entry.path}"
        if entry.scheme == "trap":
            found.append("a connection to a refused address of this machine")
        elif entry.policy is Policy.NEVER_REQUESTED:
            found.append(f"{what}: was requested though its owner forbids it")
        elif entry.policy is Policy.NEVER_READ and entry.sent > 0:
            found.append(f"{what}: {entry.sent} bytes were read though its headers forbid it")
    return found
