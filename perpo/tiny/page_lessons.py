"""Lessons on dense pages for the embedded OCR checkpoint, beside those on scenes, in batches made from their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from perpo.tiny.lessons import PATCH, Lesson, LessonQuestion, Packer, Topic, scene_lesson, under
from perpo.tiny.world.dense import (
    CELL_WIDTH,
    COLUMNS,
    DENSE_QUESTIONS_START,
    DENSE_SIDE,
    DensePage,
    cell_box,
    letter_boxes,
    letter_cells,
    make_dense_page,
    transcript,
)
from perpo.tiny.world.dense_drawing import draw_dense_page
from perpo.tiny.world.rows import QUESTIONS_START

PAGE_GRID = DENSE_SIDE // PATCH
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789."
RULE, NOTHING = len(CHARACTERS), len(CHARACTERS) + 1
"""Classes of a half of a patch that holds a piece of the rule, or nothing, beside the characters'."""

LOOSE = 0.6
"""Share of loose boxes among the labels, as of the other embedded checkpoint."""


@dataclass(frozen=True)
class Period:
    """A part of the build.

    Attributes:
        name: What is learnt.
        steps: Optimiser steps.
        learning_rate: Peak of the cosine.
        pages: Pages a step, for each process.
        boxes: Scenes a step that are asked about boxes, for each process.
        yes_no: Scenes a step that are asked about objects, for each process.
        sloppy: Share of the slips that the transcripts have.
        tower_only: Whether only the vision tower learns, from what each patch holds.
        questions: Questions about a scene.
        cells: Whether the model is told in which row and column of its page each next letter stands.
        plain: Whether the pages are plain ones (see `make_dense_page`).
    """

    name: str
    steps: int
    learning_rate: float
    pages: int
    boxes: int
    yes_no: int
    sloppy: float = 0.0
    tower_only: bool = False
    questions: int = 6
    cells: bool = False
    plain: bool = True


def dense_page_lesson(page: DensePage, sloppy: float) -> Lesson:
    """Return a page with its one question; `patches` is (144, 2), the letter in each half."""
    boxes, text = letter_boxes(page), transcript(page, sloppy)
    # The first token of the reply is the separator before it. Where the foot is left out, the end of the answer is
    # read off the rule, as the line break before the foot is where it is not left out.
    ends = len(text) if len(text) < len(page.text) else len(text) - 1
    look = [(k + 1, under(box, PAGE_GRID)) for k, box in enumerate(boxes[: ends + 1])]
    question = LessonQuestion("text", "", text, None, look)
    return Lesson(np.asarray(draw_dense_page(page)), [question], _halves(page))


def page_cells(page: DensePage, count: int) -> np.ndarray:
    """Return (count, 2) row and column on a page of what its first tokens with a place are about."""
    return np.array(letter_cells(page)[:count])[:, :2]


def _halves(page: DensePage) -> np.ndarray:
    halves = np.full((PAGE_GRID, PAGE_GRID, 2), NOTHING, dtype=np.int64)

    def mark(row: int, column: int, what: int) -> None:
        x1, y1, x2, y2 = cell_box(page, row, column)
        x, y = int((x1 + x2) / 2), int((y1 + y2) / 2)
        if x < DENSE_SIDE:
            halves[y // PATCH, x // PATCH, x % PATCH // CELL_WIDTH] = what

    if page.has_rule:
        for column in range(COLUMNS):
            mark(page.rule_row, column, RULE)
    for letter, (row, column, size) in zip(page.text, letter_cells(page), strict=True):
        if letter in CHARACTERS:
            for k in range(size * size):
                mark(row + k // size, column + k % size, CHARACTERS.index(letter))
    return halves.reshape(-1, 2)


class PageBatches:
    """The batches of a period: each depends only on the seed and its number."""

    def __init__(self, processor: Any, period: Period, seed: Sequence[int]) -> None:
        self.packer, self.period, self.seed = Packer(processor, PAGE_GRID), period, seed

    def __getitem__(self, step: int) -> dict[str, Any]:
        """Return batch `step`, as `Packer.batch` has it; for the tower alone, only what that needs.

        There is also cells (C, 2): row and column of what the last C rows of pointing, those of pages, point to.
        """
        rng, period = np.random.default_rng([*self.seed, step]), self.period
        topics: list[Topic] = [*["box"] * period.boxes, *["yes_no"] * period.yes_no]  # type: ignore[list-item]
        scenes = [(scene_lesson(int(rng.integers(QUESTIONS_START)), LOOSE, PAGE_GRID), topic) for topic in topics]
        numbers = rng.integers(DENSE_QUESTIONS_START, size=period.pages)
        drawn = [make_dense_page("train", int(index), plain=period.plain) for index in numbers]
        pages = [dense_page_lesson(page, period.sloppy) for page in drawn]
        if not period.tower_only:
            batch = self.packer.batch(scenes, pages, rng, period.questions, easy=False)
            cells = [page_cells(k, len(page.questions[0].look)) for k, page in zip(drawn, pages, strict=True)]
            return batch | {"cells": torch.from_numpy(np.concatenate(cells))}
        return {
            "pixel_values": self.packer.pixels([*(lesson for lesson, _ in scenes), *pages]),
            "scene_patches": torch.from_numpy(np.stack([lesson.patches for lesson, _ in scenes])),
            "page_patches": torch.from_numpy(np.stack([page.patches for page in pages])),
        }
