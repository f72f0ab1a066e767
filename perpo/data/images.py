"""Pictures: the one way to open them, and what is wrong with those that can't be.

Whoever opens a picture sees the same one: upright, on white, RGB. Its size is that of the upright picture; the digest
of its file's bytes says which picture it is, and `PICTURES_VERSION` how files become pictures.
"""

from __future__ import annotations

import io
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile

from perpo.data.orientation import LYING, TURNS, orientation_of, without_orientation
from perpo.errors import PerpoError

PICTURES_VERSION = 2
"""Counts up when a file becomes another picture: journals and caches of answers have it in their keys.

1: as stored, transparency dropped. 2: upright, on white.
"""

MOST_PIXELS = 2 * 89_478_485
"""The largest picture that is read, in pixels: what Pillow takes unless told otherwise, which other libraries do."""

_PLAIN = {"JPEG": "image/jpeg", "PNG": "image/png"}
_SHOWN = 10
_LONGEST_NAME = 160

# What is no picture that can be read, by how it begins.
_OTHER_FILES = (
    (
        rb"version https://git-lfs\.github\.com/spec/",
        "a Git LFS pointer instead of the picture: fetch the picture with `git lfs pull`",
    ),
    (
        rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg",
        "an SVG drawing, which is not supported: convert it to PNG",
    ),
    (
        rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!doctype html|<html|<head|<body)",
        "a web page (HTML), not a picture: fetch the picture again",
    ),
    (rb"....ftyp(hei|hev|mif1|msf1)", "HEIC, which is not supported: convert it to JPEG or PNG"),
    (rb"....ftypavi[fs]", "AVIF, which this Pillow does not support: convert it to JPEG or PNG"),
    (rb"%PDF-", "a PDF, which is not supported: convert its pages to PNG"),
)
_pillow = threading.Lock()


def open_image(source: str | Path | bytes) -> Image.Image:
    """Read a picture as everybody is to see it: RGB, upright by its EXIF orientation, transparency laid on white.

    Of several frames the first. CMYK and grey pictures become RGB as Pillow converts them.

    Args:
        source: The file, or its bytes.

    Returns:
        The picture; its `filename` is the file's, for messages.

    Raises:
        OSError: It is no picture, or larger than `MOST_PIXELS`, or has pixels of 16 bits or real numbers, whose scale
            would be lost; or damaged, of which Pillow raises other kinds too.
    """
    with _opened(source) as image:
        turn = TURNS.get(orientation_of(image))
        picture = _on_white(image)
    picture = picture if turn is None else picture.transpose(turn)
    picture.filename = "" if isinstance(source, bytes) else str(source)  # type: ignore[attr-defined]
    return picture


def image_size(source: str | Path | bytes, *, stored: bool = False) -> tuple[int, int]:
    """Return the (width, height) of the picture that `open_image` gives, from the file's head where that says it.

    Args:
        source: The file, or its bytes.
        stored: Give the size of its pixels as they are stored instead.

    Raises:
        OSError: As `open_image`.
    """
    with _opened(source) as image:
        return image.size if stored else _upright_size(image)


def image_format(data: bytes) -> str | None:
    """Return Pillow's name of the format that a picture's file has, such as "JPEG"; None where there is no name.

    Raises:
        OSError: As `open_image`.
    """
    with _opened(data) as image:
        return image.format


def as_stored(source: Path | bytes) -> bytes | None:
    """Of a picture that `open_image` turns, a file that it does not turn: everybody sees the pixels as they are stored.

    For data sets whose boxes refer to the stored pixels, as COCO's do. Of a JPEG or PNG all is kept but what may hold
    an orientation; others become PNG.

    Args:
        source: The file, or its bytes.

    Returns:
        The new file's bytes; None where the picture is not turned, so that its own will do.

    Raises:
        OSError: As `open_image`.
    """
    with _opened(source) as image:
        if orientation_of(image) == 1:
            return None
        data = source if isinstance(source, bytes) else source.read_bytes()
        unturned = without_orientation(data, str(image.format))
        if unturned is not None:
            return unturned
        pixels = io.BytesIO()
        _on_white(image).save(pixels, "PNG")
        return pixels.getvalue()


def plain_bytes(file: Path) -> tuple[bytes, str] | None:
    """Return a file's bytes and their media type if every reader sees the picture that `open_image` gives.

    That is an RGB or grey JPEG or PNG that is not turned; of others None.

    Raises:
        OSError: As `open_image`.
    """
    with _opened(file) as image:
        plain = image.format in _PLAIN and image.mode in ("RGB", "L") and orientation_of(image) == 1
        plain = plain and "transparency" not in image.info and getattr(image, "n_frames", 1) == 1
        return (file.read_bytes(), _PLAIN[str(image.format)]) if plain else None


def image_problems(
    paths: Sequence[Path],
    refused: Callable[[tuple[int, int]], str | None] = lambda size: None,
    advance: Callable[[int], Any] = lambda count: None,
) -> list[str | None]:
    """Decode images to their last byte, in threads; how many are stored turned is said on stderr.

    Args:
        paths: The files.
        refused: What else is wrong with a picture of an upright (width, height), or None.
        advance: Called with 1 for every image that was looked at.

    Returns:
        For each path what is wrong with the file, or None.
    """
    # Some libraries switch this on for the whole process; half an image would then pass as whole.
    tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    problems, turned = [], 0
    try:
        with ThreadPoolExecutor() as pool:
            for problem, is_turned in pool.map(lambda path: _looked_at(path, refused), paths):
                problems.append(problem)
                turned += is_turned
                advance(1)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant
    if turned:
        print(
            f"note: {turned:,} of {len(paths):,} pictures are stored turned (EXIF orientation). Boxes refer to the "
            "upright picture, but in COCO's data sets to the pixels as they are stored",
            file=sys.stderr,
        )
    return problems


def require_images(
    files: Mapping[str, Path],
    hint: str,
    refused: Callable[[tuple[int, int]], str | None] = lambda size: None,
    advance: Callable[[int], Any] = lambda count: None,
) -> None:
    """Check images as `image_problems` does.

    Args:
        files: The files by what they are called.
        hint: What to do about bad ones.
        refused: As for `image_problems`.
        advance: As for `image_problems`.

    Raises:
        PerpoError: Some can't be used; all are counted and ten are named.
    """
    problems = image_problems(list(files.values()), refused, advance)
    bad = [f"{short_name(name)}: {problem}" for name, problem in zip(files, problems, strict=True) if problem]
    if bad:
        raise PerpoError(f"{len(bad)} of {len(files)} images cannot be used:\n  {listing(bad)}", hint)


def listing(lines: Sequence[str]) -> str:
    """Return the first ten lines and how many more there are, for a message."""
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n  ".join([*lines[:_SHOWN], *more])


def short_name(name: str) -> str:
    """Return a name for a message: one line that can be printed, and not thousands of characters."""
    half = _LONGEST_NAME // 2 - 2
    short = name if len(name) <= _LONGEST_NAME else f"{name[:half]}...{name[-half:]}"
    printable = "".join(sign if sign.isprintable() else "?" for sign in short)
    return printable if short == name else f"{printable} ({len(name):,} characters)"


def pad_to_square(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """Return an RGB image in the middle of a square as wide as its longer side, as LLaVA-1.5 pads.

    `perpo.boxes.frame_window` has the same margins for boxes in the frame "padded".
    """
    side = max(image.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


@contextmanager
def _opened(source: str | Path | bytes) -> Iterator[Image.Image]:
    """Pillow's image, of which only the head is read yet.

    Raises:
        OSError: It can't be opened, or is too large; in words, without its name.
    """
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # Pillow's default; importing lmms-eval sets it to True
    if not isinstance(source, bytes) and (problem := _path_problem(Path(source))):
        raise OSError(problem)
    try:
        with _pillow:  # its limit is of the whole process: ours is below
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except Exception as error:  # damaged files raise many kinds, SyntaxError among them
        raise OSError(_what_it_is(source, error)) from error
    with image:
        if image.width * image.height > MOST_PIXELS:
            raise OSError(
                f"{image.width:,} x {image.height:,} pixels, but at most {MOST_PIXELS:,} are allowed: make it smaller"
            )
        yield image


def _path_problem(path: Path) -> str | None:
    try:
        if path.is_dir():
            return "a folder"
        if not path.is_file():
            web = re.search(r"(^|[/\\])https?:[/\\]", str(path))
            return "a web address: download the picture and give its path" if web else "no such file"
        return None if path.stat().st_size else "an empty file"
    except OSError as error:  # a name that is too long, or in a folder that may not be read
        return f"no such file: {error.strerror}"


def _what_it_is(source: str | Path | bytes, error: Exception) -> str:
    """What a file is that Pillow does not open."""
    if isinstance(error, OSError) and error.errno is not None:
        return str(error.strerror)
    if isinstance(source, bytes):
        head = source[:1024]
    else:
        with open(source, "rb") as file:
            head = file.read(1024)
    for pattern, name in _OTHER_FILES:
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            return name
    return "not an image format that is supported" if head else "an empty file"


def _upright_size(image: Image.Image) -> tuple[int, int]:
    lies = orientation_of(image) in LYING
    return (image.height, image.width) if lies else image.size


def _on_white(image: Image.Image) -> Image.Image:
    """An image as RGB, its transparency laid on white.

    Raises:
        OSError: Its pixels have more than 8 bits without colour: Pillow would cut them off, mostly to plain white.
    """
    if image.mode[0] in "IF":
        raise OSError(_scale_lost(image))
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def _scale_lost(image: Image.Image) -> str:
    return f"{image.mode} pixels, whose scale would be lost: convert it to 8 bits"


def _looked_at(path: Path, refused: Callable[[tuple[int, int]], str | None]) -> tuple[str | None, bool]:
    """What is wrong with a file, and whether its picture has to be turned."""
    try:
        with _opened(path) as image:
            turned = orientation_of(image) != 1
            size = _upright_size(image)
            image.load()
            if image.mode[0] in "IF":
                return _scale_lost(image), False
        return refused(size), turned
    except Exception as error:  # damaged files raise many kinds, SyntaxError among them
        return " ".join(str(error).split()) or type(error).__name__, False
