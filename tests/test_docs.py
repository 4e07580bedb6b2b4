"""The declarations that the README and the documentation show are declarations."""

import re
from pathlib import Path

import pytest

from flows.declaration import bind
from schemas.pipeline import parse_declaration

ROOT = Path(__file__).parents[1]
_BLOCKS = re.compile(r"```yaml\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize(
    ("page", "stages"),
    [
        ("README.md", ["pairs", "images", "clean"]),
        ("docs/collection.md", ["pairs", "images", "more"]),
    ],
)
def test_the_first_declaration_of_a_page_can_be_used(page: str, stages: list[str]) -> None:
    text = _BLOCKS.findall((ROOT / page).read_text())[0]
    whole = text if text.startswith("name:") else f"name: shown\nstages:\n{text}"
    assert list(bind(parse_declaration(whole, page)).stages) == stages


BESIDE = """
  pairs: {task: collect_pairs, params: {files: ["crawl/*.warc.gz"]}}
  images:
    task: download_images
    inputs: {pairs: captions.kept}
    params: {user_agent: "pets/1.0 (+https://example.org/bot; bot@example.org)"}
  text_tokenizer: {task: train_text_tokenizer, inputs: {images: unique}}
  ranker:
    task: train_ranker
    inputs: {images: unique, text_tokenizer: text_tokenizer}
    params:
      config: {text_length: 16}
      training: {steps: 1, batch_size: 1, learning_rate: 0.1}
"""


def test_the_cleaning_stages_can_be_used() -> None:
    text = _BLOCKS.findall((ROOT / "docs/cleaning.md").read_text())[0]
    whole = f"name: shown\nstages:\n{text}{BESIDE}"
    stages = bind(parse_declaration(whole, "docs/cleaning.md")).stages
    assert {"once", "captions", "clean", "unique", "fitting"} <= stages.keys()


def test_the_monthly_declaration_can_be_used() -> None:
    blocks = _BLOCKS.findall((ROOT / "docs/collection.md").read_text())
    (monthly,) = [text for text in blocks if text.startswith("name: monthly")]
    located = parse_declaration(monthly, "docs/collection.md")
    files = bind(located, "2026-11").stages["pairs"].params.sources()
    assert files == tuple(f"s3://bucket/crawl/2026-{month:02}/*.warc.gz" for month in (9, 10, 11))
