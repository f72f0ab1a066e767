"""The checks of a page: does its text layer say what is seen?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perpo.answers import answer_of
from perpo.data.placeholders import media_mark
from perpo.prepare.pdf.parts import Character, Placed
from perpo.prepare.pdf.reading_order import Piece
from perpo.prepare.pdf.reasons import (
    LEAST_SIDE,
    OTHER_INK_SHARE,
    OUTSIDE_SHARE,
    PICTURE_SHARE,
    ROTATED_SHARE,
    STACKED_SHARE,
    UNMAPPED_SHARE,
    UNSEEN_SHARE,
    LeftOut,
)

_CONTRAST = 32  # of 255: what differs less from its surroundings is not seen
_STACKED = 8  # fewer single ideographs are no page
_BODY = 0.2  # of a letter's height at its top and bottom that is not looked at, for it may hold other lines' ink
_AROUND = 0.3  # of a piece's height around it in which ink is its own

_CONTROL = re.compile(
    r"<\|[^<>|\s]+\|>|</?s>|<(?:pad|unk|bos|eos|mask|end_of_utterance|(?:start|end)_of_turn)>|\[/?INST\]",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Limits:
    """The limits that a user gives."""

    min_characters: int
    max_characters: int
    min_height: float


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture of a size that no model is asked about.

    Raises:
        LeftOut: It is too large, or too narrow.
    """
    if width * height > max_pixels:
        raise LeftOut("too_large", f"{width} x {height} pixels")
    if min(width, height) < LEAST_SIDE:
        raise LeftOut("too_narrow", f"{width} x {height} pixels")


def check_characters(characters: Sequence[Character], size: tuple[int, int], limits: Limits) -> list[Character]:
    """Return the characters that are to be read: those that may be left out, being few, are.

    Raises:
        LeftOut: There are too few or too many, or too many that cannot be read.
    """
    letters = [character for character in characters if not character.is_space]
    if not letters:
        raise LeftOut("no_text")
    if len(letters) < limits.min_characters:
        raise LeftOut("too_little_text", f"{len(letters)} characters")
    if len(letters) > limits.max_characters:
        raise LeftOut("too_much_text", f"{len(letters)} characters")
    outside = {id(character) for character in letters if _is_outside(character.box, size)}
    _check_share("outside", len(outside), len(letters), OUTSIDE_SHARE)
    _check_share("rotated", sum(letter.rotated for letter in letters), len(letters), ROTATED_SHARE)
    leftwards = sum(
        letter.text > "\u0590" and unicodedata.bidirectional(letter.text) in ("R", "AL") for letter in letters
    )
    _check_share("right_to_left", leftwards, len(letters), 0)
    _check_share("unmapped", sum(letter.unmapped for letter in letters), len(letters), UNMAPPED_SHARE)
    height = float(np.median([letter.box[3] - letter.box[1] for letter in letters]))
    if height < limits.min_height:
        raise LeftOut("small", f"{height:.1f} pixels")
    _check_share("invisible", sum(letter.unseen for letter in letters), len(letters), UNSEEN_SHARE)
    return [
        character
        for character in characters
        if not (id(character) in outside or character.rotated or character.unmapped or character.unseen)
    ]


def check_seen(
    characters: Sequence[Character], pixels: np.ndarray[Any, Any], pictures: Sequence[Placed]
) -> list[Character]:
    """Return the characters without those under pictures and the letters that leave no ink, both being few.

    A font that is not in the file and not on this machine draws nothing, and no more does white text. Signs are
    not looked at for ink: a full stop has its ink below the others'.

    Args:
        characters: Those that are to be read.
        pixels: The picture in grey.
        pictures: Those that lie on the page.

    Raises:
        LeftOut: They are too many.
    """
    letters = [character for character in characters if not character.is_space]
    if not letters:
        return list(characters)
    boxes = np.array([letter.box for letter in letters])
    covered = _covered(boxes, np.array([letter.place for letter in letters]), pictures)
    _check_share("covered", int(covered.sum()), len(letters), UNSEEN_SHARE)
    signs = np.array([not letter.text.isalnum() for letter in letters])
    no_ink = (_edges_within(boxes, pixels) == 0) & ~signs
    _check_share("no_ink", int(no_ink.sum()), len(letters) - int(signs.sum()), UNSEEN_SHARE)
    unseen = {id(letter) for letter, is_unseen in zip(letters, covered | no_ink, strict=True) if is_unseen}
    return [character for character in characters if id(character) not in unseen]


def _covered(
    boxes: np.ndarray[Any, Any], places: np.ndarray[Any, Any], pictures: Sequence[Placed]
) -> np.ndarray[Any, Any]:
    """Say of each letter whether the middle of its box lies under a picture that is drawn later."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    covered = np.zeros(len(boxes), dtype=bool)
    for picture in pictures:
        x0, y0, x1, y1 = picture.box
        covered |= (places >= 0) & (places < picture.place) & (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
    return covered


def _edges_within(boxes: np.ndarray[Any, Any], pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """How many pixels in the middle of each box differ from the one before or above."""
    height, width = pixels.shape
    edges = np.zeros(pixels.shape, dtype=bool)
    edges[:, 1:] |= _apart(pixels[:, 1:], pixels[:, :-1]) > _CONTRAST
    edges[1:] |= _apart(pixels[1:], pixels[:-1]) > _CONTRAST
    before = np.zeros((height + 1, width + 1), dtype=np.int32)  # of each place, how many are above and left of it
    np.cumsum(edges, axis=1, dtype=np.int32, out=before[1:, 1:])
    for row in range(2, height + 1):  # twice as fast as NumPy's own sum over rows
        before[row] += before[row - 1]
    x0, y0, x1, y1 = boxes.T
    margin = _BODY * (y1 - y0)
    top, bottom = (np.clip(side, 0, height).astype(int) for side in (y0 + margin, np.ceil(y1 - margin)))
    left, right = (np.clip(side, 0, width).astype(int) for side in (x0, np.ceil(x1)))
    return before[bottom, right] - before[top, right] - before[bottom, left] + before[top, left]


def _apart(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.maximum(one, other) - np.minimum(one, other)  # without a sign, so that bytes do


def check_layout(pieces: Sequence[Piece], pixels: np.ndarray[Any, Any], pictures: Sequence[Placed]) -> None:
    """Refuse pages that are written from top to bottom, or whose ink is not that of text.

    Raises:
        LeftOut: They are.
    """
    ideographs = [piece for piece in pieces if unicodedata.east_asian_width(piece.text[0]) in "WF"]
    stacked = sum(len(piece.text) == 1 for piece in ideographs)
    # A short piece of a line is a single ideograph at times; a page of them is written from top to bottom.
    if stacked >= _STACKED:
        _check_share("vertical", stacked, sum(len(piece.text) for piece in ideographs), STACKED_SHARE)
    _check_other_ink(pieces, pixels, pictures)


def check_text(text: str) -> None:
    """Refuse a text that spells marks of models, as papers about models do.

    Such a mark stands for a picture, ends a turn, or ends a thought. Other programs would refuse all questions
    because of it, or would take only what is behind it for the truth.

    Raises:
        LeftOut: It does.
    """
    mark = media_mark(text) or next((match[0] for match in _CONTROL.finditer(text)), None)
    if mark is None and answer_of(text, "text") != text:
        mark = "marks of a thought or an answer"
    if mark is not None:
        raise LeftOut("mark", mark[:40])


def _check_share(reason: str, count: int, total: int, most: float) -> None:
    if count > most * total:
        raise LeftOut(reason, f"{count} of {total} characters")


def _is_leftwards(text: str) -> bool:
    return text > "\u0590" and unicodedata.bidirectional(text) in ("R", "AL")


def _is_outside(box: tuple[float, float, float, float], size: tuple[int, int]) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return not (0 <= x <= size[0] and 0 <= y <= size[1])


def _part(piece: Piece, shape: tuple[int, ...], above: float, beside: float) -> tuple[slice, slice]:
    """The rows and columns of the pixels of a piece, made larger by so many pixels; at least one of each."""
    top, left = max(int(piece.y0 - above), 0), max(int(piece.x0 - beside), 0)
    bottom, right = max(int(piece.y1 + above) + 1, top + 1), max(int(piece.x1 + beside) + 1, left + 1)
    return slice(min(top, shape[0] - 1), bottom), slice(min(left, shape[1] - 1), right)


def _check_other_ink(pieces: Sequence[Piece], pixels: np.ndarray[Any, Any], pictures: Sequence[Placed]) -> None:
    height, width = pixels.shape
    covered = np.zeros(pixels.shape, dtype=bool)
    for picture in pictures:
        x0, y0, x1, y1 = (max(round(side), 0) for side in picture.box)
        covered[y0:y1, x0:x1] = True
    share = float(covered.sum()) / (height * width)
    if share > PICTURE_SHARE:
        raise LeftOut("mostly_picture", f"{share:.0%} of the page")
    ground = int(np.bincount(pixels.ravel(), minlength=256).argmax())
    ink = (pixels < ground - _CONTRAST) | (pixels > ground + _CONTRAST)
    whole = int(ink.sum())
    for piece in pieces:
        ink[_part(piece, pixels.shape, _AROUND * piece.height, _AROUND * piece.height)] = False
    other = int(ink.sum())
    if other > OTHER_INK_SHARE * whole:
        raise LeftOut("other_ink", f"{other / whole:.0%} of the ink")
