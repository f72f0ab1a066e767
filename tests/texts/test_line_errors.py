"""perpo.texts.line_errors: kinds of errors of made pages, and pairs against a plain recursion."""

from __future__ import annotations

import random
from functools import cache

import pytest
from rapidfuzz.distance import Levenshtein

from perpo.texts.line_errors import ERRORS, MOST_LINES, line_errors

PAGE = ["the first line of it", "a second line, longer", "numbers: 1 2 3 4", "and the last words"]


def kinds(truth: list[str], answer: list[str]) -> list[tuple[str, str | None, str | None]]:
    return [(pair.kind, pair.truth, pair.answer) for pair in line_errors("\n".join(truth), "\n".join(answer)).pairs]


def told(truth: list[str], answer: list[str]) -> dict[str, int]:
    counts = line_errors("\n".join(truth), "\n".join(answer)).counts()
    return {kind: counts[kind] for kind in ERRORS if counts[kind]}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (PAGE, {}),
        (["  the first  line of it", "", *PAGE[1:]], {}),  # spaces and blank lines
        (PAGE[:1] + PAGE[2:], {"dropped": 1}),
        ([*PAGE[:2], "something else entirely", *PAGE[2:]], {"added": 1}),
        ([PAGE[0], "a sccond lime, longer", *PAGE[2:]], {"changed": 1}),
        ([PAGE[0], "xyzzy plugh foo bar qux!", *PAGE[2:]], {"dropped": 1, "added": 1}),  # nothing in common
        ([PAGE[3], *PAGE[:3]], {"moved": 1}),
        ([*PAGE, PAGE[3], PAGE[3]], {"repeated": 2}),
        ([], {"dropped": 4}),
    ],
)
def test_kinds_of_errors(answer, expected) -> None:
    assert told(PAGE, answer) == expected


def test_places_are_those_of_the_page() -> None:
    assert kinds(PAGE, [PAGE[3], PAGE[0], PAGE[2]]) == [
        ("moved", None, PAGE[3]),
        ("same", PAGE[0], PAGE[0]),
        ("dropped", PAGE[1], None),
        ("same", PAGE[2], PAGE[2]),
        ("moved", PAGE[3], None),
    ]
    assert kinds([], ["new"]) == [("added", None, "new")]


def test_pairs_cost_as_little_as_any() -> None:
    """The fewest edits, by a recursion over all ways to pair lines."""
    rng = random.Random(0)

    def line() -> str:
        return "".join(rng.choice("ab ") for _ in range(rng.randint(1, 6))).strip() or "a"

    for _ in range(200):
        truth, answer = ([line() for _ in range(rng.randint(0, 5))] for _ in range(2))
        truth, answer = ([" ".join(each.split()) for each in lines] for lines in (truth, answer))

        @cache
        def fewest(n: int, m: int, truth: tuple = tuple(truth), answer: tuple = tuple(answer)) -> float:
            if n == m == 0:
                return 0
            ways = []
            if n:
                ways.append(fewest(n - 1, m) + len(truth[n - 1]))
            if m:
                ways.append(fewest(n, m - 1) + len(answer[m - 1]))
            if n and m:
                apart = Levenshtein.distance(truth[n - 1], answer[m - 1])
                if apart <= 0.5 * max(len(truth[n - 1]), len(answer[m - 1])):
                    ways.append(fewest(n - 1, m - 1) + apart)
            return min(ways)

        cost = 0
        for kind, ours, theirs in kinds(truth, answer):
            cost += Levenshtein.distance(ours or "", theirs or "") if kind != "same" else 0
        assert cost == fewest(len(truth), len(answer))
        rest = line_errors("\n".join(truth), "\n".join(answer)).pairs
        assert [pair.truth for pair in rest if pair.truth is not None] == truth
        assert [pair.answer for pair in rest if pair.answer is not None] == answer


def test_long_texts_are_cut_and_say_so() -> None:
    lines = [f"line {place}" for place in range(MOST_LINES + 5)]
    errors = line_errors("\n".join(lines), "\n".join(lines[:-1]))
    assert errors.cut
    assert errors.counts() == {"same": MOST_LINES} | dict.fromkeys(ERRORS, 0)
