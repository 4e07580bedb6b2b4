"""Whether two machines run the same: our code, and the libraries that bear on a training."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata

from schemas.fingerprint import code_digests, versions_of

# What the machines say to each other must be the same as well.
_OWN = ("infra.launch.board", "infra.launch.conductor", "infra.launch.machine")


def software(code: Sequence[str], versions: Sequence[str]) -> dict[str, str]:
    """Digests of modules and of all that they import, and versions of distributions, by name."""
    minor = ".".join(platform.python_version_tuple()[:2])
    return {**code_digests([*code, *_OWN]), **versions_of(versions), "python": minor}


def differences(
    wanted: Mapping[str, str], code: Sequence[str], versions: Sequence[str]
) -> str | None:
    """What is different on this machine, and what to do about it; None if nothing is."""
    try:
        here = software(code, versions)
    except (ModuleNotFoundError, metadata.PackageNotFoundError) as error:
        return f"this machine lacks {error.name}; bring it to the commit and lock of machine 0"
    for name in (*versions, "python"):
        if here[name] != wanted.get(name):
            return f"{name} is {here[name]} here and {wanted.get(name)} on machine 0"
    differing = sorted(n for n in here.keys() | wanted.keys() if here.get(n) != wanted.get(n))
    if not differing:
        return None
    return f"the code of {differing[0]} is not that of machine 0; bring both to the same commit"
