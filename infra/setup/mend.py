"""Forget what an interrupted install left half done, so that pip installs it again.

pip takes a distribution for installed as soon as its `.dist-info` folder is there, though files may
be missing. Run by the virtual environment's own interpreter, with nothing but the standard library.
"""

from __future__ import annotations

import shutil
import sysconfig
from importlib.metadata import PathDistribution
from pathlib import Path

# img2dataset asks for this backport; it shadows the standard library and kills Prefect's server.
_UNWANTED = "dataclasses"


def is_whole(info: Path) -> bool:
    """Whether a `.dist-info` folder is complete and all files that it lists are there."""
    if not (info / "METADATA").is_file() or not (info / "RECORD").is_file():
        return False
    files = PathDistribution(info).files or []
    return all(file.suffix == ".pyc" or Path(str(file.locate())).exists() for file in files)


def mend(site: Path) -> list[str]:
    """Remove the records of damaged and unwanted distributions; the names of those."""
    damaged = [info for info in sorted(site.glob("*.dist-info")) if not is_whole(info)]
    unwanted = sorted(site.glob(f"{_UNWANTED}-*.dist-info"))
    if unwanted:
        (site / f"{_UNWANTED}.py").unlink(missing_ok=True)
    gone = sorted({*damaged, *unwanted})
    for info in gone:
        shutil.rmtree(info)
    return [info.name.removesuffix(".dist-info") for info in gone]


def main() -> None:
    """Mend the environment of the running interpreter and say what was done."""
    sites = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    for name in [name for site in sorted(sites) for name in mend(site)]:
        print(f"Half installed or unwanted, removed: {name}")


if __name__ == "__main__":
    main()
