"""Registering is idempotent and gated; the model draws in a fresh process; nothing is lost."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from infra.environment import Environment
from infra.errors import PermanentError
from infra.lineage import Lineage
from infra.lineage.drawing_model import DrawingModel
from infra.lineage.registration import Gate
from infra.lineage.registry import Registry, Verdict
from infra.store import Store
from infra.trace import chain, chain_json, render, resolve, verify
from infra.work import Event, Work
from model_zoo.generators import Sampling
from schemas.artifact import Artifact, Candidates, Evaluation, RankedCandidates
from schemas.manifest import Manifest
from tasks.drawing import Artist, ModelFiles
from tasks.register_model import PARTS, RegisterParams, register_model
from tests.infra.making import fresh_database, manifest, publish, ref
from tests.tasks.tiny_models import (
    add_image_tokenizer,
    add_prior,
    add_ranker,
    add_text_tokenizer,
    vocabulary_of,
)

CHECKER = {"name": "checker scenes", "digest": "c" * 64}
PARAMS = RegisterParams(name="tiny", metric="held_out/right", bound=0.5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose store holds the four parts of a tiny model."""
    home = tmp_path_factory.mktemp("trained")
    work = Work.local(home)
    tokenizer = add_text_tokenizer(work)
    vocabulary = vocabulary_of(work, tokenizer)
    made = (add_prior(work, vocabulary), add_image_tokenizer(work), tokenizer)
    parts = dict(zip(PARTS, (*made, add_ranker(work, vocabulary)), strict=True))
    for name, part in parts.items():
        publish(work.store, manifest(name, {"output": part}))
    return home


class Home:
    """A copy of it in which models are registered."""

    def __init__(self, folder: Path, trained: Path) -> None:
        self.folder = folder
        shutil.copytree(trained, folder)
        self.uri = fresh_database(folder)
        self.store = Store(Environment(home=folder).store_url)
        self.client = MlflowClient(self.uri)
        self.registry = Registry(self.uri, self.store)
        self.said: list[str] = []

    def part(self, name: str) -> Manifest:
        pointer = self.store.read(f"pipelines/shapes/{name}.json")
        assert pointer
        found = self.store.read(f"manifests/{pointer['provenance']}.json")
        return Manifest.model_validate(found)

    def evaluated(self, right: float, **changes: Any) -> Manifest:
        """The manifest of an evaluation that found this share of pictures right."""
        ranker = self.part("ranker").outputs["output"]
        found = {
            "metrics": {"held_out/right": right, "held_out/shape": right},
            "evaluator": CHECKER, "ranker": ranker.digest,
        } | changes  # fmt: skip
        path = self.folder / "metrics.json"
        path.write_text(json.dumps(found))
        evaluation = Evaluation(units=(self.store.put(path, "metrics.json"),))
        parts = {name: self.part(name) for name in PARTS}
        sampling = {"temperature": 0.5, "top_k": 4}
        drawn = manifest("drawn", {"output": Candidates()}, parts, params={"sampling": sampling})
        publish(self.store, drawn)
        ranked = manifest("ranked", {"output": RankedCandidates()}, {"drawn": drawn})
        publish(self.store, ranked)
        return publish(self.store, manifest("evaluation", {"output": evaluation}, {"r": ranked}))

    def register(self, evaluation: Manifest, params: RegisterParams = PARAMS) -> str:
        """Run the stage; what it said."""
        manifests = {**{name: self.part(name) for name in PARTS}, "evaluation": evaluation}
        work = Work.local(
            self.folder,
            inputs={name: ref(one) for name, one in manifests.items()},
            listen=self._listen,
        )
        arguments: Mapping[str, Artifact] = {
            name: one.outputs["output"].artifact() for name, one in manifests.items()
        }
        register_model(**arguments, params=params, work=work)
        return self.said[-1]

    def _listen(self, event: Event) -> None:
        if event.kind == "message":
            self.said.append(event.values["text"])

    def aliases(self) -> dict[str, int]:
        found = self.client.get_registered_model("tiny").aliases
        return {alias: int(version) for alias, version in found.items()}


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of one small file, for tests that are not about what is in them."""

    def write(folder: Path, *arguments: Any) -> dict[str, Path]:
        folder.mkdir()
        (folder / "MLmodel").write_text("flavors: {}")
        return {"MLmodel": folder / "MLmodel"}

    monkeypatch.setattr("tasks.register_model.write_model_folder", write)


@pytest.fixture
def home(tmp_path: Path, trained: Path) -> Home:
    return Home(tmp_path / "home", trained)


@pytest.mark.usefixtures("light")
def test_the_first_that_meets_the_bound_is_champion(home: Home) -> None:
    said = home.register(home.evaluated(0.7))
    assert "tiny version 1 is champion: held_out/right 0.7 meets the bound 0.5" in said
    assert home.aliases() == {"candidate": 1, "champion": 1}


@pytest.mark.usefixtures("light")
def test_below_the_bound_it_stays_candidate(home: Home) -> None:
    said = home.register(home.evaluated(0.4))
    assert said.endswith("is candidate: held_out/right 0.4 is not up to the bound 0.5")
    assert home.aliases() == {"candidate": 1}


def test_registering_the_same_chain_again_changes_nothing(home: Home) -> None:
    evaluation = home.evaluated(0.7)
    home.register(evaluation)
    before = home.client.get_model_version("tiny", "1")
    said = home.register(evaluation)
    assert "version 1 is champion: held_out/right 0.7; it is the champion already" in said
    assert len(home.client.search_model_versions("name = 'tiny'")) == 1
    assert home.client.get_model_version("tiny", "1").tags == before.tags


@pytest.mark.usefixtures("light")
def test_a_champion_gives_way_only_to_a_better_one(home: Home) -> None:
    home.register(home.evaluated(0.7))
    assert "no better than 0.7 of version 1" in home.register(home.evaluated(0.65))
    assert home.aliases() == {"candidate": 2, "champion": 1}
    assert "better than 0.7 of version 1" in home.register(home.evaluated(0.8))
    assert home.aliases() == {"candidate": 3, "champion": 3}


@pytest.mark.usefixtures("light")
def test_less_may_be_better(home: Home) -> None:
    params = RegisterParams(name="tiny", metric="held_out/right", bound=0.9, higher_is_better=False)
    home.register(home.evaluated(0.7), params)
    home.register(home.evaluated(0.8), params)
    home.register(home.evaluated(0.6), params)
    assert home.aliases() == {"candidate": 3, "champion": 3}


@pytest.mark.usefixtures("light")
def test_measures_of_two_evaluators_are_not_compared(home: Home) -> None:
    other = {"name": "another checker", "digest": "d" * 64}
    home.register(home.evaluated(0.7))
    # It has the contents of the champion, which other evaluators may measure as well.
    said = home.register(home.evaluated(0.6, evaluator=other))
    assert "no better than 0.6 of version 1" in said
    third = {"name": "a third", "digest": "e" * 64}
    registration = home.registry.registration(home.client.get_model_version("tiny", "2"))
    changed = registration.model_copy(
        update={
            "evaluator": registration.evaluator.model_copy(update=third),
            "made_of": {**registration.made_of, "prior": ref(home.part("ranker"))},
            "metrics": {"held_out/right": 0.99},
        }
    )
    home.registry.register(changed)
    verdict = home.registry.promote(changed, Gate(metric="held_out/right", bound=0.5))
    assert not verdict.champion
    assert "was not measured by this evaluator (a third)" in verdict.because


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluator": None}, "names no evaluator"),
        ({"ranker": "b" * 64}, "were chosen by ranker bbb"),
        ({"metrics": {"held_out/colour": 1.0}}, "no 'held_out/right' was measured; .*colour"),
    ],
)
def test_an_evaluation_that_cannot_judge_is_refused(
    home: Home, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PermanentError, match=message):
        home.register(home.evaluated(0.7, **changes))


def test_the_ranker_that_chose_the_pictures_is_no_judge(home: Home) -> None:
    ranker = home.part("ranker").outputs["output"]
    for digest in (ranker.digest, ranker.units[0].sha256):
        with pytest.raises(PermanentError, match="is the ranker that chose the pictures"):
            home.register(home.evaluated(0.7, evaluator={"name": "ranker", "digest": digest}))
    with pytest.raises(PermanentError, match="there is no such model"):
        home.registry.find("models:/tiny@candidate")


def test_an_evaluation_of_another_model_is_refused(home: Home) -> None:
    evaluation = home.evaluated(0.7)
    work = Work.local(home.folder)
    publish(home.store, manifest("prior", {"output": add_prior(work, 300)}))
    with pytest.raises(PermanentError, match="it is not of this prior"):
        home.register(evaluation)


@pytest.mark.usefixtures("light")
def test_two_that_promote_at_once_do_not_both_win(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The better one comes between the judgement and the ticket of the other."""
    home.register(home.evaluated(0.6))
    names = ("tiny", "2"), ("tiny", "3")
    strict = RegisterParams(name="tiny", metric="held_out/right", bound=1.0)
    home.register(home.evaluated(0.7), strict)
    home.register(home.evaluated(0.8), strict)
    worse, better = (
        home.registry.registration(home.client.get_model_version(*name)) for name in names
    )
    gate = Gate(metric="held_out/right", bound=0.5)
    take_ticket = Registry._take_ticket

    def meanwhile(registry: Registry, *arguments: Any) -> bool:
        monkeypatch.setattr(Registry, "_take_ticket", take_ticket)
        assert home.registry.promote(better, gate).champion
        return take_ticket(registry, *arguments)

    monkeypatch.setattr(Registry, "_take_ticket", meanwhile)
    verdict = Registry(home.uri, home.store).promote(worse, gate)
    because = "held_out/right 0.7 is no better than 0.8 of version 3 of tiny"
    assert verdict == Verdict(champion=False, because=because)
    assert home.aliases()["champion"] == 3


_DRAWS = """
import json, sys
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/tiny@candidate")
params = {"seed": 5, "candidates": 3, "keep": 2}
drawn = model.predict(["a red circle", "a blue square"], params=params)
assert model.predict(pandas.DataFrame({"prompt": ["a red circle"]})).shape == (4, 5)
drawn["png"] = [png.hex() for png in drawn["png"]]
import tasks.drawing, model_zoo.dalle
print(json.dumps([drawn.to_dict("records"), tasks.drawing.__file__, model_zoo.dalle.__file__]))
"""


def _fresh_process(home: Home, code: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, home.uri],
        cwd=home.folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_model_draws_in_a_fresh_process_as_tapir_draws(home: Home) -> None:
    """Same pictures and scores as the artist in this process, from the code in the model itself."""
    home.register(home.evaluated(0.7))
    done = _fresh_process(home, _DRAWS)
    assert done.returncode == 0, done.stderr
    rows, *code = json.loads(done.stdout.splitlines()[-1])
    with home.registry.folder(home.registry.find("models:/tiny@champion")) as folder:
        assert all(Path(path).is_relative_to(folder / "code") for path in code)

    work = Work.local(home.folder)
    files = [work.fetch(home.part(name).outputs["output"].units[0]) for name in PARTS]
    artist = Artist.load(ModelFiles(**dict(zip(PARTS, files, strict=True))))
    evaluated = Sampling(temperature=0.5, top_k=4)
    expected = artist.draw(["a red circle", "a blue square"], 3, 2, 5, sampling=evaluated)
    assert [row["prompt"] for row in rows] == ["a red circle"] * 2 + ["a blue square"] * 2
    for row, one in zip(rows, [one for drawn in expected for one in drawn], strict=True):
        assert row["score"] == pytest.approx(one.score, abs=1e-6)
        assert row["seed"] == one.seed
        assert Image.open(io.BytesIO(bytes.fromhex(row["png"]))).tobytes() == one.picture.tobytes()


def test_nothing_in_the_model_is_pickled(home: Home) -> None:
    home.register(home.evaluated(0.7))
    version = home.registry.find("models:/tiny/1")
    names = set(home.registry.registration(version).files)
    weights = {path for path in names if path.endswith((".safetensors", "text_tokenizer.json"))}
    assert {Path(path).name for path in weights} == {
        "prior.safetensors", "image_tokenizer.safetensors", "ranker.safetensors",
        "text_tokenizer.json",
    }  # fmt: skip
    code = {path for path in names if path.endswith(".py")}
    assert {"drawing_model.py", "code/tasks/drawing.py", "code/model_zoo/dalle.py"} <= code
    about = {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"}
    rest = {"artifacts/model/model.json", "artifacts/model/sampling.json"}
    assert names - weights - code - about == rest


def test_altered_weights_are_not_loaded_and_verify_names_them(home: Home) -> None:
    home.register(home.evaluated(0.7))
    reference = resolve(home.store, "models:/tiny@candidate", home.uri)
    assert verify(home.store, reference) == []
    with home.registry.folder(home.registry.find("models:/tiny/1")) as folder:
        path = folder / "artifacts" / "model" / "ranker.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (problem,) = verify(home.store, reference)
    assert "ranker.safetensors of version 1 of tiny" in problem
    assert problem.endswith("altered")
    context = SimpleNamespace(artifacts={"model": str(path.parent)})
    with pytest.raises(ValueError, match=r"altered .*: ranker.safetensors is altered"):
        DrawingModel().load_context(context)
    path.unlink()
    with pytest.raises(ValueError, match=r"ranker.safetensors is missing"):
        DrawingModel().load_context(context)


@pytest.mark.usefixtures("light")
def test_a_model_is_traced_to_all_that_it_was_made_from(home: Home) -> None:
    home.register(home.evaluated(0.7))
    found = chain(home.store, resolve(home.store, "models:/tiny@champion", home.uri))
    stages = [one.stage for one in found.manifests]
    assert sorted(stages) == sorted([*PARTS, "drawn", "ranked", "evaluation"])
    assert stages.index("evaluation") < stages.index("ranked") < stages.index("prior")
    tags = home.client.get_model_version("tiny", "1").tags
    assert tags["tapir.provenance.prior"] == home.part("prior").provenance
    assert chain_json(found)["model"]["version"] == 1
    assert "version 1 of tiny (candidate, champion), from shapes" in render(found)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models:/tiny@chmpion", "versions of tiny are \\[1\\]"),
        ("models:/tiny/7", "versions of tiny are \\[1\\]"),
        ("models:/other@champion", "registered are: tiny"),
        ("models:/tiny", "write models:/NAME@ALIAS or models:/NAME/VERSION"),
    ],
)
def test_a_model_that_is_not_there_is_said(home: Home, text: str, message: str) -> None:
    home.register(home.evaluated(0.4))
    with pytest.raises(PermanentError, match=message):
        resolve(home.store, text, home.uri)


@pytest.mark.usefixtures("light")
def test_killed_between_any_two_steps_and_run_again_gives_one_version(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = home.evaluated(0.7)
    for step in ("_ensure_files", "_ensure_name", "_ensure", "_move", "_take_ticket"):
        for after in (False, True):
            with monkeypatch.context() as patched:
                patched.setattr(Registry, step, _dying(getattr(Registry, step), after))
                with pytest.raises(KeyboardInterrupt):
                    home.register(evaluation)
    home.register(evaluation)
    assert home.aliases() == {"candidate": 1, "champion": 1}
    assert len(home.client.search_model_versions("name = 'tiny'")) == 1
    assert verify(home.store, resolve(home.store, "models:/tiny/1", home.uri)) == []


def _dying(function: Callable[..., Any], after: bool) -> Callable[..., Any]:
    def dies(*arguments: Any) -> None:
        if after:
            function(*arguments)
        raise KeyboardInterrupt

    return dies


@pytest.mark.usefixtures("light")
def test_a_lost_registry_is_rebuilt_with_versions_aliases_and_files(home: Home) -> None:
    home.register(home.evaluated(0.7))
    home.register(home.evaluated(0.6))
    before = {v.version: v.tags for v in home.client.search_model_versions("name = 'tiny'")}
    shutil.rmtree(home.folder / "mlflow-artifacts")
    home.uri = fresh_database(home.folder / "again")
    home.client = MlflowClient(home.uri)
    assert Lineage(home.uri, home.store).reindex().model_versions == 2
    after = {v.version: v.tags for v in home.client.search_model_versions("name = 'tiny'")}
    assert after == before
    assert home.aliases() == {"candidate": 2, "champion": 1}
    assert verify(home.store, resolve(home.store, "models:/tiny@champion", home.uri)) == []
    home.client.set_registered_model_alias("tiny", "champion", "2")  # by hand
    Lineage(home.uri, home.store).reindex()
    assert home.aliases() == {"candidate": 2, "champion": 2}
