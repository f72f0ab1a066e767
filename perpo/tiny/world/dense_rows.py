"""Dense pages as rows to score and as questions to train on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perpo.benchmarks.ocr import told_columns
from perpo.benchmarks.prompts import OCR
from perpo.common.files import atomic_write_text, disk_errors, make_folder
from perpo.tiny.world.dense import DENSE_PAGES, DENSE_QUESTIONS_START, make_dense_page, transcript
from perpo.tiny.world.dense_drawing import draw_dense_page


def dense_rows(split: str, *, pages: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield rows of "val" or "test" in the columns that `perpo-data` gives page images.

    Args:
        split: A key of `DENSE_PAGES`.
        pages: How many (all by default).

    Yields:
        question_id, image (PIL), question (empty: the task's prompt), answer (the exact text), language,
        layout, file_name, image_id.
    """
    for index in range(DENSE_PAGES[split] if pages is None else pages):
        page = make_dense_page(split, index)
        yield {
            "question_id": f"{split}_{index}",
            "image": draw_dense_page(page),
            "question": "",
            "answer": page.text,
            "language": "en",
            "layout": told_columns(page.columns),
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
