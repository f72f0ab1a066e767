"""Loops at the end of answers, beside the rule written out plainly."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpo.texts.repetition import LEAST_CHARACTERS, LONGEST_UNIT, REPEATS, ends_in_loop


def words(count: int, seed: int = 0) -> str:
    """So many characters in which nothing repeats itself."""
    return "".join(random.Random(seed).choices(string.ascii_lowercase + " ", k=count))


def plainly(text: str) -> bool:
    """The rule by trying every unit, character by character."""
    for size in range(1, LONGEST_UNIT + 1):
        length = max(LEAST_CHARACTERS, REPEATS * size)
        if length <= len(text) and all(text[-k] == text[-k - size] for k in range(1, length - size + 1)):
            return True
    return False


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("", False),
        ("a page", False),
        ("." * (LEAST_CHARACTERS - 1), False),
        ("." * LEAST_CHARACTERS, True),
        (words(3000) + "\n" * LEAST_CHARACTERS, True),
        (words(3000) + "| | | |\n" * 49, False),
        (words(3000) + "| | | |\n" * 50, True),
        (words(3000) + "again " * 100, True),
        (words(3000) + "again " * 100 + "and on", False),
        (words(3000) + words(500, 1) * 4, True),
        ("!" + (words(500, 1) * 4)[1:], False),
        (words(3000) + (words(500, 1) * 4)[:-1], False),
        (words(3000) + (words(500, 1) * 5)[:-100], True),
        (words(LONGEST_UNIT) * 4, True),
        (words(LONGEST_UNIT + 1) * 5, False),
        ("".join(f"{number}. the item\n" for number in range(500)), False),
        (words(8000), False),
        ("字" * LEAST_CHARACTERS, True),
        ("\ufffd" * LEAST_CHARACTERS, True),
    ],
)
def test_what_is_a_loop(text, loops) -> None:
    assert ends_in_loop(text) is loops
    assert plainly(text) is loops


@settings(max_examples=200, deadline=None)
@given(
    before=st.text("ab ", max_size=60),
    unit=st.text("ab ", min_size=1, max_size=200),
    length=st.integers(0, 1000),
    after=st.text("ab", max_size=1),
)
def test_any_text_by_the_rule_written_out(before, unit, length, after) -> None:
    text = before + (unit * 1000)[:length] + after
    assert ends_in_loop(text) is plainly(text)


@pytest.mark.parametrize(("halves", "loops"), [(1, True), (3, True), (4, False)])
def test_a_letter_that_the_token_limit_cut_hides_no_loop(halves, loops) -> None:
    assert ends_in_loop("字" * LEAST_CHARACTERS + "\ufffd" * halves) is loops


def test_a_loop_of_loops_is_one_by_its_longer_unit() -> None:
    """`aaa...b` holds runs of one letter, none of which reaches the end."""
    assert ends_in_loop(("a" * 150 + "b") * 4)
    assert not ends_in_loop(("a" * 150 + "b") * 3)
