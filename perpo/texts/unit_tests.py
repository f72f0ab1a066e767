"""Unit tests of a page's text: what must be in it, what must not, in which order, in which cell.

The tests and their rules are those of olmOCR-Bench (`olmocr/bench/tests.py`). A test is an object with `type` and the
fields of that type. Tests of mathematics need a browser and are not run here; those of formats are in no file.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from rapidfuzz import fuzz

from perpo.errors import PerpoError
from perpo.texts.tables import Cell, Table, html_tables, tables

UnitTest = Mapping[str, Any]

_DASHES_AND_QUOTES = str.maketrans(
    {**dict.fromkeys("‘’‚", "'"), **dict.fromkeys("“”„", '"'), "＿": "_", "\u00b5": "\u03bc"}
)
_DASHES_AND_QUOTES |= str.maketrans(dict.fromkeys("–—‑‒−", "-"))
_DISALLOWED = re.compile(
    "[\u4e00-\u9fff\u3040-\u309f\u30a0-\u30ff\U0001f600-\U0001f64f\U0001f300-\U0001f5ff\U0001f680-\U0001f6ff"
    "\U0001f1e0-\U0001f1ff]"
)
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_BESIDE_MARKER = ("appears_before_marker", "appears_after_marker")
_AROUND_MARKER = 200
_LONGEST_REPEATED = 5


def comparable(text: str) -> str:
    """Return a text as the tests compare it: without marks of bold and italics, white space as single blanks, NFC,
    quotes and dashes in ASCII.
    """
    text = re.sub("<br/?>", " ", text)
    # In this order: what one step leaves, the next one may take.
    for marks in (r"\*\*(.*?)\*\*", r"__(.*?)__"):
        text = re.sub(marks, r"\1", text)
    text = re.sub("</?i>", "", re.sub("</?b>", "", text))
    for pairs in (r"(\*\*|__)(.*?)\1", r"(\*|_)(.*?)\1"):
        text = re.sub(pairs, r"\2", text)
    return unicodedata.normalize("NFC", re.sub(r"\s+", " ", text)).translate(_DASHES_AND_QUOTES)


class TestedPage:
    """A page's text, with what several tests need of it made once.

    Args:
        text: What a model said.
    """

    __test__ = False  # it is nothing that pytest should run

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def comparable(self) -> str:
        """The text as it is compared."""
        return comparable(self.text)

    @cached_property
    def tables(self) -> list[Table]:
        """Its tables."""
        return tables(self.text)

    @cached_property
    def html_tables(self) -> list[Table]:
        """Those of its tables that are in HTML."""
        return html_tables(self.text)

    def passes(self, test: UnitTest) -> bool:
        """Return whether it passes a test.

        Args:
            test: One that `problem` finds nothing wrong with.
        """
        return _CHECKS[test["type"]](self, test)


def read_tests(text: str) -> list[UnitTest]:
    """Read a JSON list of tests.

    Raises:
        ValueError: It is none, is empty, or a test cannot be run.
    """
    held = json.loads(text)
    if not isinstance(held, list) or not held:
        raise ValueError("expected a list of unit tests")
    for test in held:
        if said := problem(test):
            raise ValueError(said)
    return held


def share_passed(text: str, unit_tests: Sequence[UnitTest]) -> float:
    """Return the share of tests that a text passes."""
    page = TestedPage(text)
    return sum(map(page.passes, unit_tests)) / len(unit_tests)


def problem(test: Any) -> str:
    """Return what keeps a test from being run; "" if nothing does."""
    kind = test.get("type") if isinstance(test, Mapping) else None
    if kind not in _CHECKS:
        return f"there is no unit test of type {kind!r:.40}: {', '.join(_CHECKS)}"
    for name in _NEEDED[kind]:
        if not isinstance(test.get(name), str) or not (kind == "table" or comparable(test[name]).strip()):
            return f"a unit test of type {kind} needs a text as `{name}`, found {test.get(name)!r:.40}"
    most = test.get("max_diffs", 0)
    if not isinstance(most, int) or most < 0:
        return f"expected a number from 0 as `max_diffs` of a unit test, found {most!r:.40}"
    if kind == "footnote" and (" " in test["marker"] or any(test.get(n) and test[n].isspace() for n in _BESIDE_MARKER)):
        return f"the texts of a footnote are not blank, and its marker has no blanks, found {test!r:.120}"
    if kind == "order" and most > min(len(comparable(test[name])) for name in _NEEDED[kind]) // 2:
        return f"`max_diffs` is {most}, more than half of a text to be found"
    return ""


def _present(page: TestedPage, test: UnitTest) -> bool:
    wanted, text = comparable(test["text"]), page.comparable
    if not test.get("case_sensitive", True):
        wanted, text = wanted.lower(), text.lower()
    first, last = test.get("first_n"), test.get("last_n")
    if first or last:
        text = (text[:first] if first else "") + (text[-last:] if last else "")
    return _at_least(fuzz.partial_ratio(wanted, text), wanted, test)


def _at_least(measured: float, wanted: str, test: UnitTest, least: float = float("-inf")) -> bool:
    """Whether a likeness of a hundred allows for the test's number of differences."""
    return measured / 100.0 >= max(least, 1.0 - test.get("max_diffs", 0) / (len(wanted) or 1))


def _in_order(page: TestedPage, test: UnitTest) -> bool:
    most = test.get("max_diffs", 0)
    before, after = (_starts(comparable(test[name]), page.comparable, most) for name in ("before", "after"))
    return bool(before and after) and min(before) < max(after)


def _starts(wanted: str, text: str, most: int) -> list[int]:
    """Where a text stands with at most so many differences; of places that overlap the best one.

    fuzzysearch keeps places that overlap in a set, so that among equally good ones the hash seed of the process
    decides. Here it is the one that begins first.
    """
    try:
        from fuzzysearch import choose_search_class
        from fuzzysearch.common import LevenshteinSearchParams
    except ImportError as error:
        raise PerpoError("unit tests of order need fuzzysearch", "pip install 'perpo[pages]'") from error

    params = LevenshteinSearchParams(None, None, None, most)
    matches = sorted(choose_search_class(params).search(wanted, text, params), key=lambda match: match.start)
    if not most:  # places that fit exactly all count
        return [match.start for match in matches]
    groups: list[list[Any]] = []
    end = -1
    for match in matches:
        if match.start >= end:
            groups.append([])
        groups[-1].append(match)
        end = max(end, match.end)
    return [min(group, key=lambda match: (match.dist, match.start - match.end, match.start)).start for group in groups]


_WAYS: dict[str, Callable[[Cell], list[Cell]]] = {
    "up": lambda cell: cell.up,
    "down": lambda cell: cell.down,
    "left": lambda cell: cell.left,
    "right": lambda cell: cell.right,
    "left_heading": lambda cell: cell.headings("left"),
    "top_heading": lambda cell: cell.headings("up"),
}


def _in_table(page: TestedPage, test: UnitTest) -> bool:
    def like(cell: Cell, wanted: str) -> bool:
        return _at_least(fuzz.ratio(wanted, comparable(cell.text)), wanted, test, least=0.5)

    wanted = comparable(test["cell"])
    beside = {way: comparable(test[way]) for way in _WAYS if test.get(way)}
    return any(
        like(cell, wanted)
        and all(any(like(other, said) for other in _WAYS[way](cell)) for way, said in beside.items() if said)
        for table in (page.html_tables if test.get("ignore_markdown_tables") else page.tables)
        for cell in table
    )


def _sound(page: TestedPage, test: UnitTest) -> bool:
    """Whether a page says anything, does not end in a loop, and has no characters that belong to no such page. With
    `max_length`: whether a blank page is read as one.
    """
    text, most = page.text, test.get("max_length")
    if most is not None:
        if test.get("max_length_skips_image_alt_tags"):
            text = re.sub(r"!\[.*?\]\(.*?\)", "", text)
        return sum(map(str.isalnum, text)) <= most
    if not any(map(str.isalnum, text)):
        return False
    text = re.sub(r"\s+", " ", text)
    if any(_repeats(text, size) > test.get("max_repeats", 30) for size in range(1, _LONGEST_REPEATED + 1)):
        return False
    return not (test.get("check_disallowed_characters", True) and _DISALLOWED.search(page.text))


def _repeats(text: str, size: int) -> int:
    """How often in a row the last characters stand at the end."""
    last, count, start = text[-size:], 0, len(text) - size
    while start >= 0 and text[start : start + size] == last:
        count, start = count + 1, start - size
    return count


def _footnote(page: TestedPage, test: UnitTest) -> bool:
    text, marker = page.text, test["marker"]
    patterns = [rf"\[\^{re.escape(marker)}\](?!:)", rf"(?i:<sup[^>]*>{re.escape(marker)}</sup>)"]
    if all(letter in "0123456789" for letter in marker):
        patterns.append(re.escape(marker.translate(_SUPERSCRIPTS)))
    places = [match.span() for pattern in patterns for match in re.finditer(pattern, text)]
    before, after = (test.get(name) for name in _BESIDE_MARKER)

    def stands(wanted: str, parts: list[str], *, last: bool) -> bool:
        """Whether one of the parts has a text at its end, or at its start."""
        letters = _letters(wanted)
        reach = 2 * len(letters)
        near = [
            stands_after if not reach else stands_after[-reach:] if last else stands_after[:reach]
            for stands_after in map(_letters, parts)
        ]
        # The allowed differences are of the text as it is compared, not of its letters alone.
        return any(_at_least(fuzz.partial_ratio(letters, part), comparable(wanted), test) for part in near if part)

    left = [text[max(0, start - _AROUND_MARKER) : start] for start, _ in places]
    right = [text[end : end + _AROUND_MARKER] for _, end in places]
    stands_after = not before or stands(before, left, last=True)
    return bool(places) and stands_after and (not after or stands(after, right, last=False))


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, comparable(text))).lower()


_CHECKS: dict[str, Callable[[TestedPage, UnitTest], bool]] = {
    "present": _present,
    "absent": lambda page, test: not _present(page, test),
    "order": _in_order,
    "table": _in_table,
    "baseline": _sound,
    "footnote": _footnote,
}
TYPES = tuple(_CHECKS)
"""The types of tests that are run."""
_NEEDED: dict[str, tuple[str, ...]] = {
    "present": ("text",),
    "absent": ("text",),
    "order": ("before", "after"),
    "table": ("cell",),
    "baseline": (),
    "footnote": ("marker",),
}
