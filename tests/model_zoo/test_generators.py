"""A generator is one file: it is found, drawn from, and refuses settings that are another's."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import model_zoo
from model_zoo.generators import Generator, Sampling, load_generator, read_sampling
from model_zoo.maskgit_sampler import MaskgitSampling
from model_zoo.weights import build_recipe, save_network
from schemas.fingerprint import code_digests
from schemas.stage import StageParams
from tasks.sample_images import SampleParams
from tasks.train_prior import PriorParams

MASKGIT = {
    "text_vocabulary": 20, "text_length": 5, "image_vocabulary": 16, "grid_height": 3,
    "grid_width": 4, "width": 16, "heads": 2, "layers": 1,
}  # fmt: skip

PRIOR = {"training": {"steps": 1, "batch_size": 1, "learning_rate": 1.0}}
SMALL = {"width": 16, "heads": 2, "layers": 1}

# A whole generator in one file, which knows nothing of the others: its codes are the seeds.
FLAT = """
from pydantic import Field
from torch import nn
from schemas.base import Frozen

SAMPLER = "model_zoo.flat:sample"


class FlatConfig(Frozen):
    text_length: int


class FlatSampling(Frozen):
    brightness: int = Field(default=0, ge=0)


class FlatRecipe:
    def __init__(self, config):
        self.network = nn.Linear(1, 1)


def sample(network, tokens, seeds, sampling: FlatSampling, given=None):
    return (seeds + sampling.brightness)[..., None, None].expand(-1, -1, 2, 2)


def build_recipe(config):
    return FlatRecipe(FlatConfig.model_validate(config))
"""


@pytest.fixture
def flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "flat.py").write_text(FLAT)
    monkeypatch.setattr(model_zoo, "__path__", [*model_zoo.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield
    del sys.modules["model_zoo.flat"], model_zoo.flat


@pytest.mark.usefixtures("flat")
def test_a_new_generator_is_one_file_and_nothing_else(tmp_path: Path) -> None:
    params = PriorParams.model_validate({**PRIOR, "network": "flat"})
    sizes = {"text_length": 5, "grid_height": 2}
    assert params.with_sizes(sizes) == {"text_length": 5}  # those that it asks for
    path = tmp_path / "prior.safetensors"
    save_network(path, build_recipe("flat", {"text_length": 5}).network, "flat", {"text_length": 5})
    generator, seeds = load_generator(path), torch.tensor([[3, 4]])
    drawn = generator.draw(torch.zeros(1, 5), seeds, read_sampling("flat", {"brightness": 2}))
    assert drawn[0, :, 0, 0].tolist() == [5, 6]
    assert generator.draw(torch.zeros(1, 5), seeds)[0, :, 0, 0].tolist() == [3, 4]
    seen: list[torch.Tensor] = []
    generator.draw(torch.zeros(1, 5), seeds, watch=seen.append)
    assert [one[0, :, 0, 0].tolist() for one in seen] == [[3, 4]]  # all at once, when it is drawn
    declared = {"prompts": ("a",), "networks": ("flat", "dvae"), "sampling": {"brightness": 1}}
    assert "model_zoo.flat" in SampleParams.model_validate(declared).modules()
    for other in ({"temperature": 0.5}, {"brightness": -1}):
        with pytest.raises(ValueError, match="flat has no such setting; it has brightness|greater"):
            SampleParams.model_validate({**declared, "sampling": other})
    with pytest.raises(ValueError, match="temperature: flat has no such setting"):
        generator.draw(torch.zeros(1, 5), seeds, Sampling(temperature=0.5))


def _maskgit(folder: Path) -> Generator:
    torch.manual_seed(0)
    path = folder / "prior.safetensors"
    save_network(path, build_recipe("maskgit", MASKGIT).network, "maskgit", MASKGIT)
    return load_generator(path)


def test_what_all_generators_know_is_given_alike(tmp_path: Path) -> None:
    generator, tokens, seeds = _maskgit(tmp_path), torch.zeros(1, 5), torch.arange(4)[None]
    own = generator.draw(tokens, seeds, MaskgitSampling(temperature=0.5))
    assert torch.equal(generator.draw(tokens, seeds, Sampling(temperature=0.5)), own)
    assert not torch.equal(generator.draw(tokens, seeds), own)


def test_settings_of_another_generator_are_refused() -> None:
    dalle = "it has guidance, temperature, top_k, top_p"
    with pytest.raises(ValueError, match=f"steps: dalle has no such setting; {dalle}"):
        read_sampling("dalle", {"temperature": 0.5, "steps": 8})
    with pytest.raises(ValueError, match="brightness: maskgit has no such setting; it has choice_"):
        read_sampling("maskgit", {"brightness": 1})
    with pytest.raises(ValueError, match="steps: .* greater than 0 .it is 0."):
        read_sampling("maskgit", {"steps": 0})
    with pytest.raises(ValueError, match="temperature: .* valid number .it is '1'."):
        read_sampling("dalle", {"temperature": "1"})
    nothing = {"temperature": 0.4, "top_k": None, "top_p": None, "guidance": 1.25}
    assert read_sampling("dalle", nothing) == Sampling(temperature=0.4, guidance=1.25)


def test_only_the_chosen_generator_is_part_of_a_stage_s_code() -> None:
    def code(stage: str, params: StageParams) -> set[str]:
        return set(code_digests([f"tasks.{stage}", *params.modules()]))

    own = {"dalle": "model_zoo.sampler", "maskgit": "model_zoo.maskgit_sampler"}
    for name, sampler in own.items():
        prior = PriorParams.model_validate({**PRIOR, "network": name, "config": SMALL})
        samples = SampleParams(prompts=("a",), networks=(name, "dvae"))
        trained, drawn = code("train_prior", prior), code("sample_images", samples)
        assert f"model_zoo.{name}" in trained & drawn
        assert sampler in drawn - trained
        for other in own.keys() - {name}:
            assert not {f"model_zoo.{other}", own[other]} & (trained | drawn)
