"""Candidates are drawn for every prompt, alike for the same seeds; bad prompts are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from infra.errors import PermanentError
from infra.sources import resolve_sources
from infra.work import Work
from model_zoo.weights import load_network
from schemas.artifact import Candidates, EvaluationPairs
from schemas.fingerprint import code_digests
from tasks.candidates import Prompt, read_candidates
from tasks.painting import candidate_seeds, decode
from tasks.prepared import captions_of
from tasks.sample_images import SampleParams, sample_images
from tests.tasks.tiny_models import (
    add_image_tokenizer,
    add_prior,
    add_shards,
    add_text_tokenizer,
    vocabulary_of,
)  # fmt: skip

PROMPTS = ["a red circle", "a blue square", "a green cross"]


def _sample(
    work: Work, prior: str = "dalle", pairs: EvaluationPairs | None = None, **values: Any
) -> Candidates:  # fmt: skip
    tokenizer = add_text_tokenizer(work)
    params = SampleParams.model_validate({"candidates": 3, **values})
    return sample_images(
        prior=add_prior(work, vocabulary_of(work, tokenizer), prior),
        image_tokenizer=add_image_tokenizer(work), text_tokenizer=tokenizer,
        params=params, work=work, pairs=pairs,
    )  # fmt: skip


def test_every_prompt_gets_its_candidates_and_each_its_own_seed(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    found = _sample(work, prompts=PROMPTS, prompts_per_unit=2)
    sets = [read_candidates(work.fetch(unit)) for unit in found.units]
    assert [prompt.text for one in sets for prompt in one.prompts] == PROMPTS
    assert [unit.records for unit in found.units] == [6, 3]
    seeds = np.concatenate([one.seeds for one in sets])
    np.testing.assert_array_equal(seeds, candidate_seeds(0, PROMPTS, 3))
    assert len(set(seeds.ravel().tolist())) == 9
    network = load_network(work.fetch(add_image_tokenizer(work).units[0]))
    np.testing.assert_array_equal(decode(network, sets[0].codes), sets[0].pictures)
    assert work.counts["pictures"] == 9


def test_a_prompt_is_drawn_alike_whatever_is_drawn_beside_it(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    together = read_candidates(work.fetch(_sample(work, prompts=PROMPTS).units[0]))
    alone = read_candidates(work.fetch(_sample(work, prompts=PROMPTS[1:2]).units[0]))
    np.testing.assert_array_equal(alone.codes[0], together.codes[1])
    other = read_candidates(work.fetch(_sample(work, prompts=PROMPTS, seed=1).units[0]))
    assert (other.codes != together.codes).any()


def test_what_was_drawn_is_not_drawn_again(tmp_path: Path) -> None:
    _sample(Work.local(tmp_path), prompts=PROMPTS[:2], prompts_per_unit=1)
    work = Work.local(tmp_path)
    _sample(work, prompts=PROMPTS, prompts_per_unit=1)
    assert work.reused == 2


def _from_file(folder: Path, content: str, **values: Any) -> tuple[Work, Candidates]:
    path = folder / "prompts.json"
    path.write_text(content)
    environment = Work.local(folder).environment
    work = Work.local(folder, sources=resolve_sources((str(path),), environment))
    return work, _sample(work, prompts_file=str(path), **values)


def test_prompts_come_from_a_file_by_group(tmp_path: Path) -> None:
    groups = {
        "held_out": [{"prompt": one, "why": "pairing", "scene": {}} for one in PROMPTS],
        "seen": [{"prompt": "a"}],
    }
    work, found = _from_file(tmp_path, json.dumps(groups), per_group=2)
    drawn = read_candidates(work.fetch(found.units[0]))
    expected = [Prompt(one, "held_out", "pairing") for one in PROMPTS[:2]] + [Prompt("a", "seen")]
    assert list(drawn.prompts) == expected


@pytest.mark.parametrize("content", ["no JSON", "[1]", '{"a": ["b"]}', '{"a": [{}]}', "{}"])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(PermanentError, match=r"prompts\.json"):
        _from_file(tmp_path, content)


def test_a_bad_prompt_stops_the_stage_before_anything_is_drawn(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    with pytest.raises(PermanentError, match="' is 99 tokens long"):
        _sample(work, prompts=["a red circle", "% " * 50])
    assert not work.counts["pictures"]


def test_either_prompts_or_a_file_are_declared() -> None:
    with pytest.raises(ValidationError, match="either prompts or prompts_file"):
        SampleParams(prompts=("a",), prompts_file="prompts.json")
    with pytest.raises(ValidationError, match="no network 'dall'"):
        SampleParams(prompts=("a",), networks=("dall",))


def test_the_captions_of_a_set_to_evaluate_on_are_drawn(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    pairs = EvaluationPairs(units=add_shards(work, shards=1, pictures=3).units)
    captions = list(captions_of(work.fetch(unit) for unit in pairs.units))
    found = _sample(work, prompts=PROMPTS[:1], pairs=pairs)
    drawn = read_candidates(work.fetch(found.units[0])).prompts
    asked = [Prompt(text, "captions") for text in dict.fromkeys(captions)]
    assert list(drawn) == [Prompt(PROMPTS[0]), *asked]
    with pytest.raises(PermanentError, match="give prompts, prompts_file, or pairs"):
        _sample(work)


def test_another_network_than_those_declared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="holds a 'dvae'"):
        _sample(Work.local(tmp_path), prompts=PROMPTS, networks=["dalle"])


def test_another_generator_draws_with_settings_of_its_own(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    chosen = {"prior": "maskgit", "networks": ["maskgit", "dvae"], "prompts": PROMPTS}
    found = [
        read_candidates(work.fetch(_sample(work, **chosen, sampling=sampling).units[0])).codes
        for sampling in ({}, {"steps": 12}, {"steps": 2}, {"steps": 2, "temperature": 0.1})
    ]
    np.testing.assert_array_equal(found[0], found[1])  # 12 are its default
    assert (found[2] != found[1]).any() and (found[3] != found[2]).any()


def test_the_memory_for_keys_and_values_changes_no_picture_and_no_identity(tmp_path: Path) -> None:
    # A caption of 33 positions and a candidate of 18 or 20 places (row, convolutional), 2 x 16 x 4
    # bytes a place of a layer: two candidates go together, and then none.
    found = []
    for cache_gb in (4.0, 0.00002):
        work = Work.local(tmp_path)
        units = _sample(work, prompts=PROMPTS, cache_gb=cache_gb).units
        assert not work.reused
        found.append(work.fetch(units[0]).read_bytes())
    assert found[0] == found[1]
    assert "cache_gb" not in SampleParams(prompts=("a",), cache_gb=2).identity()
    said = r"cache_gb: 1e-05 GB do not hold .* of one candidate and its caption, 1.3312e-05 GB"
    with pytest.raises(PermanentError, match=said):
        _sample(Work.local(tmp_path), prompts=PROMPTS, cache_gb=0.00001)


def test_settings_that_the_declared_network_does_not_know_are_refused() -> None:
    declared = {"prompts": ("a",), "sampling": {"temperature": 0.4, "steps": 8}}
    with pytest.raises(ValidationError, match="steps: dalle has no such setting; it has guidance"):
        SampleParams.model_validate(declared)
    with pytest.raises(ValidationError, match="none of the networks .*dvae.* draws codes"):
        SampleParams.model_validate({**declared, "networks": ("dvae",)})
    params = SampleParams.model_validate({**declared, "networks": ("maskgit", "dvae")})
    assert params.identity()["sampling"] == {"temperature": 0.4, "steps": 8}  # and nothing else


def test_networks_and_sampler_are_part_of_the_code_and_sheets_are_not() -> None:
    modules = SampleParams(prompts=("a",)).modules()
    digests = code_digests(["tasks.sample_images", *modules])
    assert {"model_zoo.dalle", "model_zoo.dvae", "model_zoo.sampler"} <= set(digests)
    assert not {"tasks.sheets", "tasks.judging", "tasks.evaluate"} & set(digests)
