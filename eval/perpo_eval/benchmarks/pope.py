"""POPE: yes or no, whether an object is in the picture. How it is asked and scored."""

from __future__ import annotations

from typing import Any

from perpo.benchmarks import pope, prompts
from perpo.boxes import ImageSize
from perpo.models.families import Family
from perpo.prepare.hub.rows import hub_tasks
from perpo_eval.benchmarks.base import Benchmark, Row, RowFormat, Scored, TaskSpec
from perpo_eval.scorers.pope import parse_answer, score_answer

_INFO = pope.POPE


def _tasks() -> tuple[TaskSpec, ...]:
    specs, hub, limit = [], hub_tasks(), _INFO.max_new_tokens
    for split in pope.POPE_SPLITS:
        specs.append(TaskSpec(f"tinypope_{split}", _INFO.name, "tinypope", split, limit))
        name = f"coco_pope_{split}"
        specs.append(TaskSpec(name, _INFO.name, "coco_pope", split, limit, hub[name], "perpo-data pope"))
    return tuple(specs)


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
    info=_INFO,
    tasks=_tasks(),
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
    example="yes",
    sources={"scorer": "perpo_eval.scorers.pope"},
)
