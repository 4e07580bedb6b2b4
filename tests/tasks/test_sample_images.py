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
from schemas.artifact import Candidates
from schemas.fingerprint import code_digests
from tasks.candidates import Prompt, read_candidates
from tasks.painting import candidate_seeds, decode
from tasks.sample_images import SampleParams, sample_images
from tests.tasks.tiny_models import (
    add_image_tokenizer,
    add_prior,
    add_text_tokenizer,
    vocabulary_of,
)  # fmt: skip

PROMPTS = ["a red circle", "a blue square", "a green cross"]


def _sample(work: Work, **values: Any) -> Candidates:
    tokenizer = add_text_tokenizer(work)
    params = SampleParams.model_validate({"candidates": 3, **values})
    return sample_images(
        prior=add_prior(work, vocabulary_of(work, tokenizer)),
        image_tokenizer=add_image_tokenizer(work), text_tokenizer=tokenizer,
        params=params, work=work,
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
        SampleParams()
    with pytest.raises(ValidationError, match="no network 'dall'"):
        SampleParams(prompts=("a",), networks=("dall",))


def test_another_network_than_those_declared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="holds a 'dvae'"):
        _sample(Work.local(tmp_path), prompts=PROMPTS, networks=["dalle"])


def test_networks_and_sampler_are_part_of_the_code_and_sheets_are_not() -> None:
    modules = SampleParams(prompts=("a",)).modules()
    digests = code_digests(["tasks.sample_images", *modules])
    assert {"model_zoo.dalle", "model_zoo.dvae", "model_zoo.sampler"} <= set(digests)
    assert not {"tasks.sheets", "tasks.judging", "tasks.evaluate"} & set(digests)
