"""COCO's captions: one JSON file of images and annotations, and the pictures that it names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.errors import PermanentError
from tasks.captioned import (
    MOST_PICTURE_BYTES,
    PICTURES,
    File,
    Files,
    Listed,
    Listing,
    Pictures,
    some,
    text_of,
)

_MOST_JSON_BYTES = 1 << 30  # that of COCO's 2014 training captions has 66 MB


class _Strict(BaseModel):
    """Types are not guessed; the many further keys of COCO are not read."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Image(_Strict):
    id: int
    file_name: str


class _Annotation(_Strict):
    image_id: int
    caption: str


class _Captions(_Strict):
    images: list[_Image]
    annotations: list[_Annotation]


def list_pairs(files: Files) -> Listing:
    """What there is; pictures that the JSON file does not name, or gives no caption, are not.

    Raises:
        PermanentError: if there is not one JSON file, if it is of another form, or if it and the
            pictures do not fit together.
    """
    described, pictures = _read(files), _pictures(files)
    captions: dict[int, list[str]] = defaultdict(list)
    for annotation in described.annotations:
        captions[annotation.image_id].append(annotation.caption)
    unknown = captions.keys() - {image.id for image in described.images}
    if unknown:
        ids = some([str(one) for one in sorted(unknown)])
        raise PermanentError(f"files: annotations are of images {ids}, which are not among images")
    missing = [one.file_name for one in described.images if _name(one) not in pictures]
    if missing:
        raise PermanentError(f"files: {some(missing)} is in the JSON, but not among the files")
    for image in described.images:
        if image.id in captions:
            picture = pictures[_name(image)]
            key = (picture.name,)
            yield Listed(key, picture.name, picture.identity, tuple(captions[image.id]))


def read_pictures(files: Files, names: Collection[tuple[str, ...]]) -> Pictures:
    """The bytes of the chosen pictures."""
    for name, picture in _pictures(files).items():
        if (name,) in names:
            yield (name,), picture.read(MOST_PICTURE_BYTES)


def _read(files: Files) -> _Captions:
    texts = [file for file in files if file.ending == ".json"]
    if len(texts) != 1:
        raise PermanentError(f"files: {len(texts)} of them are .json; COCO's captions are one")
    content = text_of(texts[0].read(_MOST_JSON_BYTES), texts[0].name)
    try:
        described = _Captions.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PermanentError(
            f"{texts[0].name}: {where}: {first['msg']}; COCO's captions are"
            ' {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}'
        ) from error
    ids = [image.id for image in described.images]
    if len(set(ids)) != len(ids) or len({_name(one) for one in described.images}) != len(ids):
        raise PermanentError(f"{texts[0].name}: two images have one id or one file_name")
    return described


def _pictures(files: Files) -> dict[str, File]:
    found: dict[str, File] = {}
    for file in files:
        if file.ending in PICTURES:
            if file.name in found:
                raise PermanentError(f"files: two are called {file.name}")
            found[file.name] = file
    return found


def _name(image: _Image) -> str:
    """Compared with names only, and never opened: it comes from the file."""
    return image.file_name.rsplit("/", 1)[-1]
