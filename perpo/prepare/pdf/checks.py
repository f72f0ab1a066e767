"""The checks of a page: does its text layer say what is seen?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perpo.data.placeholders import media_mark
from perpo.prepare.pdf.characters import Character, Placed
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
_BODY = 0.2  # of a piece's height at its top and bottom that is not looked at, for it may hold other lines' ink
_AROUND = 0.3  # of a piece's height around it in which ink is its own

_CONTROL = re.compile(
    r"<\|[^<>|\s]+\|>|</?s>|<(?:pad|unk|bos|eos|mask|end_of_utterance|(?:start|end)_of_turn)>|\[/?INST\]", re.IGNORECASE
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


def check_pieces(pieces: Sequence[Piece], pixels: np.ndarray[Any, Any], pictures: Sequence[Placed]) -> list[Piece]:
    """Return the pieces of lines that are seen on the picture: those that are not, being few, are left out.

    Args:
        pieces: Of the characters that are to be read.
        pixels: The picture in grey.
        pictures: What lies on the page beside text.

    Raises:
        LeftOut: What is seen is not what the text says.
    """
    total = sum(len(piece.text) for piece in pieces)
    ideographs = [piece for piece in pieces if unicodedata.east_asian_width(piece.text[0]) in "WF"]
    stacked = sum(len(piece.text) == 1 for piece in ideographs)
    # A short piece of a line is a single ideograph at times; a page of them is written from top to bottom.
    if stacked >= 8:
        _check_share("vertical", stacked, sum(len(piece.text) for piece in ideographs), STACKED_SHARE)
    covered = {id(piece) for piece in pieces if any(_covers(picture, piece) for picture in pictures)}
    _check_share("covered", sum(len(piece.text) for piece in pieces if id(piece) in covered), total, UNSEEN_SHARE)
    no_ink = {id(piece) for piece in pieces if not _has_ink(piece, pixels)}
    _check_share("no_ink", sum(len(piece.text) for piece in pieces if id(piece) in no_ink), total, UNSEEN_SHARE)
    _check_other_ink(pieces, pixels, pictures)
    return [piece for piece in pieces if id(piece) not in covered | no_ink]


def check_text(text: str) -> None:
    """Refuse a text that spells what stands for a picture, or ends a turn, in a model's prompt: papers about models do.

    Raises:
        LeftOut: It does. Programs that read the questions would refuse them all because of it.
    """
    mark = media_mark(text) or next((match[0] for match in _CONTROL.finditer(text)), None)
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


def _covers(picture: Placed, piece: Piece) -> bool:
    place = piece.characters[0].place
    x0, y0, x1, y1 = picture.box
    return 0 <= place < picture.place and x0 <= (piece.x0 + piece.x1) / 2 <= x1 and y0 <= piece.middle <= y1


def _has_ink(piece: Piece, pixels: np.ndarray[Any, Any]) -> bool:
    if not any(map(str.isalnum, piece.text)):
        return True  # a full stop has its ink below what is looked at
    rows, columns = _part(piece, pixels.shape, -_BODY * piece.height, 0)
    body = pixels[rows, columns]
    return body.size == 0 or int(body.max()) - int(body.min()) > _CONTRAST


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
