"""`tapir plan --cost` of the bundled declarations, and the page that shows what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.declaration import BUNDLED, load_pipeline

PAGE = Path(__file__).parents[2] / "docs" / "plan.md"
SIZES = {"dalle_2_8b": (1920, 512), "dalle_5_6b": (2688, 640), "dalle_12b": (3968, 896)}


def _plan(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["plan", *arguments])
    assert done.exit_code == status, done.output
    return done.output


def _figures(*arguments: str) -> dict[str, dict[str, float]]:
    found = json.loads(_plan(*arguments, "--cost", "--json"))["costs"]["prior"]
    return {
        title: {name: one["value"] for name, one in section["figures"].items()}
        for title, section in found.items()
    }


@pytest.mark.parametrize("name", SIZES)
def test_the_paper_s_widths_and_ranks(name: str) -> None:
    width, rank = SIZES[name]
    prior: Any = load_pipeline(name).stages["prior"].params
    assert (prior.config["width"], prior.config["layers"]) == (width, 64)
    assert prior.config["width"] // prior.config["heads"] == 64
    found = _figures(name, "--rank", str(rank), "--machines", "16")
    billions = found["Parameters"]["matrices of blocks"] / 1e9
    stated = float(name.removeprefix("dalle_").removesuffix("b").replace("_", "."))
    assert billions == pytest.approx(stated, rel=0.015)
    saved = found["Sent in a step as the paper shards"]["saved of matrices"]
    assert saved == pytest.approx(1 - 5 * rank / (8 * width))
    assert 0.83 < saved < 0.865


def test_the_paper_s_figures_at_twelve_billion() -> None:
    found = _figures(
        "dalle_12b", "--machines", "128", "--gpus", "8", "--gpu", "v100_16gb", "--rank", "896"
    )
    parameters = found["Parameters"]
    assert round(parameters["matrices of blocks"] / 1e9, 2) == 12.09
    assert round(parameters["prior"] / 1e9, 1) == 12.3
    assert round(parameters["matrices at 16 bits"] / 1e9) == 24
    assert parameters["context is smaller"] == 192
    assert (parameters["encoder of pictures"], parameters["decoder of pictures"]) == (
        53_786_240, 43_829_766,
    )  # fmt: skip
    sent = found["Sent in a step as the paper shards"]
    assert round(100 * sent["saved of matrices"]) == 86


@pytest.mark.parametrize("name", ["dalle_tiny", "dalle_small", "shapes"])
def test_small_pipelines_fit_one_gpu(name: str) -> None:
    said = _plan(name, "--cost", "--gpus", "1", "--gpu", "v100_16gb")
    assert len(re.findall(r"=> fits: ", said)) == 3
    assert "pictures for image_tokenizer" in said and "pictures for ranker" in said


@pytest.mark.parametrize("name", SIZES)
def test_the_large_image_tokenizers_fit_the_paper_s_gpus_by_their_micro_batch(name: str) -> None:
    machine = ("--cost", "--gpus", "8", "--gpu", "v100_16gb", "--json")
    at_once = ("--set", "image_tokenizer.training.micro_batch=64")
    declared, whole = (
        json.loads(_plan(name, *machine, *more))["costs"]["prior"] for more in ((), at_once)
    )
    (title,) = (one for one in declared if "trains the image tokenizer" in one)
    assert declared[title]["verdict"].startswith("fits: ")
    assert whole[title]["verdict"].startswith("does not fit: 112 GB")
    assert whole[title]["verdict"].endswith("; declare `micro_batch: 4`")


def test_an_imported_image_tokenizer_is_planned_as_given(tmp_path: Path) -> None:
    declared = yaml.safe_load((BUNDLED / "dalle_12b.yaml").read_text())
    files = {"encoder": "home://encoder.pkl", "decoder": "home://decoder.pkl"}
    declared["stages"]["image_tokenizer"] = {"task": "import_image_tokenizer", "params": files}
    file = tmp_path / "imported.yaml"
    file.write_text(yaml.safe_dump(declared))
    said = _plan(str(file), "--cost")
    assert "Training the image tokenizer\n  => its weights are given" in said
    assert "pictures for image_tokenizer" not in said
    trained = _figures("dalle_12b")["Parameters"]
    assert _figures(str(file))["Parameters"] == trained


def test_published_weights_need_no_prepared_pictures() -> None:
    assert "pictures for ranker" not in _plan("dalle_12b", "--cost")


def test_pictures_that_stay_in_their_shards_take_no_place_again() -> None:
    said = _plan("dalle_small", "--set", "image_tokenizer.pictures=shards", "--cost")
    assert "pictures for image_tokenizer" not in said
    assert "pictures for ranker" in said


def test_every_ranker_that_is_trained_is_planned() -> None:
    said = _plan("dalle_small", "--cost")
    assert "\nTraining ranker\n" in said and "\nTraining evaluator\n" in said
    published = _plan("dalle_12b", "--cost")
    assert "Training ranker" not in published and "Training evaluator" not in published


def test_an_evaluator_finds_the_pictures_of_its_ranker() -> None:
    said = _plan("dalle_small", "--cost")
    assert "pictures for ranker" in said and "pictures for evaluator" not in said
    larger = _plan("dalle_small", "--set", "evaluator.picture_side=160", "--cost")
    assert "pictures for ranker" in larger and "pictures for evaluator" in larger


@pytest.mark.parametrize("name", [*SIZES, "dalle_small"])
def test_the_large_pipelines_declare_the_paper_s_evaluation(name: str) -> None:
    stages: Any = load_pipeline(name).stages
    tokenizer = stages["image_tokenizer"].params
    assert 0 < tokenizer.held_out < 0.01 and tokenizer.judged
    compared = stages["evaluation" if name == "dalle_small" else "comparison"]
    assert compared.params.comparison.radii == (0, 1, 2, 4, 8)
    assert compared.params.comparison.of_each == 1
    assert compared.inputs["reference"].stage == "validation"
    judged = stages[stages["model"].inputs["evaluation"].stage]
    ranker, evaluator = stages["ranker"].params, stages[judged.inputs["evaluator"].stage].params
    assert ranker != evaluator  # who chose the pictures may not judge them
    assert set(judged.params.networks) >= {evaluator.network}


def test_every_command_of_the_page_says_what_the_page_shows() -> None:
    shown = re.findall(r"^\$ tapir plan (.+)\n((?:.*\n)*?)```$", PAGE.read_text(), re.MULTILINE)
    assert shown
    for command, output in shown:
        assert _plan(*command.split()) == output, f"docs/plan.md: tapir plan {command}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["second", "--cost"], "there is no stage of train_prior to plan"),
        (["dalle_12b", "--gpu", "h100"], "--gpu: has a meaning only with --cost"),
        (["dalle_12b", "--cost", "--gpu", "h10"], "did you mean 'h100'?"),
        (["dalle_12b", "--cost", "--gpus", "3"], "take a multiple of 3"),
        (
            ["dalle_12b", "--cost", "--utilisation", "0.4", "--tokens-per-second", "9"],
            "give either",
        ),
    ],
)
def test_what_cannot_be_planned_is_said(arguments: list[str], words: str) -> None:
    assert words in _plan(*arguments, status=2)
