"""Pictures as the bytes of files: usual ones, odd ones, and broken ones."""

from __future__ import annotations

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

# The orientation tag of EXIF; 6 says "turn by 90 degrees clockwise to show".
_ORIENTATION, _TURN_CLOCKWISE = 0x0112, 6
# A screen of 24,000 x 24,000 bits packs into 70 kB and unpacks to 1.7 GB of RGB.
_BOMB_SIDE = 24_000

TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif"}


class File(NamedTuple):
    """The bytes of a file, its extension, and the type that a server says it has."""

    content: bytes
    extension: str
    media_type: str


def usual(picture: Image.Image, rng: random.Random) -> File:
    """A JPEG, PNG or WebP of good quality."""
    extension = rng.choices(("jpg", "png", "webp"), (60, 25, 15))[0]
    return _saved(picture, extension, quality=rng.randint(86, 95))


def again(picture: Image.Image, rng: random.Random, way: int) -> File:
    """The same picture as another site would show it: compressed again, or a little resized.

    Three `way`s in turn, so that the copies of one picture are all different files.
    """
    if way % 3 == 0:
        return _saved(picture, "jpg", quality=rng.randint(75, 88))
    if way % 3 == 1:
        return _saved(picture, "webp", quality=rng.randint(75, 88))
    side = round(picture.width * rng.choice((0.9, 1.1, 1.25)))
    resized = picture.resize((side, side), Image.Resampling.LANCZOS)
    return _saved(resized, "jpg", quality=90)


def odd(picture: Image.Image, way: str) -> File:
    """The picture in a format that a careless decoder gets wrong; `way` is one of `ODD_WAYS`."""
    return _ODD[way](picture)


def animated(first: Image.Image, second: Image.Image, extension: str) -> File:
    """Two pictures in turn, as a GIF or WebP."""
    return _saved(first, extension, save_all=True, append_images=[second], duration=500, loop=0)


def pixel() -> File:
    """One transparent pixel."""
    canvas = Image.new("P", (1, 1))
    return _saved(canvas, "gif", transparency=0)


def banner(size: tuple[int, int], rng: random.Random) -> File:
    """Blocks and bars of colours, (width, height) pixels."""
    width, height = size
    image = Image.new("RGB", size, _colour(rng))
    pen = ImageDraw.Draw(image)
    for _ in range(8):
        x, y = rng.randrange(width), rng.randrange(height)
        pen.rectangle((x, y, x + rng.randrange(4, 60), y + rng.randrange(4, 30)), fill=_colour(rng))
    return _saved(image, rng.choice(("jpg", "png")), quality=80)


def strip(picture: Image.Image, rng: random.Random) -> File:
    """The picture on a strip of its own background that is 2.3 to 4 times as long as wide."""
    side, long = picture.width, round(picture.width * rng.uniform(2.3, 4))
    size, place = ((long, side), (long // 3, 0)) if rng.random() < 0.5 else ((side, long), (0, 9))
    canvas = Image.new("RGB", size, picture.getpixel((0, 0)))
    canvas.paste(picture, place)
    return usual(canvas, rng)


def blank(side: int, rng: random.Random) -> File:
    """Nothing but one colour."""
    return _saved(Image.new("RGB", (side, side), _colour(rng)), rng.choice(("jpg", "png")))


def cut(file: File, rng: random.Random) -> File:
    """The first 40 to 75 percent of a file's bytes."""
    return file._replace(content=file.content[: int(len(file.content) * rng.uniform(0.4, 0.75))])


def bomb(rng: random.Random) -> File:
    """A PNG of a few kB that unpacks to gigabytes; every one has other colours."""
    palette = bytes(rng.randrange(256) for _ in range(6))
    return File(
        _png((_BOMB_SIDE, _BOMB_SIDE), 1, 3, _packed_zeros(), palette=palette), "png", TYPES["png"]
    )


def no_image(rng: random.Random) -> File:
    """Something else under the name of an image, with an honest or a false type."""
    kind, content = rng.choice(_NO_IMAGES)
    false = rng.random() < 0.5 and kind != "image/svg+xml"
    note = f"<!-- {rng.randrange(1_000_000)} -->".encode() if content.startswith(b"<") else b""
    return File(content + note, rng.choice(("jpg", "png")), "image/jpeg" if false else kind)


def _saved(picture: Image.Image, extension: str, **options: object) -> File:
    buffer = io.BytesIO()
    kind = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF"}[extension]
    if kind in ("PNG", "GIF"):
        options.pop("quality", None)
    picture.save(buffer, kind, **options)
    return File(buffer.getvalue(), extension, TYPES[extension])


def _colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _cmyk(picture: Image.Image) -> File:
    return _saved(picture.convert("CMYK"), "jpg", quality=92)


def _palette(picture: Image.Image) -> File:
    return _saved(picture.quantize(64), "png")


def _sixteen_bit(picture: Image.Image) -> File:
    values = np.asarray(picture, dtype=">u2") * 257
    rows = values.reshape(picture.height, -1).astype(">u2")
    # Each row of a PNG begins with the number of its filter; 0 is none.
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    return File(_png(picture.size, 16, 2, zlib.compress(raw)), "png", TYPES["png"])


def _rotated(picture: Image.Image) -> File:
    exif = Image.Exif()
    exif[_ORIENTATION] = _TURN_CLOCKWISE
    return _saved(picture.transpose(Image.Transpose.ROTATE_90), "jpg", quality=92, exif=exif)


def _alpha(picture: Image.Image) -> File:
    return _saved(picture.convert("RGBA"), "png")


def _progressive(picture: Image.Image) -> File:
    return _saved(picture, "jpg", quality=90, progressive=True)


_ODD: dict[str, Callable[[Image.Image], File]] = {
    "cmyk": _cmyk,
    "palette": _palette,
    "sixteen_bit": _sixteen_bit,
    "rotated": _rotated,
    "alpha": _alpha,
    "progressive": _progressive,
}
ODD_WAYS = tuple(_ODD)

_NO_IMAGES: tuple[tuple[str, bytes], ...] = (
    ("text/html; charset=utf-8", b"<!doctype html><title>Not found</title><p>Nothing is here."),
    ("text/html", b"<html><body><form>Please log in to see this picture.</form></body></html>"),
    ("application/json", b'{"error": "quota exceeded", "code": 7}'),
    ("text/plain", b"This picture has moved.\n"),
    ("application/pdf", b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n"),
    (
        "image/svg+xml",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><circle r="9"/></svg>',
    ),
    ("image/png", b""),
)


def _png(
    size: tuple[int, int], depth: int, colour_type: int, packed: bytes, palette: bytes = b""
) -> bytes:
    """A PNG from its parts (PNG specification, 11.2): what Pillow cannot write, or would refuse."""
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]
    if palette:
        chunks.insert(1, (b"PLTE", palette))
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in chunks:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        parts += [struct.pack(">I", len(data)), name, data, checksum]
    return b"".join(parts)


@functools.cache
def _packed_zeros() -> bytes:
    packer = zlib.compressobj(9)
    rows = 1000
    block = bytes((_BOMB_SIDE // 8 + 1) * rows)
    return b"".join(packer.compress(block) for _ in range(_BOMB_SIDE // rows)) + packer.flush()
