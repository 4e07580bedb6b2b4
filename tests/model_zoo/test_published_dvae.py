"""Published weights become ours without any of their code being run."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from model_zoo.dvae import DVAE, DVAEConfig, map_pixels
from model_zoo.pickled_weights import read_modules
from model_zoo.published_dvae import read_published
from tests.model_zoo.published import write_published


@torch.no_grad()
def test_the_network_computes_what_the_published_modules_do(tmp_path: Path) -> None:
    encoder, decoder = write_published(tmp_path)
    weights, config = read_published(tmp_path / "encoder.pkl", tmp_path / "decoder.pkl")
    assert "dall_e" not in sys.modules
    network = DVAE(DVAEConfig(**config, resolution=32))
    network.load_state_dict(weights)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    targets = map_pixels(images, 0.1)
    logits = encoder(targets)
    torch.testing.assert_close(network.logits(targets), logits, rtol=1e-4, atol=1e-5)
    one_hot = torch.nn.functional.one_hot(logits.argmax(1), 24).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(network.decoder(one_hot), decoder(one_hot), rtol=1e-4, atol=1e-5)


def test_the_released_sizes_are_the_default() -> None:
    small = DVAEConfig()
    assert (small.width, small.vocabulary, small.decoder_width) == (256, 8192, 128)
    assert (small.multipliers, small.blocks, small.stem_kernel) == ((1, 2, 4, 8), 2, 7)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_published(tmp_path)
    write_published(other, codes=25)
    with pytest.raises(ValueError, match="the encoder has 24 codes, the decoder 25"):
        read_published(tmp_path / "encoder.pkl", other / "decoder.pkl")


class _Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.write_text, (self.path, "it ran")


def _zip(path: Path, structure: bytes, storage: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("encoder/data.pkl", structure)
        archive.writestr("encoder/data/0", storage)
    return path


def test_a_pickle_that_would_run_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    path = _zip(tmp_path / "encoder.pkl", pickle.dumps(_Hostile(victim)))
    with pytest.raises(ValueError, match="which no file of weights needs"):
        read_modules(path, ("dall_e",))
    assert not victim.exists()


def test_code_under_the_package_s_own_name_does_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    structure = b"cdall_e.utils\nrun\n(V" + str(victim).encode() + b"\ntR."
    with pytest.raises(ValueError, match="is no module"):
        read_modules(_zip(tmp_path / "encoder.pkl", structure), ("dall_e",))
    assert not victim.exists()


class _Odd(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        return obj if isinstance(obj, tuple) and obj[0] == "storage" else None


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((5,), (1,), 0), ((4,), (1,), 1), ((2, 2), (2, -1), 1), ((2,), (9,), 0), ((9, 9), (0, 0), 0)],
)
def test_a_tensor_that_reaches_beyond_its_storage_is_refused(
    tmp_path: Path, size: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> None:
    class Tensor:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            storage = ("storage", torch.FloatStorage, "0", "cpu", 4)
            return torch._utils._rebuild_tensor_v2, (storage, offset, size, stride, False, {})

    file = io.BytesIO()
    _Odd(file, protocol=2).dump(Tensor())
    path = _zip(tmp_path / "encoder.pkl", file.getvalue(), bytes(16))
    with pytest.raises(ValueError, match="does not fit its storage|repeats numbers"):
        read_modules(path, ())


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pkl"
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match="not a module as torch.save writes it"):
        read_modules(path, ())
    write_published(tmp_path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match="not a module as torch.save writes it"):
        read_modules(path, ("dall_e",))
