"""Pages of PDF files as pictures, by PDFium."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from perpo.errors import PerpoError

if TYPE_CHECKING:
    from PIL import Image

ImageFormat = Literal["png", "jpeg"]
_SAVED: dict[ImageFormat, tuple[str, dict[str, int]]] = {
    "png": ("PNG", {"compress_level": 3}),
    "jpeg": ("JPEG", {"quality": 90}),
}
_POINTS_PER_INCH = 72


def renderer() -> Any:
    """Return the module that reads PDF files.

    Raises:
        PerpoError: It is not installed.
    """
    try:
        import pypdfium2
    except ImportError as error:
        raise PerpoError("pypdfium2, which reads PDF files, is not installed", "pip install 'perpo[pdf]'") from error
    return pypdfium2


def scale_of(size: tuple[float, float], longest_side: int | None, dpi: float | None) -> float:
    """Return pixels a point, for a page of (width, height) points: by its longer side in pixels, or by pixels an inch.

    It is a little less, since pypdfium2 rounds up: 1400.0000001 would become 1401.
    """
    return ((dpi / _POINTS_PER_INCH) if dpi else (longest_side or 0) / max(size)) * (1 - 1e-9)


def picture_of(page: Any, scale: float, *, notes: bool) -> Image.Image:
    """Return the picture of a page, in grey if it has no colour.

    Args:
        page: The opened page.
        scale: Pixels a point.
        notes: Whether notes and fields of forms are drawn. They are in no text layer.
    """
    picture = page.render(scale=scale, draw_annots=notes, may_draw_forms=notes).to_pil().convert("RGB")
    pixels = np.asarray(picture)
    if (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all():
        return picture.getchannel(0)
    return picture


def saved(picture: Image.Image, image_format: ImageFormat) -> bytes:
    """Return a picture as the bytes of a file."""
    kind, options = _SAVED[image_format]
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


@contextmanager
def _opened(pdf: Path) -> Iterator[Any]:
    pypdfium2 = renderer()
    try:
        document = pypdfium2.PdfDocument(pdf)
    except (OSError, pypdfium2.PdfiumError) as error:
        raise PerpoError(f"{pdf} cannot be read: {error}", "fetch it again") from error
    try:
        yield document
    finally:
        document.close()


def page_count(pdf: Path) -> int:
    """Return how many pages a PDF has.

    Raises:
        PerpoError: It can't be read.
    """
    with _opened(pdf) as document:
        return len(document)


def page_png(pdf: Path, number: int, longest_side: int) -> bytes:
    """Return a page as a PNG, as a reader sees it: with its notes.

    Args:
        pdf: The file.
        number: Of the page, from 1.
        longest_side: Pixels of the longer side.

    Raises:
        PerpoError: It can't be read.
    """
    with _opened(pdf) as document:
        page = document[number - 1]
        picture = picture_of(page, scale_of(page.get_size(), longest_side, None), notes=True)
        page.close()
    return saved(picture, "png")


def glance(pdf: Path, longest_side: int | None, dpi: float | None) -> tuple[int, list[tuple[tuple[int, int], str]]]:
    """Return how many pages a PDF has, and of its first and middle one the picture's size and the raw text layer.

    A file that cannot be read has none.
    """
    try:
        with _opened(pdf) as document:
            pages = []
            for number in sorted({0, len(document) // 2}) if len(document) else []:
                page = document[number]
                scale = scale_of(page.get_size(), longest_side, dpi)
                width, height = (max(1, math.ceil(side * scale)) for side in page.get_size())
                pages.append(((width, height), page.get_textpage().get_text_bounded()))
                page.close()
            return len(document), pages
    except (PerpoError, renderer().PdfiumError, ZeroDivisionError, ValueError):
        return 0, []
