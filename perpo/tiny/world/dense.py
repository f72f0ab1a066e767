"""The tiny world's dense pages: up to eleven lines of small print, drawn from a seed, and their sloppy transcripts.

A page is a grid of 24 x 12 cells of 6 x 12 pixels: two letters to a patch of the model. It has lines in lower
case, headings in capitals, numbers, and often a rule with lines below it. The letters are Pillow's built-in bitmap
font at its own size, so that the same call draws the same pixels on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from perpo.benchmarks.prompts import OCR
from perpo.common.files import atomic_write_text, disk_errors, make_folder
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
MOST_LINES, LEAST_LETTERS, MOST_LETTERS, LINE_LETTERS = 11, 30, 220, 23
MISREAD = dict(zip("0123456789", "OIZEASbTBg", strict=True))
"""What the sloppy annotator reads in the place of each digit."""

_LAYOUT, _PIXELS, _SLOPS = 60, 61, 62
_HEADING, _NUMBER, _FULL_STOP, _RULE = 0.12, 0.09, 0.15, 0.65

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
        row: Its row in the grid of cells.
        column: The column of its first letter.
        heading: Whether it is in capitals.
    """

    text: str
    row: int
    column: int
    heading: bool


@dataclass(frozen=True)
class DensePage:
    """One page: what is written on it, and where; `draw_dense_page` makes the picture.

    Attributes:
        split: "train", "val" or "test".
        index: Number within the split.
        lines: Three to eleven lines.
        above_rule: How many of them stand above the rule; all where there is no rule.
        corner: (x, y) of the grid's upper left corner, in pixels.
    """

    split: str
    index: int
    lines: tuple[DenseLine, ...]
    above_rule: int
    corner: tuple[int, int]

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


def make_dense_page(split: str, index: int) -> DensePage:
    """Write page `index` of a split.

    Raises:
        KeyError: For a split other than train, val and test.
    """
    rng = scene_rng(split, index, _LAYOUT)
    while True:
        page = _page(split, index, rng)
        if LEAST_LETTERS <= len(page.text) <= MOST_LETTERS:
            return page


def _page(split: str, index: int, rng: np.random.Generator) -> DensePage:
    count = int(rng.integers(3, MOST_LINES + 1))
    rule = count >= 4 and bool(rng.random() < _RULE)
    count = min(count, MOST_LINES - rule)  # a rule takes a row
    above = int(np.ceil(count * rng.uniform(0.5, 0.8))) if rule else count
    lines = []
    for number in range(count):
        heading = bool(rng.random() < _HEADING)
        column = 2 if rng.random() < 0.15 else 0
        text = _words(rng, LINE_LETTERS - column, int(rng.integers(5, LINE_LETTERS - 1)), not heading)
        row = number + (rule and number >= above)
        lines.append(DenseLine(text.upper() if heading else text, row, column, heading))
    return DensePage(split, index, tuple(lines), above, (int(rng.integers(0, 2)), int(rng.integers(0, 2))))


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
    return text or str(rng.choice(WORDS))


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


def letter_boxes(page: DensePage) -> list[Box]:
    """Return the box (x1, y1, x2, y2) in pixels of every character of `page.text`.

    A line break has the box of what the reader must look at next: the rule's first cell where the next line is
    below the rule, else the first letter of the next line.
    """
    boxes: list[Box] = []
    for number, line in enumerate(page.lines):
        if number:
            at_rule = page.has_rule and number == page.above_rule
            boxes.append(_cell(page, page.rule_row, 0) if at_rule else _letter(page, line, 0))
        boxes += [_letter(page, line, k) for k in range(len(line.text))]
    return boxes


def _letter(page: DensePage, line: DenseLine, k: int) -> Box:
    return _cell(page, line.row, line.column + k)


def _cell(page: DensePage, row: int, column: int) -> Box:
    x, y = page.corner[0] + CELL_WIDTH * column, page.corner[1] + CELL_HEIGHT * row
    return x, y, x + CELL_WIDTH, y + CELL_HEIGHT


def draw_dense_page(page: DensePage) -> Image.Image:
    """Draw a page: RGB, `DENSE_SIDE` x `DENSE_SIDE`, dark letters on a light sheet, and noise over all."""
    rng = scene_rng(page.split, page.index, _PIXELS)
    ink, paper = rng.uniform(10, 80, size=3), rng.uniform(170, 245, size=3)
    sheet = Image.new("L", (DENSE_SIDE, DENSE_SIDE), 0)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default_imagefont()
    for line in page.lines:
        pen.text(_letter(page, line, 0)[:2], line.text, fill=255, font=font)
    if page.has_rule:
        _, y, _, _ = _cell(page, page.rule_row, 0)
        pen.rectangle((4, y + 5, DENSE_SIDE - 5, y + 6), fill=255)
    alpha = np.asarray(sheet, dtype=np.float64)[..., None] / 255
    pixels = paper * (1 - alpha) + ink * alpha
    pixels = pixels + rng.normal(0, rng.uniform(3, 10), size=pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGB")


def dense_rows(split: str, *, pages: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield rows of "val" or "test" in the columns that `perpo-data` gives page images.

    Args:
        split: A key of `DENSE_PAGES`.
        pages: How many (all by default).

    Yields:
        question_id, image (PIL), question (empty: the task's prompt), answer (the exact text), language,
        file_name, image_id.
    """
    for index in range(DENSE_PAGES[split] if pages is None else pages):
        page = make_dense_page(split, index)
        yield {
            "question_id": f"{split}_{index}",
            "image": draw_dense_page(page),
            "question": "",
            "answer": page.text,
            "language": "en",
            "file_name": f"tiny_dense_{split}_{index:06d}.png",
            "image_id": index,
        }


def write_page_questions(directory: Path, *, pages: int, seed: int = 0, sloppy: float = 0.0) -> Path:
    """Write training questions: `directory/questions.jsonl` and `directory/images/*.png`.

    Pages come from the train split beyond those that the embedded checkpoint was taught on; another seed takes
    other pages.

    Args:
        directory: Created if missing.
        pages: Number of pages, with one question each.
        seed: Which block of pages.
        sloppy: Share of each kind of slip in the answers (see `transcript`); 0 gives exact ones.

    Returns:
        The path of the file, one JSON object per line: image_path, question, answer, image_id.
    """
    with disk_errors(directory):
        make_folder(directory / "images")
    lines, first = [], DENSE_QUESTIONS_START + seed * 50_000
    for index in range(first, first + pages):
        page, name = make_dense_page("train", index), f"images/tiny_dense_train_{index:07d}.png"
        with disk_errors(directory / name):
            draw_dense_page(page).save(directory / name)
        answer = transcript(page, sloppy)
        lines.append({"image_path": name, "question": OCR, "answer": answer, "image_id": index})
    path = directory / "questions.jsonl"
    atomic_write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    return path
