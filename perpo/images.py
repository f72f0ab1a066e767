"""Image files: find the bad ones before they cost anything, and unpack those that data hold themselves."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageFile

from perpo.files import atomic_write_bytes


def image_problems(paths: Sequence[Path]) -> list[str | None]:
    """Decode images to their last byte, in threads.

    Returns:
        For each path what is wrong with the file, or None.
    """
    # Some libraries switch this on for the whole process; half an image would then pass as whole.
    tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with ThreadPoolExecutor() as pool:
            return list(pool.map(_problem, paths))
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant


def pad_to_square(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """An RGB image in the middle of a square as wide as its longer side, as LLaVA-1.5 pads.

    `perpo.boxes.frame_window` has the same margins for boxes in the frame "padded".
    """
    side = max(image.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def unpack_image(data: bytes, folder: Path) -> Path:
    """Write an encoded image to a file named by its contents, unless it is there; returns its absolute path.

    Raises:
        OSError: The bytes are no image.
    """
    with Image.open(io.BytesIO(data)) as image:
        suffix = (image.format or "image").lower()
    path = folder.resolve() / f"{hashlib.sha256(data).hexdigest()[:32]}.{suffix}"
    if not path.exists():
        atomic_write_bytes(path, data)
    return path


def _problem(path: Path) -> str | None:
    if not path.is_file():
        return "no such file"
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # damaged files raise many kinds, SyntaxError among them
        return " ".join(str(error).split()) or type(error).__name__
    return None
