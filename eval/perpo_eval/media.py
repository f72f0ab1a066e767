"""Images of benchmarks, kept once each in a cache folder under the name of their content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageFile

from perpo.files import cache_folder
from perpo.images import unpack_image


@dataclass(frozen=True)
class StoredImage:
    """An image in a file.

    Attributes:
        file: Its absolute path.
        sha256: Digest of its bytes.
        width: In pixels.
        height: In pixels.
    """

    file: Path
    sha256: str
    width: int
    height: int


def keep_image(data: bytes) -> StoredImage:
    """Put an image into the cache, unless it is there.

    Args:
        data: The image file's bytes, any format that PIL reads.

    Raises:
        OSError: The bytes are no image. Only the head is looked at: see `perpo.images.image_problems`.
    """
    file = unpack_image(data, cache_folder() / "images")
    with Image.open(file) as image:
        width, height = image.size
    return StoredImage(file, hashlib.sha256(data).hexdigest(), width, height)


def locate_image(file: Path) -> StoredImage:
    """An image that is a file already; it stays where it is.

    Raises:
        OSError: There is no such file, or it is no image.
    """
    with Image.open(file) as image:
        width, height = image.size
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return StoredImage(file.resolve(), digest, width, height)


@lru_cache(maxsize=32)
def open_image(file: str) -> Image.Image:
    """An image of the cache as RGB; the last few are remembered, since neighbours ask about one image."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # PIL's default; importing lmms-eval sets it to True
    with Image.open(file) as image:
        return image.convert("RGB")
