"""Benchmarks that a judge rates: LLaVA-Bench-in-the-Wild and MMHal-Bench."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perpo.answers import answer_of
from perpo.benchmarks.metrics import LLAVA_BENCH_CATEGORIES, MMHAL_TYPES, score_names
from perpo.benchmarks.prompts import AS_WRITTEN
from perpo.boxes import ImageSize
from perpo.models.families import Family
from perpo_eval.benchmarks.base import Benchmark, Row, RowFormat, Scored


def _text_problem(row: Row, *names: str) -> str | None:
    bad = next((name for name in names if not isinstance(row[name], str) or not row[name].strip()), None)
    return bad and f"{bad} is {row[bad]!r:.60}; expected a text"


def _llava_bench_problem(row: Row) -> str | None:
    if row["category"] not in LLAVA_BENCH_CATEGORIES:
        return f"category is {row['category']!r:.40}; expected {', '.join(LLAVA_BENCH_CATEGORIES)}"
    return _text_problem(row, "question", "caption", "reference")


def _mmhal_problem(row: Row) -> str | None:
    if row["question_type"] not in MMHAL_TYPES:
        return f"question_type is {row['question_type']!r:.40}; expected one of {', '.join(MMHAL_TYPES)}"
    names = row["image_content"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return f"image_content is {names!r:.60}; expected a list of names"
    return _text_problem(row, "question", "gt_answer")


def _unjudged(name: str) -> Callable[[str, Any, ImageSize, Family], Scored]:
    """A judge scores later (`perpo_eval.judge.verdicts`): until then every score is None."""

    def score(response: str, target: Any, size: ImageSize, family: Family) -> Scored:
        return Scored(None, dict.fromkeys(score_names(name)), answer_of(response, "text") is not None)

    return score


LLAVA_BENCH = Benchmark(
    name="llava_bench",
    rows=RowFormat(
        "LLaVA-Bench-in-the-Wild",
        ("question_id", "image", "question", "category", "caption", "reference", "file_name"),
        "file_name",
        _llava_bench_problem,
        lambda row: [
            (
                str(row["question_id"]),
                row["question"],
                {name: row[name] for name in ("category", "caption", "reference")},
            )
        ],
    ),
    prompt=lambda family, style: AS_WRITTEN.template,
    default_query=AS_WRITTEN.usual,
    score=_unjudged("llava_bench"),
)
MMHAL = Benchmark(
    name="mmhal",
    rows=RowFormat(
        "MMHal-Bench",
        ("question_id", "image", "question", "question_type", "image_content", "gt_answer", "file_name"),
        "file_name",
        _mmhal_problem,
        lambda row: [
            (
                str(row["question_id"]),
                row["question"],
                {
                    "category": row["question_type"],
                    "image_content": row["image_content"],
                    "reference": row["gt_answer"],
                },
            )
        ],
    ),
    prompt=lambda family, style: AS_WRITTEN.template,
    default_query=AS_WRITTEN.usual,
    score=_unjudged("mmhal"),
)
