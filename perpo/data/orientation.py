"""The orientation of a picture's pixels in its file (EXIF), and the file without one."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

from PIL import ExifTags, Image

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How stored pixels are turned upright, by EXIF orientation (TIFF 6.0, tag 274)."""

LYING = (5, 6, 7, 8)
"""The orientations whose upright picture is as wide as the stored one is high."""

_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_PNG_WORDS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, that an image's pixels still have.

    One that can't be read is none, as viewers have it.
    """
    if image.format == "TIFF":
        image.load()  # which turns it
        return 1
    if image.format == "PNG" and _says_more_behind(image):
        image.load()
    try:
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)  # PNG's own decodes the pixels
    except Exception:  # damaged EXIF raises many kinds
        return 1
    return orientation if isinstance(orientation, int) and orientation in TURNS else 1


def without_orientation(data: bytes, form: str) -> bytes | None:
    """Return a JPEG's or PNG's bytes without what may hold an orientation, all else as it is; None for other formats.

    Args:
        data: The whole file.
        form: Its format as Pillow names it.
    """
    if form in ("JPEG", "MPO"):
        return _without_app1(data)
    if form != "PNG":
        return None
    kept = (data[start:end] for kind, start, end in _png_chunks(io.BytesIO(data)) if kind not in _PNG_WORDS)
    return _PNG_HEAD + b"".join(kept)


def _png_chunks(file: Any) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk of a PNG file."""
    start = len(_PNG_HEAD)
    file.seek(start)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        yield kind, start, start + length + 12
        start += length + 12
        file.seek(start)


def _says_more_behind(image: Any) -> bool:
    """Whether a PNG file has words behind its pixels, which Pillow reads with the pixels only."""
    file = image.fp
    place, pixels = file.tell(), False
    try:
        for kind, _, _ in _png_chunks(file):
            if pixels and kind in _PNG_WORDS:
                return True
            pixels = pixels or kind == b"IDAT"
        return False
    finally:
        file.seek(place)


def _without_app1(data: bytes) -> bytes:
    """A JPEG file without EXIF and XMP (its APP1 segments), and without the table of further pictures (MPF)."""
    kept, place = [data[:2]], 2
    while data[place] == 0xFF and data[place + 1] != 0xDA:  # the pixels follow
        if data[place + 1] == 0xFF:  # markers may be padded
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] != 0xE1 and data[place + 4 : place + 8] != b"MPF\0":
            kept.append(data[place:end])
        place = end
    return b"".join(kept) + data[place:]
