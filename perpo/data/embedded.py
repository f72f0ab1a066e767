"""Pictures that data hold themselves: read from a text, unpacked into files named by their contents, found again."""

from __future__ import annotations

import base64
import binascii
import glob
import hashlib
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perpo.common.files import atomic_write_bytes, cache_folder
from perpo.data.images import image_format

# How base64 of JPEG, PNG, GIF, WebP, BMP and TIFF begins.
_BASE64 = re.compile(r"\s*(/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk[0-3]|SUkqA|TU0AK)[A-Za-z0-9+/\s]{60,}[=\s]*")


def unpack_image(data: bytes, folder: Path) -> Path:
    """Write an encoded image to a file named by its contents, unless it is there; returns its absolute path.

    Raises:
        OSError: The bytes are no image.
    """
    suffix = (image_format(data) or "image").lower()
    path = folder.resolve() / f"{hashlib.sha256(data).hexdigest()[:32]}.{suffix}"
    if not path.exists():
        atomic_write_bytes(path, data)
    return path


def image_in_text(text: str) -> bytes | None:
    """Return the picture's file that a text holds as a data URI or as base64; None for a text that is a path.

    Raises:
        ValueError: It is cut, or no base64.
    """
    try:
        if text[:5].lower() == "data:":
            head, comma, body = text.partition(",")
            if not comma:
                raise ValueError("a data URI that holds no data")
            if head.lower().endswith(";base64"):
                return base64.b64decode("".join(urllib.parse.unquote(body).split()), validate=True)
            return urllib.parse.unquote_to_bytes(body)
        return base64.b64decode("".join(text.split()), validate=True) if _BASE64.fullmatch(text) else None
    except binascii.Error as error:
        raise ValueError(f"damaged or incomplete base64: {error}") from error


def picture_key(image: Mapping[str, Any]) -> str:
    """Return what tells a picture of a run record from others: its digest, else its path; "" where it has neither."""
    return str(image.get("sha256") or image.get("path") or "")


def find_image(image: Mapping[str, Any], folder: Path | None = None) -> Path | None:
    """Return the file of an image that a run record names, or None; what has other contents is not it.

    Args:
        image: {sha256, path} as in `perpo.records.run_record.SAMPLE_COLUMNS`.
        folder: Where to look for the path; what perpo unpacked itself is found without.
    """
    sha256, path = str(image.get("sha256") or ""), str(image.get("path") or "")
    candidates = sorted((cache_folder() / "images").glob(f"{glob.escape(sha256[:32])}.*")) if sha256 else []
    try:
        if folder is not None and path:
            inside = (folder / path).resolve()
            candidates += [inside] if inside.is_relative_to(folder.resolve()) else []
        for file in candidates:
            if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256:
                return file
    except (OSError, ValueError):  # not to be read, or no path at all: too long, or with a character that none has
        return None
    return None
