"""Image files: find the bad ones before they cost anything, and unpack those that data hold themselves."""

from __future__ import annotations

import glob
import hashlib
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile

from perpo.files import atomic_write_bytes, cache_folder


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


def find_image(image: Mapping[str, Any], folder: Path | None = None) -> Path | None:
    """The file of an image that a run record names, or None; what has other contents is not it.

    Args:
        image: {sha256, path} as in `perpo.records.SAMPLE_COLUMNS`.
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


def _problem(path: Path) -> str | None:
    if not path.is_file():
        return "no such file"
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode[0] in "IF":
                return f"{image.mode} pixels, which would lose their scale: convert it to 8 bits"
    except Exception as error:  # damaged files raise many kinds, SyntaxError among them
        return " ".join(str(error).split()) or type(error).__name__
    return None
