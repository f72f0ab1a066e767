"""The characters of a PDF page, in the order in which it draws them, and where they are seen."""

from __future__ import annotations

import ctypes
import math
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pypdfium2.raw as pdfium

from perpo.prepare.pdf.parts import Character, Placed
from perpo.prepare.pdf.reasons import LeftOut

_UNITS = 1_000_000  # into so many parts a page's sides are divided, for pdfium gives places as whole numbers
_HYPHEN = 0x02  # pdfium's code for a hyphen at the end of a line
_LINE_ENDS = (0x0A, 0x0D)
_MAYBE_ADDED = (0x20, *_LINE_ENDS)  # what pdfium adds by itself
_UPRIGHT = math.radians(5)
_UNSEEN_MODES = (pdfium.FPDF_TEXTRENDERMODE_INVISIBLE, pdfium.FPDF_TEXTRENDERMODE_CLIP)
_NO_CHARACTERS = ("Cc", "Cn", "Co", "Cs")  # controls, none at all, private use, halves of surrogates
_REPLACEMENT = "\ufffd"


class ToPixels:
    """Places of a page in pixels of its picture, whatever its box and its rotation."""

    def __init__(self, page: Any, width: int, height: int) -> None:
        self._start = _on_device(page, 0, 0)
        x, y = _on_device(page, page.get_width(), 0), _on_device(page, 0, page.get_height())
        self._by_x = [(end - start) / page.get_width() for end, start in zip(x, self._start, strict=True)]
        self._by_y = [(end - start) / page.get_height() for end, start in zip(y, self._start, strict=True)]
        self._size = width, height

    def boxes(self, sides: Sequence[tuple[float, float, float, float]]) -> list[tuple[float, float, float, float]]:
        """Return left, top, right, bottom in pixels of boxes given as left, bottom, right, top in points."""
        if not sides:
            return []
        corners = np.array(sides).reshape(-1, 2, 2)
        moved = (self._start + corners @ np.array([self._by_x, self._by_y])) / _UNITS * self._size
        low, high = moved.min(axis=1), moved.max(axis=1)
        return list(map(tuple, np.hstack([low, high]).tolist()))


def _on_device(page: Any, x: float, y: float) -> tuple[int, int]:
    across, down = ctypes.c_int(), ctypes.c_int()
    pdfium.FPDF_PageToDevice(page, 0, 0, _UNITS, _UNITS, 0, x, y, across, down)
    return across.value, down.value


def read_characters(page: Any, to_pixels: ToPixels, most: int) -> list[Character]:
    """Return what the text layer of a page holds; nothing where it has none.

    Raises:
        LeftOut: It has more than `most` characters, spaces counted, which takes long to read.
    """
    places = {
        bytes(item.raw): place
        for place, item in enumerate(page.get_objects(max_depth=1))
        if item.type == pdfium.FPDF_PAGEOBJ_TEXT
    }
    text_page = page.get_textpage()
    try:
        count = max(pdfium.FPDFText_CountChars(text_page), 0)
        if count > most:
            raise LeftOut("too_much_text", f"{count} characters with spaces")
        return _read(text_page.raw, count, to_pixels, math.radians(page.get_rotation()), places)
    finally:
        text_page.close()


def _read(text: Any, count: int, to_pixels: ToPixels, turned: float, places: dict[bytes, int]) -> list[Character]:
    characters, sides = [], []
    box = pdfium.FS_RECTF()
    drawn: dict[bytes, tuple[bool, bool, int]] = {}
    for index in range(count):
        code = pdfium.FPDFText_GetUnicode(text, index)
        if code in _MAYBE_ADDED and pdfium.FPDFText_IsGenerated(text, index) == 1:
            characters.append(Character("\n" if code in _LINE_ENDS else " ", added=True))
            sides.append((0.0, 0.0, 0.0, 0.0))
            continue
        owner = pdfium.FPDFText_GetTextObject(text, index)
        key = bytes(owner)  # the address
        if key not in drawn:
            drawn[key] = (*_how_drawn(text, index, owner, turned), places.get(key, -1))
        pdfium.FPDFText_GetLooseCharBox(text, index, box)
        sides.append((box.left, box.bottom, box.right, box.top))
        letter = "-" if code == _HYPHEN else _as_text(code)
        if letter.isspace():
            letter = " "
        unmapped = letter != " " and (_is_none(letter) or pdfium.FPDFText_HasUnicodeMapError(text, index) == 1)
        rotated, unseen, place = drawn[key]
        characters.append(Character(letter, rotated=rotated, unseen=unseen, unmapped=unmapped, place=place))
    for character, there in zip(characters, to_pixels.boxes(sides), strict=True):
        character.box = there
    return characters


def _how_drawn(text: Any, index: int, owner: Any, turned: float) -> tuple[bool, bool]:
    """Say whether a piece of text is rotated, and whether it is not painted."""
    angle = pdfium.FPDFText_GetCharAngle(text, index) + turned  # clockwise
    unseen = bool(owner) and pdfium.FPDFTextObj_GetTextRenderMode(owner) in _UNSEEN_MODES
    return abs(math.remainder(angle, math.tau)) > _UPRIGHT, unseen


def _as_text(code: int) -> str:
    return chr(code) if code <= 0x10FFFF else _REPLACEMENT


@lru_cache(maxsize=8192)
def _is_none(text: str) -> bool:
    return text == _REPLACEMENT or unicodedata.category(text) in _NO_CHARACTERS


def pictures_of(page: Any, to_pixels: ToPixels) -> list[Placed]:
    """Return the pictures that lie directly on a page; those within forms have no place of their own."""
    characters = [
        (place, item.get_bounds())
        for place, item in enumerate(page.get_objects(max_depth=1))
        if item.type == pdfium.FPDF_PAGEOBJ_IMAGE
    ]
    boxes = to_pixels.boxes([bounds for _, bounds in characters])
    return [Placed(box, place) for (place, _), box in zip(characters, boxes, strict=True)]
