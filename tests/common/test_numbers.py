"""Each kind of number knows its range and says it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import pytest

from perpo.common import numbers
from perpo.common.numbers import Count, CountOrZero, Range, Seed32, Seed64, Share, ZeroOrMore, check_numbers, ranges_of
from perpo.errors import PerpoError


@dataclass
class Some:
    """Numbers of several kinds; what has no kind is let through."""

    count: Count = 1
    share: Share | None = None
    seed: Seed32 = 0
    free: int = 0
    text: str = ""


@pytest.mark.parametrize(
    ("kind", "good", "bad", "words"),
    [
        (Count, [1, 2**31 - 1], [0, -1], "at least 1"),
        (Count, [], [2**31, 2**64], "at most 2^31 - 1"),
        (CountOrZero, [0, 1], [-1], "at least 0"),
        (Seed32, [0, 2**32 - 1], [-1, 2**32], "from 0 to 2^32 - 1"),
        (Seed64, [0, 2**64 - 1], [-1, 2**64], "from 0 to 2^64 - 1"),
        (numbers.Port, [0, 65535], [-1, 65536], "from 0 to 65535"),
        (numbers.AboveZero, [5e-324, 1e308], [0.0, -1.0, math.nan, math.inf], "above 0"),
        (ZeroOrMore, [0.0, 2.0**64], [-5e-324, math.nan, math.inf, -math.inf], "at least 0"),
        (Share, [0.0, 1.0], [-0.1, math.nextafter(1, 2), math.nan], "from 0 to 1"),
        (numbers.ShareAboveZero, [5e-324, 1.0], [0.0, 1.1], "above 0 and at most 1"),
        (numbers.ShareBelowOne, [0.0, math.nextafter(1, 0)], [1.0, -0.1], "at least 0 and below 1"),
    ],
)
def test_what_a_kind_holds(kind, good, bad, words):
    (allowed,) = (each for each in get_args(kind) if isinstance(each, Range))
    for value in good:
        allowed.check(value, "--x")
    for value in bad:
        with pytest.raises(PerpoError) as error:
            allowed.check(value, "--x")
        assert str(error.value) == f"--x must be {words}, got {value}"
        assert error.value.hint


def test_the_numbers_of_an_object():
    assert list(ranges_of(Some)) == ["count", "share", "seed"]
    check_numbers(Some(free=-1))
    with pytest.raises(PerpoError, match=r"^--share must be from 0 to 1, got 2$"):
        check_numbers(Some(share=2))
    with pytest.raises(PerpoError, match=r"^recipe: count must be at least 1, got 0$"):
        check_numbers(Some(count=0), "recipe: ")
