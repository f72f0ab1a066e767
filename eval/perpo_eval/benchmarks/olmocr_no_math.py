"""olmOCR-Bench without mathematics. How its pages are asked and scored."""

from __future__ import annotations

import json
from typing import Any

from perpo.answers import answer_of
from perpo.benchmarks import olmocr_no_math, prompts
from perpo.boxes import ImageSize
from perpo.models.families import Family
from perpo.texts.unit_tests import read_tests
from perpo_eval.benchmarks.base import Benchmark, Row, RowFormat, Scored, TaskSpec
from perpo_eval.benchmarks.ocr import PAGE_ROWS
from perpo_eval.scorers.olmocr_no_math import score_tests

_INFO = olmocr_no_math.OLMOCR_NO_MATH


def _problem(row: Row) -> str | None:
    try:
        read_tests(row["answer"])
    except (TypeError, ValueError) as error:
        return f"answer is {row['answer']!r:.60}; expected a JSON list of unit tests ({error})"
    return PAGE_ROWS.problem(row)


def _score(response: str, target: Any, size: ImageSize, family: Family) -> Scored:
    answer = answer_of(response, "text")
    text = None if answer is None else answer.strip()
    return Scored(text, score_tests(text, target), answer is not None)


OLMOCR_NO_MATH = Benchmark(
    info=_INFO,
    tasks=tuple(
        TaskSpec(f"olmocr_{name}", _INFO.name, "olmocr", name, _INFO.max_new_tokens, None, "perpo-data olmocr")
        for name in olmocr_no_math.FILES
    ),
    rows=RowFormat(
        "a tested page",
        PAGE_ROWS.columns,
        PAGE_ROWS.image_name,
        _problem,
        lambda row: [(str(row["question_id"]), row["question"].strip(), json.loads(row["answer"]))],
    ),
    prompt=lambda family, style: prompts.MARKDOWN_PAGE.template,
    default_query=prompts.MARKDOWN_PAGE.usual,
    score=_score,
    example=[],
    sources={
        "scorer": "perpo_eval.scorers.olmocr_no_math",
        "unit tests": "perpo.texts.unit_tests",
        "tables": "perpo.texts.tables",
    },
)
