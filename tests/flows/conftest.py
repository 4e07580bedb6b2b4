"""Small pipelines, run by the real runner on a real store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from flows.declaration import BoundPipeline, bind
from flows.stage_runner import RunIds, StageRunner, references
from infra.environment import Environment
from infra.prefect_server import PrefectServer
from infra.store import Store
from infra.work import Event
from schemas.manifest import Manifest
from schemas.pipeline import parse_declaration
from tests.flows.shapes import Shapes, run_tiny

DECLARATION = """\
name: words
stages:
  words:
    task: count_words
    params: {files: ["FOLDER/texts/*.txt"], minimum: 2}
  joined:
    task: join_words
    inputs: {words: words.kept}
"""


class Words:
    """The small pipeline: its declaration's text may be changed between two runs."""

    def __init__(self, folder: Path, store: str = "") -> None:
        self.folder = folder
        self.text = DECLARATION.replace("FOLDER", str(folder))
        self.environment = Environment(home=folder / "home", store_url=store, dask="inline")
        self.store = Store(self.environment.store_url)
        (folder / "texts").mkdir(parents=True, exist_ok=True)
        self.write("a", "a bb ccc")
        self.write("b", "dd e ffff")

    def write(self, name: str, text: str) -> None:
        """Make or replace a source file."""
        (self.folder / "texts" / f"{name}.txt").write_text(text)

    def change(self, old: str, new: str) -> None:
        """Change the declaration."""
        assert old in self.text
        self.text = self.text.replace(old, new)

    def bound(self) -> BoundPipeline:
        """The declaration as it is now, checked."""
        return bind(parse_declaration(self.text, "words.yaml"))

    def runner(self) -> StageRunner:
        """A fresh runner, as a new process would have."""
        return StageRunner("words", Store(self.environment.store_url), self.environment)

    def run(
        self, listen: Callable[[Event], None] = lambda event: None
    ) -> tuple[Mapping[str, Manifest], list[str]]:
        """Run all stages in order; their manifests, and the names of those that were made."""
        runner, finished, made = self.runner(), {}, []
        for stage in self.bound().stages.values():
            inputs = {
                argument: references(finished[link.stage])[link.output]
                for argument, link in stage.inputs.items()
            }
            identity, manifest = runner.find(stage, inputs)
            if manifest is None:
                manifest = runner.make(stage, inputs, identity, RunIds(), listen)
                made.append(stage.name)
            else:
                runner.adopt(stage, manifest)
            finished[stage.name] = manifest
        return finished, made


@pytest.fixture
def words(tmp_path: Path) -> Words:
    """The small pipeline in a folder of its own."""
    return Words(tmp_path)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Prefect server for many runs: starting one takes most of a small run's time."""
    started = PrefectServer(tmp_path_factory.mktemp("prefect"))
    started.wait()
    yield started.url
    started.process.terminate()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Shapes:
    """The bundled `shapes`, tiny, run to its end; copy the home before you change anything."""
    return run_tiny(tmp_path_factory.mktemp("shapes"))
