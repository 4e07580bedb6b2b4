"""The pixels of image files: mode RGB, the right way up, square.

All that reads pictures takes them from here, so that one file gives the same pixels when it is
filtered, prepared beforehand, encoded, and decoded by the ranks of a training.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # a JPEG may hold an MPO
MAX_PIXELS = 64_000_000
BACKGROUND = (255, 255, 255)  # what transparent pictures of the web are seen on

# What Pillow's decoders raise on damaged files, besides saying so properly (OSError).
DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError,
    TypeError, OverflowError, ZeroDivisionError, RuntimeError, AttributeError,
)  # fmt: skip
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def square_pixels(content: bytes, side: int) -> np.ndarray:
    """The centre square of a picture that is known to be sound, uint8 [3, side, side].

    Raises:
        ValueError: if it is damaged, or declares more than `MAX_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it declares {image.width}x{image.height} pixels")
            image.load()
            square = to_square(upright_rgb(image), side)
    except (*DAMAGE, Image.DecompressionBombError) as error:
        words = str(error).split(" <", maxsplit=1)[0]  # without the address of an object
        raise ValueError(f"a picture of {len(content)} bytes: {words}") from error
    return as_planes(square)


def as_planes(image: Image.Image) -> np.ndarray:
    """Pixels uint8 [3, H, W], in this order of axes in memory, too."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def to_square(image: Image.Image, side: int) -> Image.Image:
    """The largest centred square of a picture, resized by area to `side` pixels."""
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    box = (left, top, left + short, top + short)
    return image.resize((side, side), Image.Resampling.BOX, box=box)


def upright_rgb(image: Image.Image) -> Image.Image:
    """A loaded image as RGB, turned as its EXIF says."""
    exif = image.info.get("exif")
    found = _flat(image)
    if exif is not None:
        found.info["exif"] = exif
    try:
        return ImageOps.exif_transpose(found)
    except DAMAGE:  # EXIF that cannot be read says nothing about which way is up
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
