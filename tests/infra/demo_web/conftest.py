"""A small site, made once, and served where a test asks for it."""

from __future__ import annotations

import shutil

import pytest

from infra.demo_web.make import make_site
from infra.demo_web.process import serve_site


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A site of the first variant with 60 plain good images; not to be changed."""
    folder = tmp_path_factory.mktemp("web") / "shapes"
    make_site(folder, "shapes", seed=7, pages=30)
    return folder


@pytest.fixture(scope="module")
def serving(site, tmp_path_factory):
    """The small site, served by a process of its own from a copy, with a log of this module's."""
    folder = shutil.copytree(site, tmp_path_factory.mktemp("served") / "shapes")
    with serve_site(folder) as serving:
        yield serving
