"""A result is followed back to its sources, and every missing or altered file is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.errors import PermanentError
from infra.trace import Chain, Reference, chain, chain_json, render, resolve, verify
from schemas.manifest import Accepted, Manifest
from tests.infra.making import Shapes, publish

NO_MLFLOW = "sqlite:////nonexistent/mlflow.db"  # nothing here but models needs it


@pytest.fixture
def shapes(tmp_path: Path) -> Shapes:
    return Shapes(tmp_path)


def _resolve(shapes: Shapes, text: str) -> tuple[str, ...]:
    return resolve(shapes.store, text, NO_MLFLOW).manifests


def _traced(shapes: Shapes, text: str = "shapes/prior") -> Chain:
    return chain(shapes.store, resolve(shapes.store, text, NO_MLFLOW))


def _problems(shapes: Shapes) -> list[str]:
    return verify(shapes.store, resolve(shapes.store, "shapes/prior", NO_MLFLOW))


def _entry(shapes: Shapes, manifest: Manifest) -> Path:
    return Path(shapes.store.path(f"manifests/{manifest.provenance}.json"))


@pytest.mark.parametrize("length", [8, 20, 64])
def test_a_manifest_an_artifact_and_a_file_are_found_by_their_digests(
    shapes: Shapes, length: int
) -> None:
    drops = shapes.images.outputs["drops"]
    for digest in (shapes.images.provenance, drops.digest, drops.units[0].sha256):
        assert _resolve(shapes, digest[:length]) == (shapes.images.provenance,)


def test_a_stage_is_found_by_its_name(shapes: Shapes) -> None:
    assert _resolve(shapes, "shapes/prior") == (shapes.prior.provenance,)


def test_of_equal_artifacts_the_latest_is_meant(shapes: Shapes) -> None:
    later = shapes.pairs.run.model_copy(update={"ended": 9000.0})
    again = publish(shapes.store, shapes.pairs.model_copy(update={"run": later}))
    assert _resolve(shapes, shapes.pairs.outputs["kept"].digest) == (again.provenance,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shapes/priors", "did you mean 'prior'"),
        ("shape/prior", "there is no pipeline shape .* did you mean 'shapes'"),
        ("abc", "at least its first 8 hex digits"),
        ("prior", "write a digest"),
        ("0123456789", "no artifact, file or manifest of this store begins so"),
    ],
)
def test_a_wrong_reference_says_what_would_be_right(
    shapes: Shapes, text: str, message: str
) -> None:
    with pytest.raises(PermanentError, match=message):
        _resolve(shapes, text)


def test_a_beginning_that_fits_several_digests_is_refused(shapes: Shapes) -> None:
    for ending in "ab":
        shapes.store.write(f"manifests/{'0' * 63}{ending}.json", {})
    with pytest.raises(PermanentError, match="2 digests begin so"):
        _resolve(shapes, "0" * 8)


def test_a_chain_has_each_manifest_once_before_those_it_was_made_from(shapes: Shapes) -> None:
    found = _traced(shapes)
    assert [one.stage for one in found.manifests] == ["prior", "images", "pairs"]
    assert found.broken == {}
    assert [one.stage for one in _traced(shapes, "shapes/images").manifests] == ["images", "pairs"]


def test_an_adopted_manifest_leads_to_the_one_whose_outputs_it_adopted(shapes: Shapes) -> None:
    accepted = Accepted(because="comments only", instead_of=shapes.pairs.provenance)
    changes = {"accepted": accepted, "fingerprint": "a" * 64}
    publish(shapes.store, shapes.pairs.model_copy(update=changes))
    found = _traced(shapes, "shapes/pairs")
    assert [one.accepted is not None for one in found.manifests] == [True, False]
    assert "because comments only" in render(found)
    assert "adopted from: shapes/pairs" in render(found)


def test_the_tree_says_how_each_was_made_and_describes_it_once(shapes: Shapes) -> None:
    text = render(_traced(shapes))
    pairs = shapes.pairs.provenance[:12]
    lines = text.splitlines()
    assert lines[0] == "shapes/prior"
    assert lines[1] == f"└─ shapes/prior  {shapes.prior.provenance[:12]}"
    assert f"   ├─ images: shapes/images  {shapes.images.provenance[:12]}" in lines
    assert f"   │  └─ pairs: shapes/pairs  {pairs}" in lines
    assert f"   └─ pairs: shapes/pairs  {pairs} (described above)" in lines
    assert text.count("make_pairs in 2.5 s on here") == 1
    assert "network.heads=[1, 2]  network.layers=2" in text
    assert "pages=1  pairs/alt=7" in text
    assert f"fingerprint {shapes.images.fingerprint[:12]}" in text
    assert f"{shapes.page} (6 bytes)" in text
    assert max(map(len, lines)) < 200


def test_json_holds_the_whole_manifests(shapes: Shapes) -> None:
    found = json.loads(json.dumps(chain_json(_traced(shapes))))
    prior, images, pairs = found["chain"]
    assert found["roots"] == [shapes.prior.provenance]
    assert prior["made_from"] == [images["provenance"], pairs["provenance"]]
    assert pairs["counts"] == {"pages": 1, "pairs/alt": 7}
    assert pairs["sources"][0]["uri"] == str(shapes.page)
    assert images["outputs"]["images"]["records"] == 5
    assert prior["identity"]["code"] == {"tasks.made": "c" * 64}
    assert "mlflow_run" in prior["run"]


def test_a_chain_as_it_was_made_has_no_problems(shapes: Shapes) -> None:
    assert _problems(shapes) == []


def test_an_altered_byte_is_found_wherever_it_is(shapes: Shapes) -> None:
    outputs = [unit for one in shapes.manifests for o in one.outputs.values() for unit in o.units]
    for unit in [*outputs, *shapes.prior.side]:
        path = shapes.blob(unit)
        before = path.read_bytes()
        path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
        (problem,) = _problems(shapes)
        assert problem.startswith(f"{unit.name} of shapes/")
        assert unit.sha256 in problem
        path.write_bytes(before)
    assert _problems(shapes) == []


def test_missing_and_cut_files_are_named(shapes: Shapes) -> None:
    first, second = shapes.images.outputs["images"].units
    shapes.blob(first).unlink()
    shapes.blob(second).write_bytes(b"")
    one, other = _problems(shapes)
    assert one.startswith("0.tar of shapes/images (blobs/")
    assert one.endswith("missing")
    assert other.startswith("1.tar of shapes/images (blobs/")
    assert other.endswith("0 bytes instead of 1")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"limit": 3', '"limit": 4', "altered: its text has the hash"),
        ('"limit": 3', '"limits": [', "altered: "),
        ('"epoch"', '"forged"', "altered: "),
    ],
)
def test_an_altered_manifest_is_named_and_not_followed(
    shapes: Shapes, old: str, new: str, message: str
) -> None:
    path = _entry(shapes, shapes.images)
    path.write_text(path.read_text().replace(old, new))
    (problem,) = _problems(shapes)
    assert problem.startswith(f"manifest {shapes.images.provenance}: {message}")
    text = render(_traced(shapes))
    assert f"images: manifest {shapes.images.provenance[:12]}: altered" in text


def test_a_missing_manifest_is_named(shapes: Shapes) -> None:
    _entry(shapes, shapes.pairs).unlink()
    assert _problems(shapes) == [f"manifest {shapes.pairs.provenance}: missing"]


def test_a_manifest_whose_parts_do_not_fit_is_named(shapes: Shapes) -> None:
    """A forger who writes new manifests, hashes and all, still has to make their parts fit."""
    wrong_input = shapes.prior.inputs["pairs"].model_copy(update={"digest": "e" * 64})
    wrong_output = shapes.prior.outputs["output"].model_copy(update={"digest": "d" * 64})
    forged = publish(
        shapes.store,
        shapes.prior.model_copy(
            update={
                "inputs": {**shapes.prior.inputs, "pairs": wrong_input},
                "outputs": {"output": wrong_output},
            }
        ),
    )
    problems = verify(shapes.store, Reference("forged", (forged.provenance,)))
    assert problems == [
        "manifest of shapes/prior: its units are not those of output output",
        "manifest of shapes/prior: input pairs is not what shapes/pairs made",
    ]


def test_sources_are_hashed_too(shapes: Shapes) -> None:
    shapes.page.write_text("a p!ge")
    (problem,) = _problems(shapes)
    assert problem.startswith(f"{shapes.page}, a source of shapes/pairs: altered")
    shapes.page.unlink()
    assert _problems(shapes) == [f"{shapes.page}, a source of shapes/pairs: missing"]
