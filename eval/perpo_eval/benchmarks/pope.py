"""POPE: yes or no, whether an object is in the picture."""

from __future__ import annotations

from typing import Any

from perpo.benchmarks import prompts
from perpo.boxes import ImageSize
from perpo.models.families import Family
from perpo_eval.benchmarks.base import Benchmark, Row, RowFormat, Scored
from perpo_eval.scorers.pope import parse_answer, score_answer


def _problem(row: Row) -> str | None:
    if not isinstance(row["question"], str) or not row["question"].strip():
        return f"question is {row['question']!r}; expected a text"
    if row["answer"] not in ("yes", "no"):
        return f"answer is {row['answer']!r}; expected yes or no"
    return None


def _score(response: str, target: Any, size: ImageSize, family: Family) -> Scored:
    scores: dict[str, float | None] = dict(score_answer(response, target))
    return Scored(parse_answer(response), scores, not scores["parse_fail"])


POPE = Benchmark(
    name="pope",
    rows=RowFormat(
        "POPE",
        ("question_id", "image", "question", "answer", "image_source"),
        "image_source",
        _problem,
        lambda row: [(str(row["question_id"]), row["question"].strip(), row["answer"])],
    ),
    prompt=lambda family, style: prompts.POPE.template,
    default_query=prompts.POPE.usual,
    score=_score,
)
