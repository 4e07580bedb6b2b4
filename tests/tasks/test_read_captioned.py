"""Sets of captioned pictures are read as they are, or refused; the choice is the seed's alone."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from infra.errors import PermanentError
from infra.shards import Sample, read_shard
from infra.sources import resolve_sources
from infra.work import Work
from schemas.fingerprint import code_digests
from tasks.read_captioned import CaptionedParams, read_captioned
from tests.tasks.image_shards import saved


def _picture(number: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    return saved(Image.fromarray(pixels), kind)


def _folder(path: Path, count: int = 6) -> Path:
    path.mkdir(parents=True)
    for number in range(count):
        (path / f"{number:03d}.png").write_bytes(_picture(number))
        (path / f"{number:03d}.txt").write_text(f"picture {number}\n")
    return path


def _coco(path: Path, count: int = 6) -> Path:
    path.mkdir(parents=True)
    images = [{"id": n, "file_name": f"{n:03d}.png", "width": 10} for n in range(count)]
    annotations = [
        {"id": 10 * n + k, "image_id": n, "caption": f"picture {n}, words {k}. "}
        for n in range(count) for k in range(5)
    ]  # fmt: skip
    for number in range(count):
        (path / f"{number:03d}.png").write_bytes(_picture(number))
    described = {"info": {"year": 2014}, "images": images, "annotations": annotations}
    (path / "captions.json").write_text(json.dumps(described))
    return path


def _tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _webdataset(folder: Path, count: int = 6) -> Path:
    for shard in range(2):
        members = []
        for number in range(shard, count, 2):
            members += [
                (f"{number:03d}.png", _picture(number)), (f"{number:03d}.json", b"{}"),
                (f"{number:03d}.txt", f"picture {number}".encode()),
            ]  # fmt: skip
        _tar(folder / f"{shard:05d}.tar", members)
    return folder


def _read(home: Path, files: list[str], **values: Any) -> list[Sample]:
    environment = Work.local(home).environment
    work = Work.local(home, sources=resolve_sources(tuple(files), environment))
    params = CaptionedParams.model_validate({"files": files, **values})
    found = read_captioned(params, work)
    samples = [one for unit in found.units for one in read_shard(work.fetch(unit))]
    assert [unit.records for unit in found.units] == [
        len(list(read_shard(work.fetch(unit)))) for unit in found.units
    ]
    return samples


MAKERS = {"folder": _folder, "coco": _coco, "webdataset": _webdataset}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_pair_of_a_set_is_read_as_it_is(tmp_path: Path, kind: str) -> None:
    folder = MAKERS[kind](tmp_path / "set")
    samples = _read(tmp_path, [f"{folder}/*"], format=kind, per_unit=4)
    assert {sample.image for sample in samples} == {_picture(number) for number in range(6)}
    for sample in samples:
        number = next(n for n in range(6) if sample.image == _picture(n))
        assert sample.caption.startswith(f"picture {number}")
        assert sample.caption == sample.caption.strip()
        assert (sample.extension, sample.record["width"], sample.record["height"]) == (
            "png",
            10,
            12,
        )


@pytest.mark.parametrize("kind", MAKERS)
def test_a_part_is_chosen_by_the_seed_wherever_the_set_lies(tmp_path: Path, kind: str) -> None:
    def keys(folder: Path, seed: int) -> set[str]:
        found = _read(tmp_path, [f"{folder}/*"], format=kind, count=5, seed=seed)
        assert len(found) == 5
        return {sample.key for sample in found}

    here, there = (MAKERS[kind](tmp_path / name, 12) for name in ("here", "there"))
    assert keys(here, 0) == keys(there, 0) != keys(here, 1)


def test_one_of_five_captions_is_taken_and_not_always_the_first(tmp_path: Path) -> None:
    samples = _read(tmp_path, [f"{_coco(tmp_path / 'set', 12)}/*"], format="coco")
    assert len({sample.caption[-2] for sample in samples}) > 1
    assert len({sample.image for sample in samples}) == 12


def test_equal_pairs_are_two_pairs(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "set", 2)
    for ending in (".png", ".txt"):
        (folder / f"again{ending}").write_bytes((folder / f"000{ending}").read_bytes())
    assert len(_read(tmp_path, [f"{folder}/*"], format="folder")) == 3


def _change_json(folder: Path, **values: Any) -> None:
    path = folder / "captions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


WRONG_FOLDERS = {
    "no .txt beside 001.png": lambda f: (f / "001.txt").unlink(),
    "no picture beside 001.txt": lambda f: (f / "001.png").unlink(),
    "x.pkl is neither": lambda f: (f / "x.pkl").write_bytes(pickle.dumps([1])),
    "001.png: cannot be decoded": lambda f: (f / "001.png").write_bytes(b"<html>"),
    "001.png: cannot be decoded .truncated": lambda f: (f / "001.png").write_bytes(
        _picture(1)[:90]
    ),
    "001.png: it has no caption": lambda f: (f / "001.txt").write_text(" \n"),
    "001.txt: its text is not UTF-8": lambda f: (f / "001.txt").write_bytes(b"\xff\xfe\xff"),
    "have one name": lambda f: (f / "001.jpg").write_bytes(_picture(1, "JPEG")),
    "00 pairs are asked for": lambda f: None,
}


@pytest.mark.parametrize("message", WRONG_FOLDERS)
def test_a_folder_with_something_wrong_is_refused(tmp_path: Path, message: str) -> None:
    folder = _folder(tmp_path / "set", 3)
    WRONG_FOLDERS[message](folder)
    count = 100 if "asked for" in message else None
    with pytest.raises(PermanentError, match=message):
        _read(tmp_path, [f"{folder}/*"], format="folder", count=count)


BOMB = saved(Image.new("L", (9000, 9000)))  # 81 million pixels in 80 kB


def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "set", 2)
    (folder / "001.png").write_bytes(BOMB)
    with pytest.raises(
        PermanentError, match="001.png: cannot be decoded .bomb: declares 9000x9000"
    ):
        _read(tmp_path, [f"{folder}/*"], format="folder")


ONE = {"id": 0, "file_name": "000.png"}
WRONG_JSON = {
    "0 of them are .json": lambda f: (f / "captions.json").unlink(),
    "2 of them are .json": lambda f: (f / "more.json").write_text("{}"),
    "captions.json: the file: Invalid JSON": lambda f: (f / "captions.json").write_text("{"),
    "Invalid JSON: recursion": lambda f: (f / "captions.json").write_text("[" * 100_000),
    "annotations: Field required": lambda f: (f / "captions.json").write_text('{"images": []}'),
    "images.0.id: Input should be a valid integer": lambda f: _change_json(
        f, images=[{"id": "0", "file_name": "000.png"}]
    ),
    "two images have one id": lambda f: _change_json(f, images=[ONE, ONE | {"file_name": "b.png"}]),
    "images 7, which are not among": lambda f: _change_json(
        f, annotations=[{"image_id": 7, "caption": "seven"}]
    ),
    "passwd is in the JSON, but not": lambda f: _change_json(
        f, images=[{"id": 0, "file_name": "../../../etc/passwd"}], annotations=[]
    ),
    "000.png: prompt '' is empty": lambda f: _change_json(
        f, annotations=[{"image_id": 0, "caption": "\t"}]
    ),
}


@pytest.mark.parametrize("message", WRONG_JSON)
def test_captions_with_something_wrong_are_refused(tmp_path: Path, message: str) -> None:
    folder = _coco(tmp_path / "set", 3)
    WRONG_JSON[message](folder)
    with pytest.raises(PermanentError, match=message):
        _read(tmp_path, [f"{folder}/*"], format="coco")


def _sound(key: str = "a") -> list[tuple[str, bytes]]:
    return [(f"{key}.png", _picture(0)), (f"{key}.txt", b"a picture")]


WRONG_TARS = {
    "no sound tar": [],
    "'a' has 1 pictures and 0 texts": _sound()[:1],
    "'a' has 2 pictures and 1 texts": [("a.jpg", _picture(1, "JPEG")), *_sound()],
    "'a' is there twice": [*_sound("a"), *_sound("b"), *_sound("a")],
    "at most 1048576 are read": [("a.png", _picture(0)), ("a.txt", b"a" * (1 << 21))],
}


@pytest.mark.parametrize("message", WRONG_TARS)
def test_a_shard_with_something_wrong_is_refused(tmp_path: Path, message: str) -> None:
    path = _tar(tmp_path / "set.tar", WRONG_TARS[message])
    if not WRONG_TARS[message]:
        path.write_bytes(b"PK" + bytes(2000))
    with pytest.raises(PermanentError, match=message):
        _read(tmp_path, [str(path)], format="webdataset")


def test_a_cut_shard_is_refused(tmp_path: Path) -> None:
    path = _tar(tmp_path / "set.tar", [*_sound("a"), ("b.png", bytes(50_000)), ("b.txt", b"b")])
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(PermanentError, match="no sound tar file"):
        _read(tmp_path, [str(path)], format="webdataset")


def test_a_pickle_or_a_link_in_a_shard_is_never_opened(tmp_path: Path) -> None:
    path = _tar(tmp_path / "set.tar", [("a.pyd", b"not even a pickle"), *_sound("a")])
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    found = _read(tmp_path, [str(path)], format="webdataset")
    assert [sample.image for sample in found] == [_picture(0)]


def test_only_the_chosen_format_is_part_of_the_code() -> None:
    params = CaptionedParams(format="coco", files=("x",))
    code = set(code_digests(["tasks.read_captioned", *params.modules()]))
    assert "tasks.captioned.coco" in code
    assert "tasks.captioned.folder" not in code
    with pytest.raises(ValidationError, match="'folder', 'coco' or 'webdataset'"):
        CaptionedParams.model_validate({"format": "parquet", "files": ["x"]})
