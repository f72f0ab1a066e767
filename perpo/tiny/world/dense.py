"""The tiny world's dense pages: up to eleven lines of small print, laid out from a seed, and their sloppy transcripts.

A page is a grid of 24 x 12 cells of 6 x 12 pixels: two letters to a patch of the model. It has lines in lower
case, headings in capitals, numbers, often a title in letters of twice the size or two columns, and often a rule with
lines below it. Two fonts, a slight tilt, noise and JPEG are what `perpo.tiny.world.dense_drawing` does with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from perpo.tiny.world.pages import WORDS as CAPITAL_WORDS
from perpo.tiny.world.scenes import scene_rng

DENSE_SIDE = 144
"""Width and height of every page, in pixels."""

DENSE_PAGES = {"val": 200, "test": 1000}
"""Pages of each split that answers are scored on."""

DENSE_QUESTIONS_START = 1_000_000
"""Training questions use train pages from this index on; the embedded checkpoint saw only lower ones."""

SLOPPY = 0.65
"""Share of rules, headings and numbers that the sloppy annotator gets wrong."""

CELL_WIDTH, CELL_HEIGHT = 6, 12
COLUMNS, ROWS = 24, 12
GRID_LINES, LEAST_LETTERS, MOST_LETTERS, LINE_LETTERS, COLUMN_LETTERS = 11, 30, 220, 23, 11
MOST_LINES = 16
"""Of two columns of seven lines and what stands below them."""

MISREAD = dict(zip("0123456789", "OIZEASbTBg", strict=True))
"""What the sloppy annotator reads in the place of each digit."""

_LAYOUT, _SLOPS = 60, 62
_HEADING, _NUMBER, _FULL_STOP, _RULE = 0.12, 0.09, 0.15, 0.65
_TWO_COLUMNS, _TITLE, _TILTED, _JPEG = 0.25, 0.2, 0.5, 0.5
MOST_TILT = 0.8
"""Largest angle of a page, in degrees."""

_WORST_JPEG, _BEST_JPEG = 55, 95

_SPOKEN = (
    "a above all an and answer are assistant below between blue bottom bounded bounding box circle coordinate "
    "coordinates cross describes edge floating format green image in is large left lower near nearest no numbers of "
    "or orange phrase picture please point points provide purple question red region right ring sentence single small "
    "specified square striped that the there thing this to top triangle upper user using values white word x y yellow "
    "yes"
)
SPOKEN = tuple(_SPOKEN.split())
"""Words of the other tasks' questions and answers. No page has them, so that a tokenizer may keep them whole."""

WORDS = tuple(word.lower() for word in CAPITAL_WORDS if len(word) > 1 and word.lower() not in SPOKEN)


@dataclass(frozen=True)
class DenseLine:
    """One line of a page.

    Attributes:
        text: What is written.
        row: Its row in the grid of cells; of a title, the upper of its two.
        column: The column of its first letter.
        heading: Whether it is in capitals.
        size: 2 where each letter is two cells wide and high, else 1.
    """

    text: str
    row: int
    column: int
    heading: bool
    size: int = 1


@dataclass(frozen=True)
class DensePage:
    """One page: what is written on it, and where; `draw_dense_page` makes the picture.

    Attributes:
        split: "train", "val" or "test".
        index: Number within the split.
        lines: The lines in reading order: a left column before the right one.
        above_rule: How many of them stand above the rule; all where there is no rule.
        columns: Columns of the text above the rule, 1 or 2; what stands below the rule has one.
        corner: (x, y) of the grid's upper left corner before the tilt, in pixels.
        font: What the letters are drawn with.
        angle: Tilt about the middle of the page in degrees, anticlockwise.
        jpeg: Quality of the JPEG that the picture went through; None for none.
    """

    split: str
    index: int
    lines: tuple[DenseLine, ...]
    above_rule: int
    columns: int
    corner: tuple[int, int]
    font: Literal["courier", "misc-fixed"]
    angle: float
    jpeg: int | None

    @property
    def text(self) -> str:
        """Return the lines, joined by line breaks."""
        return "\n".join(line.text for line in self.lines)

    @property
    def has_rule(self) -> bool:
        """Return whether a rule separates the last lines."""
        return self.above_rule < len(self.lines)

    @property
    def rule_row(self) -> int:
        """Return the row of cells that the rule takes, if there is one."""
        return self.lines[self.above_rule].row - 1


def make_dense_page(split: str, index: int, *, plain: bool = False) -> DensePage:
    """Write page `index` of a split.

    Args:
        split: "train", "val" or "test".
        index: Number within the split.
        plain: Give an easier page for a learner: upright, of one column and one font, without a title and JPEG.

    Raises:
        KeyError: For a split other than train, val and test.
    """
    rng = scene_rng(split, index, _LAYOUT)
    while True:
        page = _page(split, index, rng, plain)
        if LEAST_LETTERS <= len(page.text) <= MOST_LETTERS:
            return page


def _page(split: str, index: int, rng: np.random.Generator, plain: bool) -> DensePage:
    columns = 1 if plain or rng.random() >= _TWO_COLUMNS else 2
    rule = bool(rng.random() < _RULE)
    lines = _two_columns(rng, rule) if columns == 2 else _one_column(rng, rule, title=not plain)
    above = len(lines)
    if rule:
        row = max(line.row + line.size for line in lines) + 1
        lines += [_line(rng, row + k, LINE_LETTERS) for k in range(_foot(rng, GRID_LINES - row))]
    return DensePage(
        split,
        index,
        tuple(lines),
        above,
        columns,
        (int(rng.integers(0, 2)), int(rng.integers(0, 2))),
        "courier" if plain or rng.random() < 0.5 else "misc-fixed",
        0.0 if plain or rng.random() >= _TILTED else float(rng.uniform(-MOST_TILT, MOST_TILT)),
        None if plain or rng.random() >= _JPEG else int(rng.integers(_WORST_JPEG, _BEST_JPEG + 1)),
    )


def _one_column(rng: np.random.Generator, rule: bool, *, title: bool) -> list[DenseLine]:
    """Return the lines above the rule, if there is to be one, else all lines: three to eleven rows in all."""
    lines = []
    if title and rng.random() < _TITLE:
        lines.append(DenseLine(_words(rng, COLUMN_LETTERS, 4, True), 0, 0, False, size=2))
    count = int(rng.integers(4 if rule else 3, GRID_LINES + 1)) - 2 * len(lines)
    if rule:
        count = math.ceil((count - 1) * rng.uniform(0.5, 0.8))
    return lines + [_line(rng, 2 * len(lines) + k, LINE_LETTERS) for k in range(max(1, count))]


def _two_columns(rng: np.random.Generator, rule: bool) -> list[DenseLine]:
    left = int(rng.integers(3, 7 if rule else 9))
    right = int(rng.integers(2, left + 1))
    return [_line(rng, k, COLUMN_LETTERS) for k in range(left)] + [
        _line(rng, k, COLUMN_LETTERS, COLUMNS // 2) for k in range(right)
    ]


def _foot(rng: np.random.Generator, room: int) -> int:
    return int(rng.integers(1, min(4, room) + 1))


def _line(rng: np.random.Generator, row: int, letters: int, start: int = 0) -> DenseLine:
    """Return a line of a column `letters` wide; some lines are indented."""
    heading = bool(rng.random() < _HEADING)
    indent = 2 if rng.random() < 0.15 and letters == LINE_LETTERS else 0
    text = _words(rng, letters - indent, int(rng.integers(5, letters - 1)), not heading)
    return DenseLine(text.upper() if heading else text, row, start + indent, heading)


def _words(rng: np.random.Generator, most: int, least: int, plain: bool) -> str:
    """Words of at least `least` letters where `most` allows it; `plain` ones with numbers and full stops."""
    text = ""
    while len(text) < least:
        word = str(rng.choice(WORDS))
        if plain and rng.random() < _NUMBER:
            word = "".join(str(digit) for digit in rng.integers(0, 10, size=int(rng.integers(3, 6))))
        elif plain and (not text or text.endswith(".")) and rng.random() < 0.5:
            word = word.capitalize()
        if plain and rng.random() < _FULL_STOP:
            word += "."
        longer = f"{text} {word}".strip()
        if len(longer) > most:
            break
        text = longer
    return text or str(rng.choice([word for word in WORDS if len(word) <= most]))


def transcript(page: DensePage, share: float) -> str:
    """Return the text of a page as a sloppy annotator gives it: of each kind of slip, a `share` is made.

    Each page's foot (the lines below the rule) is left out or not, each heading is written in lower case or
    not, and each number is read as letters or not. Slips depend only on the page and their place in it; 0 gives
    the exact text.
    """
    rng = scene_rng(page.split, page.index, _SLOPS)
    kept = page.above_rule if rng.random() < share else len(page.lines)
    lines = []
    for line in page.lines:
        words = []
        lowered = rng.random() < share and line.heading
        for word in line.text.split(" "):
            # Drawn for every word, so that what comes before does not move what comes after.
            wrong = rng.random() < share and word[0].isdigit()
            words.append("".join(MISREAD.get(letter, letter) for letter in word) if wrong else word)
        lines.append(" ".join(words).lower() if lowered else " ".join(words))
    return "\n".join(lines[:kept])


Box = tuple[float, float, float, float]


def letter_cells(page: DensePage) -> list[tuple[int, int, int]]:
    """Return (row, column, size) of every character of `page.text`, in cells of the grid.

    A line break has the place of what the reader must look at next: the rule's first cell where the next line is
    below the rule, else the first letter of the next line.
    """
    cells: list[tuple[int, int, int]] = []
    for number, line in enumerate(page.lines):
        if number:
            at_rule = page.has_rule and number == page.above_rule
            cells.append((page.rule_row, 0, 1) if at_rule else (line.row, line.column, line.size))
        cells += [(line.row, line.column + k * line.size, line.size) for k in range(len(line.text))]
    return cells


def letter_boxes(page: DensePage) -> list[Box]:
    """Return the box (x1, y1, x2, y2) in pixels of every character of `page.text`, see `letter_cells`.

    Boxes stay upright: the tilt moves their middles.
    """
    return [cell_box(page, *cell) for cell in letter_cells(page)]


def cell_box(page: DensePage, row: int, column: int, size: int = 1) -> Box:
    """Return the box (x1, y1, x2, y2) of `size` x `size` cells on the tilted page, in pixels."""
    wide, high = CELL_WIDTH * size, CELL_HEIGHT * size
    middle, turn = DENSE_SIDE / 2, math.radians(page.angle)
    x = page.corner[0] + CELL_WIDTH * column + wide / 2 - middle
    y = page.corner[1] + CELL_HEIGHT * row + high / 2 - middle
    x, y = math.cos(turn) * x + math.sin(turn) * y + middle, math.cos(turn) * y - math.sin(turn) * x + middle
    return x - wide / 2, y - high / 2, x + wide / 2, y + high / 2
