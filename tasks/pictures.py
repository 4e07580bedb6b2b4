"""Bytes of an image as RGB pixels, whatever kind of image they are.

CMYK, palettes, transparency (laid over white), 16-bit greys, floats and EXIF rotation are handled;
what cannot be decoded is told by its reason. The declared size is looked at before a pixel is made.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from functools import cached_property
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from schemas.records import DropReason

Animated = Literal["drop", "first_frame"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # a JPEG may hold an MPO
MAX_PIXELS = 64_000_000
BACKGROUND = (255, 255, 255)  # what transparent pictures of the web are seen on

# What Pillow's decoders raise on damaged files, besides saying so properly (OSError).
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError,
    TypeError, OverflowError, ZeroDivisionError, RuntimeError, AttributeError,
)  # fmt: skip
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND", b"GIF8": b";"}
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


class Undecodable(ValueError):
    """An image that gives no picture, with the reason for dropping it."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Picture:
    """An image as it was fetched; its pixels are decoded when first asked for."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.max_pixels = MAX_PIXELS
        self.animated: Animated = "first_frame"

    @cached_property
    def image(self) -> Image.Image:
        """The picture, mode RGB, the right way up.

        Raises:
            Undecodable: see `decode`.
        """
        return decode(self.content, self.max_pixels, self.animated)

    @property
    def width(self) -> int:
        """Pixels, the right way up."""
        return self.image.width

    @property
    def height(self) -> int:
        """Pixels, the right way up."""
        return self.image.height


def decode(
    content: bytes, max_pixels: int = MAX_PIXELS, animated: Animated = "first_frame"
) -> Image.Image:
    """The picture in an image file: mode RGB, the right way up.

    Raises:
        Undecodable: UNDECODABLE, TRUNCATED, ANIMATED (if those are to be dropped), or BOMB for one
            that declares more than `max_pixels`, before any is made.
    """
    image = _open(content)
    if image.width * image.height > max_pixels:
        raise Undecodable(DropReason.BOMB, f"declares {image.width}x{image.height} pixels")
    try:
        frames = int(getattr(image, "n_frames", 1)) if image.format != "MPO" else 1
        if frames > 1 and animated == "drop":
            raise Undecodable(DropReason.ANIMATED, f"{frames} frames")
        image.load()
        return _upright(_rgb(image))
    except _DAMAGE as error:
        raise _damaged(content, error) from error


def to_square(image: Image.Image, side: int) -> Image.Image:
    """The largest centred square of a picture, resized by area to `side` pixels."""
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    box = (left, top, left + short, top + short)
    return image.resize((side, side), Image.Resampling.BOX, box=box)


def _open(content: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of metadata, too, that we never use
        try:
            return Image.open(io.BytesIO(content), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise Undecodable(DropReason.BOMB, str(error)[:200]) from error
        except _DAMAGE as error:
            raise _damaged(content, error) from error


def _damaged(content: bytes, error: Exception) -> Undecodable:
    if isinstance(error, Undecodable):
        return error
    words = " ".join(str(error).split())[:200] or type(error).__name__
    # Pillow puts the object's address into some messages; a detail must be the same in every run.
    words = words.split(" <", maxsplit=1)[0]
    cut = "truncated" in words or isinstance(error, EOFError) or _lacks_end(content)
    return Undecodable(DropReason.TRUNCATED if cut else DropReason.UNDECODABLE, words)


def _lacks_end(content: bytes) -> bool:
    """Whether a file begins as an image and does not end as one."""
    for start, end in _ENDS.items():
        if content.startswith(start):
            return end not in content[-32:]
    declared = 8 + int.from_bytes(content[4:8], "little")
    return content.startswith(b"RIFF") and len(content) < declared


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGE:  # EXIF that cannot be read says nothing about which way is up
        return image


def _rgb(image: Image.Image) -> Image.Image:
    exif = image.info.get("exif")
    found = _flat(image)
    if exif is not None:
        found.info["exif"] = exif
    return found


def _flat(image: Image.Image) -> Image.Image:
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        above = image.convert("RGBA")
        below = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        return Image.alpha_composite(below, above).convert("RGB")
    if image.mode.startswith(("I", "F")):
        return _from_deep(image)
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """16-bit and 32-bit greys by their range: 0..65535, or the largest value that occurs."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    top = 65535.0 if image.mode != "F" and values.max(initial=0) <= 65535 else values.max(initial=1)
    grey = np.clip(values / max(top, 1e-9), 0, 1) * 255
    return Image.fromarray(grey.round().astype(np.uint8), "L").convert("RGB")
