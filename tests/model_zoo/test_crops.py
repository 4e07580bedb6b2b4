import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model_zoo.crops import CropConfig, PictureFiles, area_matrix, area_resize, random_crop


def _plain_area(row: np.ndarray, after: int, steps: int = 720) -> np.ndarray:
    """Resizing by area as an average over many points of each new pixel."""
    before = len(row)
    points = (np.arange(after * steps) + 0.5) * before / (after * steps)
    return row[points.astype(int)].reshape(after, steps).mean(1)


@pytest.mark.parametrize(("before", "after"), [(48, 32), (45, 36), (32, 32), (10, 7), (8, 12)])
def test_area_resize_averages_what_lies_under_a_pixel(before, after):
    row = np.random.default_rng(0).uniform(0, 255, before)

    resized = area_matrix(before, after).double().numpy() @ row

    np.testing.assert_allclose(resized, _plain_area(row, after), rtol=2e-3)
    np.testing.assert_allclose(area_matrix(before, after).sum(1), 1, rtol=1e-5)


def test_whole_factors_are_plain_means_and_bytes_stay_bytes():
    images = torch.randint(0, 256, (2, 3, 8, 12), dtype=torch.uint8)
    means = images.float().reshape(2, 3, 4, 2, 6, 2).mean((3, 5))

    assert area_resize(images, 4, 6).dtype == torch.uint8
    torch.testing.assert_close(area_resize(images.float(), 4, 6), means)
    assert (area_resize(images, 4, 6).float() - means).abs().max() <= 0.5


def test_the_random_side_stays_within_what_is_declared():
    # A picture whose value is its column shows by its slope to which side it was resized.
    image = torch.arange(200, dtype=torch.uint8).expand(3, 200, 200)
    slopes = []
    for seed in range(60):
        crop = random_crop(image, 100, CropConfig(), np.random.default_rng(seed)).float()
        assert crop.shape == (3, 100, 100)
        slopes.append(float(crop[0, 0, -1] - crop[0, 0, 0]) / 99)

    sides = 200 / np.array(slopes)

    assert 111 <= sides.min() < 116
    assert 145 < sides.max() <= 152


def test_pictures_are_never_enlarged():
    image = torch.randint(0, 256, (3, 34, 34), dtype=torch.uint8)

    crop = random_crop(image, 32, CropConfig(), np.random.default_rng(1))

    # min(s, 9/8 · 32) = min(s, 12/8 · 32) = s: a plain cut.
    cuts = image.unfold(1, 32, 1).unfold(2, 32, 1)
    assert (cuts == crop[:, None, None]).all(-1).all(-1).all(0).any()


def test_a_flip_is_only_made_where_it_is_declared():
    image = torch.arange(32, dtype=torch.uint8).expand(3, 32, 32)
    draws = [np.random.default_rng(seed) for seed in range(20)]

    flips = [random_crop(image, 32, CropConfig(flip=True), random)[0, 0, 0] > 0 for random in draws]

    assert 0 < sum(flips) < 20
    assert torch.equal(random_crop(image, 32, CropConfig(), draws[0]), image)


@pytest.fixture
def files(tmp_path):
    tables = []
    for number, count in enumerate((5, 3)):
        images = torch.randint(0, 256, (count, 3, 24, 24), dtype=torch.uint8)
        tokens = torch.full((count, 4), number, dtype=torch.int32)
        tables.append({"images": images, "tokens": tokens})
        save_file(tables[-1], tmp_path / f"{number}.safetensors")
    return [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]


def test_a_crop_depends_on_seed_epoch_and_index_alone(files):
    data = PictureFiles(files, seed=7, side=16, crops=CropConfig(), columns=("tokens",))
    again = PictureFiles(files, seed=7, side=16, crops=CropConfig())
    other = PictureFiles(files, seed=8, side=16, crops=CropConfig())
    indices = np.array([6, 0, 3])

    found = data.batch(indices, epoch=2)

    assert len(data) == 8
    assert found["images"].shape == (3, 3, 16, 16)
    assert found["tokens"][:, 0].tolist() == [1, 0, 0]
    assert torch.equal(again.batch(np.array([3]), 2)["images"][0], found["images"][2])
    assert not torch.equal(data.batch(indices, 3)["images"], found["images"])
    assert not torch.equal(other.batch(indices, 2)["images"], found["images"])


def test_a_record_is_called_by_its_file_and_its_place_in_it(files):
    data = PictureFiles(files, 0, 16, CropConfig())
    first = len(data.parts[0])
    assert data.name(first - 1) == f"{first - 1} of {files[0].name}"
    assert data.name(first) == f"0 of {files[1].name}"


def test_files_that_do_not_fit_are_refused_by_name(files, tmp_path):
    with pytest.raises(ValueError, match="0.safetensors lacks captions"):
        PictureFiles(files, 0, 16, CropConfig(), ("captions",))
    save_file({"images": torch.zeros(2, 3, 8, 8)}, tmp_path / "floats.safetensors")
    with pytest.raises(ValueError, match="must be uint8"):
        PictureFiles([tmp_path / "floats.safetensors"], 0, 8, CropConfig())
    small = PictureFiles(files, 0, 32, CropConfig())
    with pytest.raises(ValueError, match="stored at 24 pixels"):
        small.batch(np.array([0]), 0)
    with pytest.raises(ValueError, match="must not exceed"):
        CropConfig(smallest=1.5, largest=1.2)
