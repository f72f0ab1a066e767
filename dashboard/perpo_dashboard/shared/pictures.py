"""Pictures: only from the declared folders, made small once, with boxes drawn over them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image, ImageDraw, ImageFont

from perpo.common.files import atomic_write_bytes, cache_folder
from perpo.data.embedded import find_image
from perpo.data.images import PICTURES_VERSION, image_size, open_image, short_name
from perpo.errors import PerpoError
from perpo_dashboard.shared.settings import settings
from perpo_dashboard.shared.stored import Stamp, stamp

Window = tuple[int, int, int, int]

SMALL = 896
"""Pixels of the longer side of what is shown unless somebody asks for all of it."""


@dataclass(frozen=True)
class Box:
    """A box over a picture.

    Attributes:
        xyxy: Corners in pixels of the original picture.
        colour: Such as "#0072b2".
        dashed: Whether its line is broken, for who cannot tell the colours.
        label: What is written at its corner, if anything.
    """

    xyxy: tuple[float, float, float, float]
    colour: str
    dashed: bool = False
    label: str = ""


def find(image: Mapping[str, Any] | None) -> Path | None:
    """Return the file of a record's picture, if it has the contents that the record says; from the declared folders
    alone.

    Args:
        image: {sha256, path} as in `perpo.records.run_record.SAMPLE_COLUMNS`, or None.
    """
    if not image or not image.get("sha256"):
        return None
    path = str(image.get("path") or "")
    for folder in settings().roots:
        file = _found(str(image["sha256"]), path, str(folder), stamp(folder / path))
        if file is not None:
            return file
    return None


def size(file: Path) -> tuple[int, int]:
    """Return width and height of a picture in pixels, whatever a record says of it.

    Raises:
        PerpoError: It cannot be read.
    """
    with _told(file):
        return image_size(file)


def small(file: Path, sha256: str) -> bytes:
    """Return the picture with `SMALL` pixels at most, encoded; made once and kept on the disk.

    Raises:
        PerpoError: It cannot be read.
    """
    return _small(stamp(file), sha256)


def with_boxes(
    file: Path,
    image: Mapping[str, Any],
    boxes: Sequence[Box],
    *,
    window: Window | None = None,
    whole: bool = False,
) -> bytes:
    """Return the picture with boxes over it, as PNG.

    Args:
        file: The picture.
        image: What a record says of it: its sha256, and if anything its width and height.
        boxes: What is drawn, the first one lowest.
        window: The part that is shown, corners in pixels of the original; by default all of it.
        whole: Whether it keeps all its pixels.

    Raises:
        PerpoError: The picture cannot be read, or a run saw it in another size, as runs before pictures were turned
            upright: its boxes refer to another picture.
    """
    seen, upright_size = (image.get("width"), image.get("height")), size(file)
    if None not in seen and seen != upright_size:
        raise PerpoError(
            f"the run saw {short_name(file.name)} as {seen[0]} x {seen[1]} pixels, upright it has {upright_size[0]} x "
            f"{upright_size[1]}",
            "run the evaluation again: pictures are now turned upright",
        )
    return _drawn(stamp(file), str(image["sha256"]), tuple(boxes), window, whole)


def around(boxes: Sequence[Box], size: tuple[int, int]) -> Window:
    """Return the part of a picture that boxes lie in, with some of what is around them, as wide for its height as the
    picture.

    Args:
        boxes: What is to be seen, at least one.
        size: Width and height of the picture in pixels.
    """
    corners = np.array([box.xyxy for box in boxes if all(map(math.isfinite, box.xyxy))] or [(0, 0, *size)])
    ends = np.clip(corners.reshape(-1, 2), 0, size)
    low, high = ends.min(0), ends.max(0)
    part = min(1.0, 1.5 * float(((high - low) / size).max()) + 8 / max(size))
    half = part * np.array(size) / 2
    middle = np.clip((low + high) / 2, half, size - half)
    x1, y1, x2, y2 = (round(float(end)) for end in (*(middle - half), *(middle + half)))
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


@contextmanager
def _told(file: str | Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # damaged files raise many kinds, SyntaxError among them
        told = " ".join(str(error).split()) or type(error).__name__
        raise PerpoError(
            f"the picture {short_name(str(file))} cannot be read: {told}", "check that its file is complete"
        ) from error


@st.cache_data(max_entries=5000, ttl=60, show_spinner=False)  # for perpo's own cache, which the stamp is not of
def _found(sha256: str, path: str, folder: str, file: Stamp) -> Path | None:
    return find_image({"sha256": sha256, "path": path}, Path(folder))


@st.cache_data(max_entries=256, show_spinner=False)
def _small(file: Stamp, sha256: str) -> bytes:
    kept = cache_folder() / "thumbnails" / f"{sha256}-{SMALL}-{PICTURES_VERSION}.png"
    if not kept.is_file():
        with _told(file[0]):
            picture = open_image(file[0])
        picture.thumbnail((SMALL, SMALL))
        data = _png(picture)
        with suppress(OSError, PerpoError):  # a cache that cannot be written to costs time only
            atomic_write_bytes(kept, data)
        return data
    return kept.read_bytes()


@st.cache_data(max_entries=64, show_spinner=False)
def _drawn(file: Stamp, sha256: str, boxes: tuple[Box, ...], window: Window | None, whole: bool) -> bytes:
    if whole or window:
        with _told(file[0]):
            picture = open_image(file[0])
        part = window or (0, 0, *picture.size)
    else:
        picture, part = open_image(_small(file, sha256)), (0, 0, *size(Path(file[0])))
    if window:
        picture = picture.crop(window)
        picture.thumbnail((SMALL, SMALL))
    if max(picture.size) < SMALL // 2 and not whole:  # a line is never thicker than what it shows
        factor = SMALL // 2 // max(picture.size) + 1
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    canvas = ImageDraw.Draw(picture)
    scale, line = picture.width / (part[2] - part[0]), max(3, round(max(picture.size) / 220))
    # A model may answer any number: what lies beyond the picture is not drawn dash by dash.
    ends = (picture.width + line, picture.height + line)
    placed = [
        (box, [min(max((end - part[n % 2]) * scale, -line), ends[n % 2]) for n, end in enumerate(box.xyxy)])
        for box in boxes
        if all(map(math.isfinite, box.xyxy))
    ]
    for box, corners in placed:
        dash = 6 * line if box.dashed else 0
        _rectangle(canvas, corners, "#ffffff", line + 2, dash)  # so that it is seen on any colour
        _rectangle(canvas, corners, box.colour, line, dash)
    for number, (box, corners) in enumerate(placed):
        if box.label:
            _label(canvas, corners, box, number % 4, size=5 * line)
    return _png(picture)


def _label(canvas: ImageDraw.ImageDraw, corners: Sequence[float], box: Box, place: int, size: int) -> None:
    """A box's name in a field of its colour at one of its corners, each box at another one; within the picture."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = canvas.textbbox((0, 0), box.label, font=font)
    width, height = right - left + size // 2, bottom - top + size // 2
    x1, x2 = sorted((corners[0], corners[2]))
    y1, y2 = sorted((corners[1], corners[3]))
    x = (x1, x1, x2 - width, x2 - width)[place]
    y = (y1 - height, y2, y1 - height, y2)[place]
    limit = canvas.im.size
    x, y = (min(max(0, at), end - own) for at, end, own in zip((x, y), limit, (width, height), strict=True))
    canvas.rectangle((x, y, x + width, y + height), fill=box.colour)
    canvas.text((x + size // 4 - left, y + size // 4 - top), box.label, fill="#ffffff", font=font)


def _rectangle(canvas: ImageDraw.ImageDraw, box: Sequence[float], colour: str, line: int, dash: int) -> None:
    """A frame whose line has its middle on the box's edge; `dash` is the length of its dashes, 0 for none."""
    x1, x2 = sorted((box[0], box[2]))
    y1, y2 = sorted((box[1], box[3]))
    half = line / 2
    if not dash:
        canvas.rectangle((x1 - half, y1 - half, x2 + half, y2 + half), outline=colour, width=line)
        return
    for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
        length = abs(end[0] - start[0]) + abs(end[1] - start[1])
        for place in range(0, int(length), 2 * dash):
            one, other = place / length, min(place + dash, length) / length
            ends = [(s + (e - s) * part) for part in (one, other) for s, e in zip(start, end, strict=True)]
            canvas.line(ends, fill=colour, width=line)


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG", compress_level=1)
    return data.getvalue()
