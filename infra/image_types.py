"""What an image is by its first bytes, whatever a server or a file name says."""

from __future__ import annotations

_MAGIC = (
    ("jpg", b"\xff\xd8\xff"),
    ("png", b"\x89PNG\r\n\x1a\n"),
    ("gif", b"GIF87a"),
    ("gif", b"GIF89a"),
    ("tiff", b"II*\x00"),
    ("tiff", b"MM\x00*"),
    ("bmp", b"BM"),
    ("jxl", b"\xff\x0a"),
    ("jxl", b"\x00\x00\x00\x0cJXL \r\n\x87\n"),
    ("jp2", b"\x00\x00\x00\x0cjP  \r\n\x87\n"),
    ("ico", b"\x00\x00\x01\x00"),
)
_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"mif1": "heic"}


def image_type(content: bytes) -> str | None:
    """The usual file extension of an image by its first bytes; None if it is no raster image."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[4:8] == b"ftyp":
        return _BRANDS.get(content[8:12])
    return next((name for name, magic in _MAGIC if content.startswith(magic)), None)
