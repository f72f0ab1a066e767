"""One PDF file: each of its pages becomes a picture and a text, or is left out for a reason."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium

from perpo.common.files import disk_error, disk_errors
from perpo.prepare.pdf.characters import ToPixels, pictures_of, read_characters
from perpo.prepare.pdf.checks import Limits, check_characters, check_layout, check_seen, check_size, check_text
from perpo.prepare.pdf.parts import Character
from perpo.prepare.pdf.reading_order import columns_beside, pieces_of, read_lines
from perpo.prepare.pdf.reasons import LeftOut
from perpo.prepare.pdf.rendering import ImageFormat, picture_of, saved, scale_of
from perpo.prepare.pdf.text import LineEnds, page_text

_ENDINGS = {"png": "png", "jpeg": "jpg"}
_WITH_SPACES = 3  # no text has more than two spaces or ends of lines for a character


@dataclass(frozen=True)
class PageSettings:
    """All that a page's picture and text depend on, beside the file.

    Attributes:
        longest_side: Of a picture in pixels; None with a `dpi`.
        dpi: Pixels an inch; None with a `longest_side`.
        max_pixels: A page of more is left out before it is rendered.
        max_pages: A document of more is left out.
        image_format: Of the pictures.
        line_ends: See `page_text`.
        limits: Of the text.
    """

    longest_side: int | None
    dpi: float | None
    max_pixels: int
    max_pages: int
    image_format: ImageFormat
    line_ends: LineEnds
    limits: Limits


def read_document(
    path: Path, stem: str, images: Path, settings: PageSettings, done: Callable[[int], None]
) -> dict[str, Any]:
    """Write the pictures of a document's pages, and return what was found.

    Args:
        path: The PDF file.
        stem: What the pictures' names begin with.
        images: Folder for them.
        settings: See `PageSettings`.
        done: Called after each page with its number, from 1; with 0 when the document is open.

    Returns:
        `reason` and `detail` of a document that is left out, or `pages`: for each its `page`, and `reason` and
        `detail`, or `image`, `bytes`, `pixels` (a digest), `size`, `text`, `columns` and how many
        letters of its text layer are not in it (`lost`).
    """
    try:
        document = _opened(path)
    except LeftOut as left_out:
        return {"reason": left_out.reason, "detail": left_out.detail}
    try:
        count = len(document)
        if count == 0:
            return {"reason": "no_pages", "detail": ""}
        if count > settings.max_pages:
            return {"reason": "too_many_pages", "detail": f"{count} pages"}
        done(0)
        pages = []
        for number in range(1, count + 1):
            try:
                told = _read_page(document, number, f"{stem}-{number:04d}", images, settings)
            except LeftOut as left_out:
                told = {"reason": left_out.reason, "detail": left_out.detail}
            except Exception as error:  # whatever a file leads to
                if disk_error(error) is not None:
                    raise
                told = {"reason": "page_broken", "detail": f"{type(error).__name__}: {error}"[:200]}
            pages.append({"page": number, **told})
            done(number)
        return {"pages": pages}
    finally:
        document.close()


def _opened(path: Path) -> Any:
    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        code = getattr(error, "err_code", None)
        if code in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
            raise LeftOut("encrypted") from error
        raise LeftOut("not_readable" if code == pdfium.FPDF_ERR_FILE else "broken") from error


def _read_page(document: Any, number: int, stem: str, images: Path, settings: PageSettings) -> dict[str, Any]:
    try:
        page = document[number - 1]
    except pypdfium2.PdfiumError as error:
        raise LeftOut("page_broken") from error
    try:
        width, height, scale = _size(page, settings)
        to_pixels = ToPixels(page, width, height)
        most = _WITH_SPACES * settings.limits.max_characters
        letters = read_characters(page, to_pixels, most)
        characters = check_characters(letters, (width, height), settings.limits)
        picture = picture_of(page, scale, notes=False)
        grey = np.asarray(picture.convert("L"))
        pictures = pictures_of(page, to_pixels)
        pieces = pieces_of(check_seen(characters, grey, pictures))
        check_layout(pieces, grey, pictures)
        lost = _letters(letters) - sum(_letters(piece.characters) for piece in pieces)
        lines = read_lines(pieces)
        text = page_text(lines, settings.line_ends)
        check_text(text)
    finally:
        page.close()
    data = saved(picture, settings.image_format)
    file = images / f"{stem}.{_ENDINGS[settings.image_format]}"
    with disk_errors(file):
        file.write_bytes(data)
    return {
        "image": file.name,
        "bytes": len(data),
        "pixels": hashlib.sha256(picture.tobytes()).hexdigest(),
        "size": [picture.width, picture.height],
        "text": text,
        "columns": columns_beside(lines),
        "lost": lost,
    }


def _letters(characters: Iterable[Character]) -> int:
    return sum(not character.is_space for character in characters)


def _size(page: Any, settings: PageSettings) -> tuple[int, int, float]:
    """Width and height of a page's picture in pixels, and its scale in pixels a point."""
    width, height = page.get_size()
    if not (0 < width < float("inf") and 0 < height < float("inf")):
        raise LeftOut("page_broken", f"{width} x {height} points")
    scale = scale_of((width, height), settings.longest_side, settings.dpi)
    across, down = (math.ceil(side * scale) for side in (width, height))
    check_size(across, down, settings.max_pixels)
    return across, down, scale
