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


def test_the_monthly_declaration_can_be_used() -> None:
    blocks = _BLOCKS.findall((ROOT / "docs/collection.md").read_text())
    (monthly,) = [text for text in blocks if text.startswith("name: monthly")]
    located = parse_declaration(monthly, "docs/collection.md")
    files = bind(located, "2026-11").stages["pairs"].params.sources()
    assert files == tuple(f"s3://bucket/crawl/2026-{month:02}/*.warc.gz" for month in (9, 10, 11))
