"""Loops: answers whose end says one thing over and over, as models fall into with long pages.

What counts as a loop is declared here, once for all programs. It is a rule about texts, so that it holds for every
engine alike. olmOCR's own rule of five characters (`perpo.texts.unit_tests`) is another one, and stays beside it.
"""

from __future__ import annotations

REPEATS = 4
"""A loop says its unit at least so many times; the first may be cut at its start."""
LEAST_CHARACTERS = 400
"""A loop has at least so many characters: rows of dots, rules and a few empty rows of a table are no loops."""
LONGEST_UNIT = 2000
"""The unit has at most so many characters, blanks included."""

# What stands for bytes that are no whole letter, and the most bytes of a letter.
_HALF, _MOST_BYTES = "\ufffd", 4
# Whatever the unit, so many characters at the end of a loop stand in it once more, a unit earlier.
_SEEN_BEFORE = LEAST_CHARACTERS * (REPEATS - 1) // REPEATS


def ends_in_loop(text: str) -> bool:
    """Return whether a text ends in a loop: one unit again and again, letter by letter, up to its last character.

    A loop that counts ("1. the item", "2. the item") is not noticed, for no unit stands there twice.

    Args:
        text: All that was said, the blanks at its end included: a loop may be of blanks alone. A last letter of which
            the token limit left a part of its bytes does not count.
    """
    halves = len(text) - len(text.rstrip(_HALF))
    return _loops(text) or (0 < halves < _MOST_BYTES and _loops(text[:-halves]))


def _loops(text: str) -> bool:
    start = len(text) - _SEEN_BEFORE
    last, place = text[max(0, start) :], start
    first = max(0, start - LONGEST_UNIT)
    while place > 0 and (place := text.rfind(last, first, place + _SEEN_BEFORE - 1)) >= 0:
        if _repeats(text, start - place):
            return True
    return False


def _repeats(text: str, size: int) -> bool:
    """Whether the end is a loop whose unit has this size: each character is as the one that stands a unit before."""
    length = max(LEAST_CHARACTERS, REPEATS * size)
    return length <= len(text) and text[size - length :] == text[len(text) - length : -size]
