"""The tiny world's dense pages: lines that fit, letters where they are said to be, slips that are declared."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from perpo.benchmarks.prompts import OCR
from perpo.tiny.build import corpus
from perpo.tiny.lessons import scene_lesson
from perpo.tiny.world.dense import (
    CELL_HEIGHT,
    CELL_WIDTH,
    COLUMNS,
    DENSE_PAGES,
    DENSE_QUESTIONS_START,
    DENSE_SIDE,
    LEAST_LETTERS,
    MISREAD,
    MOST_LETTERS,
    MOST_LINES,
    MOST_TILT,
    ROWS,
    SLOPPY,
    SPOKEN,
    WORDS,
    DenseLine,
    DensePage,
    letter_boxes,
    make_dense_page,
    transcript,
)
from perpo.tiny.world.dense_drawing import _sheet, draw_dense_page
from perpo.tiny.world.dense_rows import dense_rows, write_page_questions
from perpo_eval.benchmarks.ocr import OCR_PAGES

SPLITS = ("train", "val", "test")
PAGES = [make_dense_page(split, index) for split in SPLITS for index in range(60)]


def pixels(page: DensePage) -> np.ndarray:
    return np.asarray(draw_dense_page(page)).astype(int)


def without(page: DensePage, number: int) -> DensePage:
    """The page with one line left blank, all else where it was."""
    lines = list(page.lines)
    lines[number] = replace(lines[number], text=" " * len(lines[number].text))
    return replace(page, lines=tuple(lines))


def test_pages_are_dense_and_fit() -> None:
    for page in PAGES:
        assert LEAST_LETTERS <= len(page.text) <= MOST_LETTERS
        assert 3 <= len(page.lines) <= MOST_LINES
        assert abs(page.angle) <= MOST_TILT
        beyond = DENSE_SIDE / 2 * math.sin(math.radians(MOST_TILT))  # of a corner that the tilt takes along
        for box in letter_boxes(page):
            assert -beyond <= box[0] < box[2] <= DENSE_SIDE + beyond
            assert -beyond <= box[1] < box[3] <= DENSE_SIDE + beyond
        cells = [
            (line.row + down, line.column + k)
            for line in page.lines
            for down in range(line.size)
            for k in range(len(line.text) * line.size)
        ] + ([(page.rule_row, k) for k in range(COLUMNS)] if page.has_rule else [])
        assert len(set(cells)) == len(cells), "two things in one place"
        assert max(cells)[0] < ROWS
        assert max(column for _, column in cells) < COLUMNS
    # The same page has the same text, and no two pages share one.
    assert len({page.text for page in PAGES}) == len(PAGES)
    assert make_dense_page("val", 7) == make_dense_page("val", 7)


def test_pages_differ_in_all_that_they_can_differ_in() -> None:
    kinds = [(page.has_rule, page.columns, page.font, page.angle == 0, page.jpeg is None) for page in PAGES]
    assert all(len(set(values)) == 2 for values in zip(*kinds, strict=True))
    assert {line.size for page in PAGES for line in page.lines} == {1, 2}
    for index in range(60):
        plain = make_dense_page("train", index, plain=True)
        assert (plain.columns, plain.font, plain.angle, plain.jpeg) == (1, "courier", 0.0, None)
        assert {line.size for line in plain.lines} == {1}


def test_two_columns_are_read_one_after_the_other() -> None:
    page = next(page for page in PAGES if page.columns == 2 and page.has_rule)
    above, below = page.lines[: page.above_rule], page.lines[page.above_rule :]
    left = [line for line in above if line.column < COLUMNS // 2]
    right = [line for line in above if line.column >= COLUMNS // 2]
    assert above == (*left, *right)
    assert [line.row for line in left] == list(range(len(left)))
    assert [line.row for line in right] == list(range(len(right)))
    assert all(len(line.text) < COLUMNS // 2 for line in above)
    assert all(line.row > len(left) for line in below)


def test_what_is_written_where() -> None:
    for page in PAGES:
        for line in page.lines:
            words = line.text.split(" ")
            assert all(words)
            assert line.heading == (line.text == line.text.upper() and any(word.isalpha() for word in words))
            assert all(word.strip(".").isdigit() or word.strip(".").lower() in WORDS for word in words)


@pytest.mark.parametrize("index", range(8))
def test_the_ink_of_a_line_is_in_its_letters_boxes(index: int) -> None:
    page = replace(make_dense_page("val", index), angle=0.0, jpeg=None)
    boxes = [tuple(map(int, box)) for box in letter_boxes(page)]
    start = 0
    for number, line in enumerate(page.lines):
        differs = (pixels(page) != pixels(without(page, number))).any(axis=2)
        own = np.zeros_like(differs)
        for letter, (x1, y1, x2, y2) in zip(line.text, boxes[start:], strict=False):
            cell = differs[y1:y2, x1:x2]
            assert cell.any() or letter == " "
            own[y1:y2, max(0, x1 - 1) : x2 + 1] = True  # a serif may reach a pixel beyond
        assert not (differs & ~own).any()
        start += len(line.text) + 1


def test_a_line_break_looks_at_the_next_line_or_at_the_rule() -> None:
    page = next(page for page in PAGES if page.has_rule and page.columns == 1 and page.angle == 0)
    boxes, place = [tuple(map(int, box)) for box in letter_boxes(page)], 0
    for number, line in enumerate(page.lines[:-1], start=1):
        place += len(line.text)
        x1, y1, *_ = boxes[place]
        if number == page.above_rule:
            assert (x1, y1) == (page.corner[0], page.corner[1] + CELL_HEIGHT * page.rule_row)
            dark = pixels(page)[y1 : y1 + CELL_HEIGHT].mean(axis=(1, 2))
            assert dark.argmin() in (5, 6)
        else:
            following = page.lines[number]
            assert (x1 - page.corner[0], y1 - page.corner[1]) == (
                CELL_WIDTH * following.column,
                CELL_HEIGHT * following.row,
            )
        place += 1


@pytest.mark.parametrize("angle", [-MOST_TILT, 0.5])
def test_the_tilt_takes_letters_where_their_boxes_are(angle: float) -> None:
    """The middle of the ink that a line of one letter leaves, before and behind the tilt."""
    for row, column in [(0, 1), (0, 22), (10, 3), (10, 22), (5, 12)]:
        line = DenseLine("o", row, column, False)
        upright = replace(PAGES[0], lines=(line,), above_rule=1, angle=0.0, corner=(0, 0), jpeg=None)
        middles = []
        for page in (upright, replace(upright, angle=angle)):
            ink = np.asarray(_sheet(page), dtype=float)
            ((x1, y1, x2, y2),) = letter_boxes(page)
            y, x = np.mgrid[:DENSE_SIDE, :DENSE_SIDE] + 0.5
            middles.append([(ink * x).sum() / ink.sum() - (x1 + x2) / 2, (ink * y).sum() / ink.sum() - (y1 + y2) / 2])
        # The glyph's own middle is a few pixels off that of its cell, and turns with the page.
        assert np.abs(np.subtract(*middles)).max() < 0.15


def test_the_drawing_is_the_same_on_every_machine() -> None:
    drawn = b"".join(draw_dense_page(make_dense_page("test", index)).tobytes() for index in range(5))
    assert hashlib.sha256(drawn).hexdigest()[:16] == "ec7e74671eebbaab"


def test_exact_transcripts_have_no_slip_and_others_have_the_declared_ones() -> None:
    wrong = dict.fromkeys(("foot", "heading", "number"), 0)
    seen = dict.fromkeys(wrong, 0)
    for index in range(400):
        page = make_dense_page("train", index)
        assert transcript(page, 0.0) == page.text
        said = transcript(page, SLOPPY).split("\n")
        assert len(said) in (page.above_rule, len(page.lines))
        seen["foot"] += page.has_rule
        wrong["foot"] += len(said) < len(page.lines)
        for line, text in zip(page.lines, said, strict=False):
            assert len(text) == len(line.text)
            seen["heading"] += line.heading
            wrong["heading"] += line.heading and text == line.text.lower()
            for word, read in zip(line.text.split(" "), text.split(" "), strict=True):
                if word[0].isdigit():
                    seen["number"] += 1
                    wrong["number"] += read != word
                    assert read in (word, "".join(MISREAD.get(letter, letter) for letter in word))
                else:
                    assert read in ({word, word.lower()} if line.heading else {word})
    for kind, count in wrong.items():
        # Four standard errors of a share near SLOPPY.
        assert count / seen[kind] == pytest.approx(SLOPPY, abs=4 * 0.48 / seen[kind] ** 0.5), kind


def test_every_slip_costs_and_more_slips_cost_more() -> None:
    from rapidfuzz.distance import Levenshtein

    def distance(share: float) -> float:
        pairs = [(transcript(page, share), page.text) for page in PAGES]
        return float(np.mean([Levenshtein.normalized_distance(said, text) for said, text in pairs]))

    assert distance(0.0) == 0 < 0.1 < distance(SLOPPY) < distance(1.0) < 0.4


def test_no_page_has_a_word_of_the_other_tasks() -> None:
    spoken = {
        word.lower()
        for text in corpus([scene_lesson(index, 0.6) for index in range(40)])
        for word in "".join(letter if letter.isalpha() else " " for letter in text).split()
    }
    assert spoken - {"ocr"} <= set(SPOKEN)
    assert not set(SPOKEN) & set(WORDS)
    assert len(WORDS) > 400


def test_rows_can_be_scored() -> None:
    rows = list(dense_rows("test", pages=4))
    assert DENSE_PAGES["test"] >= 1000
    for row in rows:
        assert OCR_PAGES.rows.problem(row) is None
        assert row["image"].size == (DENSE_SIDE, DENSE_SIDE)
        ((_, query, target),) = OCR_PAGES.rows.samples(row)
        scored = OCR_PAGES.score(target, target, row["image"].size, None)
        assert (query, scored.scores["edit_distance"]) == ("", 0.0)


def test_training_questions(tmp_path) -> None:
    exact = [json.loads(line) for line in write_page_questions(tmp_path / "a", pages=5).read_text().splitlines()]
    sloppy = write_page_questions(tmp_path / "b", pages=5, sloppy=SLOPPY).read_text().splitlines()
    other = write_page_questions(tmp_path / "c", pages=5, seed=1).read_text().splitlines()
    for number, line in enumerate(exact):
        page = make_dense_page("train", DENSE_QUESTIONS_START + number)
        assert (line["answer"], line["question"]) == (page.text, OCR)
        assert (np.asarray(Image.open(tmp_path / "a" / line["image_path"])) == pixels(page)).all()
        loose = json.loads(sloppy[number])
        assert loose["answer"] == transcript(page, SLOPPY)
        assert {**loose, "answer": ""} == {**line, "answer": ""}
    assert not {line["answer"] for line in exact} & {json.loads(line)["answer"] for line in other}
