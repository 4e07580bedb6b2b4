"""What a manifest says of the machine and the code that made it."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

_TREE = Path(__file__).parent.parent


def machine() -> dict[str, Any]:
    """Processor, cores, memory and system of this machine."""
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
    }


@functools.lru_cache(maxsize=1)
def git_state() -> tuple[str | None, bool | None]:
    """Commit of the tree that Tapir runs from, and whether files differ from it; None without."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None, None
    return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))


@functools.lru_cache(maxsize=1)
def lock_digest() -> str | None:
    """sha256 of requirements.lock, or None where Tapir was installed without one."""
    path = _TREE / "requirements.lock"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _git(*arguments: str) -> str | None:
    if not (_TREE / ".git").exists():
        return None
    found = subprocess.run(
        ["git", *arguments], cwd=_TREE, capture_output=True, text=True, timeout=20, check=False
    )
    return found.stdout.strip() if found.returncode == 0 else None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
