"""Images of benchmarks, kept once each in a cache folder under the name of their content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from perpo.common.files import cache_folder
from perpo.data.embedded import unpack_image
from perpo.data.images import image_size, open_image


@dataclass(frozen=True)
class StoredImage:
    """An image in a file.

    Attributes:
        file: Its absolute path.
        sha256: Digest of its bytes.
        width: Of the upright picture, in pixels.
        height: Of the upright picture, in pixels.
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
        OSError: The bytes are no image. Only the head is looked at: see `perpo.data.images.image_problems`.
    """
    file = unpack_image(data, cache_folder() / "images")
    return StoredImage(file, hashlib.sha256(data).hexdigest(), *image_size(data))


def locate_image(file: Path) -> StoredImage:
    """Return an image that is a file already; it stays where it is.

    Raises:
        OSError: There is no such file, or it is no image.
    """
    size = image_size(file)
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return StoredImage(file.resolve(), digest, *size)


@lru_cache(maxsize=32)
def recent_image(file: str) -> Image.Image:
    """Return `perpo.data.images.open_image` of a file; the last few are remembered, since neighbours ask about one
    image.
    """
    return open_image(file)
