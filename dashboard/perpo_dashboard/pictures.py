"""Pictures: only from the declared folders, made small once, with boxes drawn over them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st
from PIL import Image, ImageDraw

from perpo.files import atomic_write_bytes, cache_folder
from perpo.images import find_image
from perpo_dashboard.settings import settings
from perpo_dashboard.stored import Stamp, stamp

SMALL = 896
"""Pixels of the longer side of what is shown unless somebody asks for all of it."""


@dataclass(frozen=True)
class Box:
    """A box over a picture.

    Attributes:
        xyxy: Corners in pixels of the original picture.
        colour: Such as "#0072b2".
        dashed: Whether its line is broken, for who cannot tell the colours.
    """

    xyxy: tuple[float, float, float, float]
    colour: str
    dashed: bool = False


def find(image: Mapping[str, Any] | None) -> Path | None:
    """The file of a record's picture, if it has the contents that the record says; from the declared folders alone.

    Args:
        image: {sha256, path} as in `perpo.records.SAMPLE_COLUMNS`, or None.
    """
    if not image or not image.get("sha256"):
        return None
    path = str(image.get("path") or "")
    for folder in settings().roots:
        found = _found(str(image["sha256"]), path, str(folder), stamp(folder / path))
        if found is not None:
            return found
    return None


def small(file: Path, sha256: str) -> bytes:
    """The picture with `SMALL` pixels at most, encoded; made once and kept on the disk."""
    return _small(stamp(file), sha256)


def with_boxes(file: Path, sha256: str, boxes: Sequence[Box], *, whole: bool = False) -> bytes:
    """The picture with boxes over it, as PNG.

    Args:
        file: The picture.
        sha256: Of the file.
        boxes: What is drawn, the first one lowest.
        whole: Whether it keeps all its pixels.
    """
    return _drawn(stamp(file), sha256, tuple(boxes), whole)


@st.cache_data(max_entries=5000, ttl=60, show_spinner=False)  # for perpo's own cache, which the stamp is not of
def _found(sha256: str, path: str, folder: str, file: Stamp) -> Path | None:
    try:
        return find_image({"sha256": sha256, "path": path}, Path(folder))
    except (OSError, ValueError):  # no path at all: too long, or with a character that no path has
        return None


@st.cache_data(max_entries=256, show_spinner=False)
def _small(file: Stamp, sha256: str) -> bytes:
    kept = cache_folder() / "thumbnails" / f"{sha256}-{SMALL}.png"
    if not kept.is_file():
        with Image.open(file[0]) as image:
            picture = image.convert("RGB")
        picture.thumbnail((SMALL, SMALL))
        atomic_write_bytes(kept, _png(picture))
    return kept.read_bytes()


@st.cache_data(max_entries=64, show_spinner=False)
def _drawn(file: Stamp, sha256: str, boxes: tuple[Box, ...], whole: bool) -> bytes:
    with Image.open(file[0]) as image:
        width = image.width
        picture = image.convert("RGB") if whole else Image.open(io.BytesIO(_small(file, sha256)))
    if picture.width < SMALL // 2 and not whole:  # a line is never thinner than a pixel of the picture
        factor = SMALL // 2 // picture.width + 1
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    canvas = ImageDraw.Draw(picture)
    scale, line = picture.width / width, max(2, round(max(picture.size) / 250))
    for box in boxes:
        if not all(map(math.isfinite, box.xyxy)):
            continue
        # A model may answer any number: what lies beyond the picture is not drawn dash by dash.
        ends = (picture.width + line, picture.height + line) * 2
        corners = [min(max(corner * scale, -line), end) for corner, end in zip(box.xyxy, ends, strict=True)]
        _rectangle(canvas, corners, box.colour, line, dash=6 * line if box.dashed else 0)
    return _png(picture)


def _rectangle(canvas: ImageDraw.ImageDraw, box: Sequence[float], colour: str, line: int, dash: int) -> None:
    x1, x2 = sorted((box[0], box[2]))
    y1, y2 = sorted((box[1], box[3]))
    if not dash:
        canvas.rectangle((x1, y1, x2, y2), outline=colour, width=line)
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
