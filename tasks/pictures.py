"""Bytes of an image as RGB pixels, whatever kind of image they are.

CMYK, palettes, transparency (laid over white), 16-bit greys, floats and EXIF rotation are handled;
what cannot be decoded is told by its reason. The declared size is looked at before a pixel is made.
"""

from __future__ import annotations

import io
import warnings
from functools import cached_property
from typing import Literal

from PIL import Image

from model_zoo.pictures import DAMAGE, FORMATS, MAX_PIXELS, to_square, upright_rgb
from schemas.records import DropReason

__all__ = ["MAX_PIXELS", "Animated", "Picture", "Undecodable", "decode", "to_square"]

Animated = Literal["drop", "first_frame"]

_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND", b"GIF8": b";"}


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
        return upright_rgb(image)
    except DAMAGE as error:
        raise _damaged(content, error) from error


def _open(content: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of metadata, too, that we never use
        try:
            return Image.open(io.BytesIO(content), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise Undecodable(DropReason.BOMB, str(error)[:200]) from error
        except DAMAGE as error:
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
