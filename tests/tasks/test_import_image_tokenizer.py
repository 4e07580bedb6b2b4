"""Published files become an image tokenizer that the other stages take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from infra.errors import PermanentError
from infra.sources import resolve_sources
from infra.work import Work
from model_zoo.weights import load_network
from tasks.import_image_tokenizer import ImportParams, import_image_tokenizer
from tests.model_zoo.published import write_published


def _work(folder: Path, params: ImportParams) -> Work:
    work = Work.local(folder / "home")
    work.sources = resolve_sources(params.sources(), work.environment)
    return work


def test_published_files_become_a_network_of_ours(tmp_path: Path) -> None:
    encoder, _ = write_published(tmp_path)
    params = ImportParams(
        encoder=str(tmp_path / "encoder.pkl"), decoder=str(tmp_path / "decoder.pkl"), resolution=32
    )
    work = _work(tmp_path, params)
    made = import_image_tokenizer(params=params, work=work)
    network = load_network(work.fetch(made.units[0]))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    codes = network.codes(images)  # type: ignore[operator]
    assert codes.shape == (2, 4, 4)
    found = encoder(0.8 * images / 255 + 0.1).argmax(1)
    assert (codes == found).float().mean() > 0.95


def test_a_file_given_twice_is_refused(tmp_path: Path) -> None:
    write_published(tmp_path)
    params = ImportParams(
        encoder=str(tmp_path / "encoder.pkl"), decoder=str(tmp_path / "encoder.pkl")
    )
    with pytest.raises(PermanentError, match="name two files"):
        import_image_tokenizer(params=params, work=_work(tmp_path, params))


def test_swapped_files_are_refused(tmp_path: Path) -> None:
    write_published(tmp_path)
    params = ImportParams(
        encoder=str(tmp_path / "decoder.pkl"), decoder=str(tmp_path / "encoder.pkl")
    )
    with pytest.raises(PermanentError):
        import_image_tokenizer(params=params, work=_work(tmp_path, params))
