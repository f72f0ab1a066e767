"""A page of a PDF as a picture."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perpo.errors import PerpoError


@contextmanager
def _opened(pdf: Path) -> Iterator[Any]:
    try:
        import pypdfium2
    except ImportError as error:
        raise PerpoError("reading PDFs needs pypdfium2", "pip install 'perpo[pages]'") from error
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
    """Return a page as a PNG.

    Args:
        pdf: The file.
        number: Of the page, from 1.
        longest_side: Pixels of the longer side.

    Raises:
        PerpoError: It can't be read.
    """
    with _opened(pdf) as document:
        page = document[number - 1]
        picture = page.render(scale=longest_side / max(page.get_size())).to_pil().convert("RGB")
        page.close()
    held = io.BytesIO()
    picture.save(held, "PNG")
    return held.getvalue()
