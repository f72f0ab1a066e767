"""The tiny world's pages: lines that fit, boxes that hold the ink, the same pixels everywhere."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from perpo.tiny.world import write_parquet
from perpo.tiny.world.pages import (
    GLYPH_HEIGHT,
    GLYPH_WIDTH,
    LETTERS,
    LINE_LETTERS,
    MOST_LINES,
    WORDS,
    Page,
    draw_page,
    glyph_boxes,
    make_page,
    page_rows,
)
from perpo.tiny.world.scenes import SIDE
from perpo_eval.benchmarks.ocr import OCR_PAGES

SPLITS = ("train", "val", "test")
SERIF = 2


def pixels(page: Page) -> np.ndarray:
    return np.asarray(draw_page(page)).astype(int)


def ink(page: Page, other: Page) -> np.ndarray:
    """(96, 96) where two pages with the same paper, ink and noise differ."""
    return (pixels(page) != pixels(other)).any(axis=2)


def inside(box: tuple[float, float, float, float]) -> np.ndarray:
    """(96, 96) the pixels of a box."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    x1, y1, x2, y2 = box
    return (x >= x1) & (x < x2) & (y >= y1) & (y < y2)


def test_words_can_be_written_and_use_every_letter() -> None:
    assert len(set(WORDS)) == len(WORDS)
    assert set("".join(WORDS)) == set(LETTERS)
    assert max(map(len, WORDS)) <= LINE_LETTERS


@pytest.mark.parametrize("split", SPLITS)
def test_lines_are_words_and_fit_on_the_sheet(split: str) -> None:
    for index in range(150):
        page = make_page(split, index)
        assert 2 <= len(page.lines) <= MOST_LINES
        assert len(page.corners) == len(page.lines)
        bottom = 0
        for line, (x, y) in zip(page.lines, page.corners, strict=True):
            assert set(line.split(" ")) <= set(WORDS)
            assert 1 <= len(line) <= LINE_LETTERS
            assert x >= 0
            assert x + GLYPH_WIDTH * len(line) <= SIDE
            # Below the line before, with an empty row of pixels between them at least.
            assert y >= bottom
            bottom = y + GLYPH_HEIGHT + 1
        assert bottom <= SIDE + 1
        assert page.text.split("\n") == list(page.lines)


def test_boxes_go_with_the_characters_of_the_text() -> None:
    page = Page("val", 0, ("AN OX", "TO"), ((12, 25), (2, 48)))
    boxes = glyph_boxes(page)
    assert len(boxes) == len(page.text) == 8
    assert boxes[0] == (12, 25, 24, 39)
    assert boxes[4] == (60, 25, 72, 39)
    assert boxes[5] is None
    assert boxes[7] == (14, 48, 26, 62)


@pytest.mark.parametrize("index", range(4))
def test_a_letters_ink_lies_in_its_box(index: int) -> None:
    """Each letter is left out in turn: what changes is within its box, and something does.

    The font's serifs stand out by one of its own pixels, two of the page's, to the left.
    """
    page = make_page("val", index)
    for place, (character, box) in enumerate(zip(page.text, glyph_boxes(page), strict=True)):
        if box is None:
            continue
        text = page.text[:place] + " " + page.text[place + 1 :]
        changed = ink(page, replace(page, lines=tuple(text.split("\n"))))
        assert not (changed & ~inside((box[0] - SERIF, *box[1:]))).any()
        assert (changed & inside(box)).sum() >= 0.7 * changed.sum()
        assert changed.sum() >= 20 if character != " " else not changed.any()


def test_nothing_beside_the_lines_holds_ink() -> None:
    page = make_page("test", 1)
    empty = replace(page, lines=tuple(" " * len(line) for line in page.lines))
    # The first letter's serif is cut off where its line begins.
    boxes = [inside(box) for box in glyph_boxes(page) if box is not None]
    assert not (ink(page, empty) & ~np.any(boxes, axis=0)).any()


def test_no_two_letters_look_alike() -> None:
    page = Page("val", 0, (" ",), ((0, 0),))
    shapes = {letter: ink(replace(page, lines=(letter,)), page) for letter in LETTERS}
    for one in LETTERS:
        for other in LETTERS:
            if one < other:
                # At twice its size the font's smallest difference is four pixels.
                assert (shapes[one] ^ shapes[other]).sum() >= 8, one + other


def test_paper_and_ink_can_be_told_apart() -> None:
    """The darkest and the lightest of them are 90 apart, the noise at most 10 wide."""
    dark_ink = 0
    for index in range(40):
        page = make_page("train", index)
        empty = replace(page, lines=tuple(" " * len(line) for line in page.lines))
        with_it, without = pixels(page), pixels(empty)
        marked = (with_it != without).any(axis=2)
        difference = (with_it[marked] - without[marked]).mean(axis=0)
        assert (np.abs(difference) > 80).all()
        assert len(set(np.sign(difference))) == 1
        dark_ink += int(difference[0] < 0)
    # Both ways come up: a fair coin 40 times.
    assert 5 < dark_ink < 35


def test_the_same_page_is_drawn_in_every_process() -> None:
    code = (
        "import hashlib; from perpo.tiny.world.pages import draw_page, make_page; "
        "print(*(hashlib.sha256(draw_page(make_page(s, k)).tobytes()).hexdigest()"
        " for s in ('train', 'val', 'test') for k in range(3)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    here = [hashlib.sha256(draw_page(make_page(s, k)).tobytes()).hexdigest() for s in SPLITS for k in range(3)]
    assert done.stdout.split() == here
    assert len(set(here)) == 9


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(KeyError, match="dev"):
        make_page("dev", 0)


def test_rows_are_what_the_evaluation_reads(tmp_path) -> None:
    rows = list(page_rows("test", pages=5))
    for index, row in enumerate(rows):
        page = make_page("test", index)
        assert (row["answer"], row["question"], row["language"]) == ("\n".join(page.lines), "", "en")
        assert (row["question_id"], row["image_id"]) == (f"test_{index}", index)
        assert row["image"].tobytes() == draw_page(page).tobytes()
        assert (row["image"].size, row["image"].mode) == ((SIDE, SIDE), "RGB")
    table = pq.read_table(write_parquet(rows, tmp_path / "tinypages_test.parquet")).to_pylist()
    assert set(OCR_PAGES.rows.columns) <= set(table[0])
    assert [OCR_PAGES.rows.problem(row) for row in table] == [None] * 5
    assert [sample for row in table for sample in OCR_PAGES.rows.samples(row)][2] == ("test_2", "", rows[2]["answer"])
    with Image.open(io.BytesIO(table[4]["image"]["bytes"])) as image:
        assert image.tobytes() == rows[4]["image"].tobytes()
    assert len({row["file_name"] for row in table}) == 5
