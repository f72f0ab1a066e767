"""The text of a page, from its lines: what is normalised, and how lines end."""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections.abc import Sequence
from typing import Literal

from perpo.prepare.pdf.reading_order import Line, is_ideograph

LineEnds = Literal["keep", "join"]
NORMALISATION = "NFC; ligatures U+FB00 to U+FB06 as letters; hyphens as -; no zero-width characters; plain spaces"
"""What is done to every text; reports say so."""

_LIGATURES = {code: unicodedata.normalize("NFKD", chr(code)) for code in range(0xFB00, 0xFB07)}
# A soft hyphen that a page shows is a hyphen; pdfium gives it as one at the end of a line only.
_ZERO_WIDTH = dict.fromkeys((0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF))
_CLEANED = {**_LIGATURES, **_ZERO_WIDTH, 0xAD: "-", 0x2010: "-", 0x2011: "-"}
_SPACES = re.compile(r"\s+")
_NEW_PARAGRAPH = 0.6  # of a line's height: a gap above a line that is larger begins a paragraph
_INDENT = 0.8  # of a line's height: a line that begins so much further right begins a paragraph


def normalise(text: str) -> str:
    """Return a line's text as a page's text holds it; see `NORMALISATION`."""
    return _SPACES.sub(" ", unicodedata.normalize("NFC", text.translate(_CLEANED))).strip()


def page_text(lines: Sequence[Line], line_ends: LineEnds) -> str:
    """Return the text of a page.

    Args:
        lines: In the order in which they are read.
        line_ends: keep: a line of the page is a line of the text, with its hyphen. join: a paragraph is a line; a
            hyphen between two small letters at the end of a line is taken out.
    """
    if line_ends == "keep":
        return "\n".join(filter(None, (normalise(line.text) for line in lines)))
    return "\n".join(filter(None, map(_joined, _paragraphs(lines))))


def _paragraphs(lines: Sequence[Line]) -> list[list[Line]]:
    paragraphs: list[list[Line]] = []
    edges = {line.column: 0.0 for line in lines}
    for column in edges:
        edges[column] = statistics.median_low(line.x0 for line in lines if line.column == column)
    for line in lines:
        before = paragraphs[-1][-1] if paragraphs else None
        height = line.y1 - line.y0
        goes_on = (
            before is not None
            and before.column == line.column
            and line.y0 - before.y1 <= _NEW_PARAGRAPH * height
            and line.x0 - edges[line.column] <= _INDENT * height
            and 0.8 <= height / max(before.y1 - before.y0, 1e-6) <= 1.25
        )
        if goes_on:
            paragraphs[-1].append(line)
        else:
            paragraphs.append([line])
    return paragraphs


def _joined(lines: Sequence[Line]) -> str:
    text = ""
    for line in lines:
        added = normalise(line.text)
        if not text or not added:
            text += added
        elif text[-1] == "-" and text[-2:-1].islower() and added[0].islower():
            text = text[:-1] + added
        elif is_ideograph(text[-1]) and is_ideograph(added[0]):
            text += added
        else:
            text += ("" if text[-1] == "-" else " ") + added
    return text
