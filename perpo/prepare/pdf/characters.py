"""The characters of a PDF page, in the order in which it draws them, and where they are seen."""

from __future__ import annotations

import ctypes
import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pypdfium2.raw as pdfium

from perpo.prepare.pdf.reasons import LeftOut

_UNITS = 1_000_000  # into so many parts a page's sides are divided, for pdfium gives places as whole numbers
_HYPHEN = 0x02  # pdfium's code for a hyphen at the end of a line
_UPRIGHT = math.radians(5)
_UNSEEN_MODES = (pdfium.FPDF_TEXTRENDERMODE_INVISIBLE, pdfium.FPDF_TEXTRENDERMODE_CLIP)
_NO_CHARACTERS = ("Cc", "Cn", "Co", "Cs")  # controls, none at all, private use, halves of surrogates
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Character:
    """One character.

    Attributes:
        text: The character; "\\n" where a line ends and " " between words.
        box: Left, top, right, bottom in pixels of the picture, from its upper left corner.
        added: Whether pdfium added it, as a space where there is only a gap.
        rotated: Whether it does not stand upright in the picture.
        unseen: Whether the PDF says that it is not to be painted.
        unmapped: Whether its code stands for no known character.
        place: Where in the page's order of things it is drawn; -1 where that is not known.
    """

    text: str
    box: tuple[float, float, float, float]
    added: bool = False
    rotated: bool = False
    unseen: bool = False
    unmapped: bool = False
    place: int = -1

    @property
    def is_space(self) -> bool:
        return self.text.isspace()


@dataclass(frozen=True)
class Placed:
    """A picture on a page: its box in pixels, and where in the page's order of things it is drawn."""

    box: tuple[float, float, float, float]
    place: int


class ToPixels:
    """Places of a page in pixels of its picture, whatever its box and its rotation."""

    def __init__(self, page: Any, width: int, height: int) -> None:
        self._start = _on_device(page, 0, 0)
        x, y = _on_device(page, page.get_width(), 0), _on_device(page, 0, page.get_height())
        self._by_x = [(end - start) / page.get_width() for end, start in zip(x, self._start, strict=True)]
        self._by_y = [(end - start) / page.get_height() for end, start in zip(y, self._start, strict=True)]
        self._size = width, height

    def box(self, left: float, bottom: float, right: float, top: float) -> tuple[float, float, float, float]:
        """Return left, top, right, bottom in pixels."""
        first, second = self._point(left, bottom), self._point(right, top)
        (x0, x1), (y0, y1) = (sorted(pair) for pair in zip(first, second, strict=True))
        return x0, y0, x1, y1

    def _point(self, x: float, y: float) -> list[float]:
        parts = zip(self._start, self._by_x, self._by_y, self._size, strict=True)
        return [(start + by_x * x + by_y * y) / _UNITS * size for start, by_x, by_y, size in parts]


def _on_device(page: Any, x: float, y: float) -> tuple[int, int]:
    across, down = ctypes.c_int(), ctypes.c_int()
    pdfium.FPDF_PageToDevice(page, 0, 0, _UNITS, _UNITS, 0, x, y, across, down)
    return across.value, down.value


def read_characters(page: Any, to_pixels: ToPixels, most: int) -> list[Character]:
    """Return what the text layer of a page holds; nothing where it has none.

    Raises:
        LeftOut: It has more than `most` characters, spaces counted, which takes long to read.
    """
    places, unseen = {}, set()
    for place, item in enumerate(page.get_objects(max_depth=1)):
        if item.type == pdfium.FPDF_PAGEOBJ_TEXT:
            places[_address(item.raw)] = place
    text_page = page.get_textpage()
    try:
        count = max(pdfium.FPDFText_CountChars(text_page), 0)
        if count > most:
            raise LeftOut("too_much_text", f"{count} characters with spaces")
        found = []
        turned = math.radians(page.get_rotation())
        for index in range(count):
            owner = pdfium.FPDFText_GetTextObject(text_page, index)
            address = _address(owner) if owner else 0
            if owner and address not in unseen and pdfium.FPDFTextObj_GetTextRenderMode(owner) in _UNSEEN_MODES:
                unseen.add(address)
            found.append(_character(text_page, index, to_pixels, turned, address in unseen, places.get(address, -1)))
        return found
    finally:
        text_page.close()


def _address(pointer: Any) -> int:
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


def _character(
    text_page: Any, index: int, to_pixels: ToPixels, turned: float, unseen: bool, place: int
) -> Character:
    code = pdfium.FPDFText_GetUnicode(text_page, index)
    added = pdfium.FPDFText_IsGenerated(text_page, index) == 1
    text = "-" if code == _HYPHEN else _as_text(code)
    if added and text != "-":
        return Character("\n" if text in "\r\n" else " ", (0.0, 0.0, 0.0, 0.0), added=True)
    if text.isspace():
        text = " "
    box = pdfium.FS_RECTF()
    pdfium.FPDFText_GetLooseCharBox(text_page, index, box)
    angle = pdfium.FPDFText_GetCharAngle(text_page, index) - turned
    return Character(
        text,
        to_pixels.box(box.left, box.bottom, box.right, box.top),
        rotated=abs(math.remainder(angle, math.tau)) > _UPRIGHT,
        unseen=unseen,
        unmapped=text != " "
        and (_is_none(text) or pdfium.FPDFText_HasUnicodeMapError(text_page, index) == 1),
        place=place,
    )


def _as_text(code: int) -> str:
    return chr(code) if code <= 0x10FFFF else _REPLACEMENT


def _is_none(text: str) -> bool:
    return text == _REPLACEMENT or unicodedata.category(text) in _NO_CHARACTERS


def pictures_of(page: Any, to_pixels: ToPixels) -> Iterator[Placed]:
    """Yield the pictures that lie directly on a page; those within forms have no place of their own."""
    for place, item in enumerate(page.get_objects(max_depth=1)):
        if item.type == pdfium.FPDF_PAGEOBJ_IMAGE:
            yield Placed(to_pixels.box(*item.get_bounds()), place)
