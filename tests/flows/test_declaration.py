"""A wrong declaration is refused at once, with file, line, key and the nearest valid word."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.declaration import BUNDLED, load_pipeline
from schemas.pipeline import DeclarationError

GOOD = """\
name: words
stages:
  words:
    task: count_words
    params: {files: ["a.txt"], minimum: 2}
  joined:
    task: join_words
    inputs: {words: words.kept}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "words.yaml"


def _refusal(file: Path, text: str, *overrides: str) -> str:
    file.write_text(text)
    with pytest.raises(DeclarationError) as refused:
        load_pipeline(str(file), overrides)
    return str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "words"),
    [
        ("count_words", "count_word", 4, "stages.words.task", "did you mean 'count_words'?"),
        ("minimum", "minimun", 5, "stages.words.params.minimun", "did you mean 'minimum'?"),
        ("minimum: 2", "minimum: two", 5, "stages.words.params.minimum", "integer"),
        ("minimum: 2", "minimum: yes", 5, "stages.words.params.minimum", "integer"),
        ("minimum: 2", "minimum: '2'", 5, "stages.words.params.minimum", "integer"),
        ('["a.txt"]', "2026-01-01", 5, "stages.words.params.files", "quote"),
        ("words.kept", "words.kep", 8, "stages.joined.inputs.words", "did you mean 'kept'?"),
        ("words.kept", "words.drops", 8, "stages.joined.inputs.words", "must be a code_shards"),
        ("words.kept", "wrds", 8, "stages.joined.inputs.words", "did you mean 'words'?"),
        ("{words: words.kept}", "{}", 8, "inputs", "'words' (code_shards) is missing"),
        ("{words: words.kept}", "{word: words}", 8, "stages.joined.inputs.word", "'words'"),
        ("inputs", "input", 8, "stages.joined.input", "did you mean 'inputs'?"),
        ("name: words", "nam: words", 1, "nam", "did you mean 'name'?"),
        ("name: words\n", "", 1, "name", "missing"),
        ("  joined:", "  words:", 6, "words", "twice"),
        ("name: words", "name: [", 3, "not YAML", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    file: Path, old: str, new: str, line: int, key: str, words: str
) -> None:
    assert old in GOOD
    message = _refusal(file, GOOD.replace(old, new))
    assert message.startswith(f"{file}:{line}: ")
    assert key in message
    assert words in message


def test_a_cycle_is_shown(file: Path) -> None:
    text = """\
name: ring
stages:
  one:
    task: pass_words
    inputs: {words: two}
  two:
    task: pass_words
    inputs: {words: one}
"""
    message = _refusal(file, text)
    assert "cycle: one -> two -> one" in message or "cycle: two -> one -> two" in message
    assert message.startswith(f"{file}:")


def test_overrides_are_validated_like_the_file(file: Path) -> None:
    file.write_text(GOOD)
    bound = load_pipeline(str(file), ["words.minimum=5"])
    assert bound.stages["words"].params.minimum == 5  # type: ignore[attr-defined]
    assert "did you mean 'minimum'?" in _refusal(file, GOOD, "words.minimun=5")
    assert "integer" in _refusal(file, GOOD, "words.minimum=five")
    assert "did you mean 'words'?" in _refusal(file, GOOD, "word.minimum=5")
    assert "STAGE.PARAM=VALUE" in _refusal(file, GOOD, "words")


def test_a_file_or_name_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="no such file"):
        load_pipeline(str(tmp_path / "nothing.yaml"))
    with pytest.raises(DeclarationError, match="no bundled pipeline 'shape'"):
        load_pipeline("shape")


def test_until_keeps_what_a_stage_needs(file: Path) -> None:
    file.write_text(GOOD)
    bound = load_pipeline(str(file))
    assert list(bound.until("words").stages) == ["words"]
    assert list(bound.until("joined").stages) == ["words", "joined"]
    with pytest.raises(DeclarationError, match="did you mean 'joined'"):
        bound.until("join")


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.yaml")), ids=lambda path: path.stem)
def test_bundled_declarations_are_good(path: Path) -> None:
    assert load_pipeline(path.stem).name == path.stem
