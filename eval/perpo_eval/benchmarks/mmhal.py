"""MMHal-Bench. How it is asked; a judge scores it (`perpo_eval.judge.mmhal`)."""

from __future__ import annotations

from perpo.benchmarks import mmhal
from perpo.benchmarks.prompts import AS_WRITTEN
from perpo_eval.benchmarks.base import TINY_TOKENS, Benchmark, Row, RowFormat, TaskSpec
from perpo_eval.benchmarks.judged import JUDGE_SOURCES, text_problem, unjudged

_INFO = mmhal.MMHAL


def _problem(row: Row) -> str | None:
    if row["question_type"] not in mmhal.MMHAL_TYPES:
        return f"question_type is {row['question_type']!r:.40}; expected one of {', '.join(mmhal.MMHAL_TYPES)}"
    names = row["image_content"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return f"image_content is {names!r:.60}; expected a list of names"
    return text_problem(row, "question", "gt_answer")


MMHAL = Benchmark(
    info=_INFO,
    tasks=(
        TaskSpec("tinymmhal_test", _INFO.name, "tinymmhal", "test", TINY_TOKENS),
        TaskSpec("mmhal_bench", _INFO.name, "mmhal_bench", "test", _INFO.max_new_tokens),
    ),
    rows=RowFormat(
        "MMHal-Bench",
        ("question_id", "image", "question", "question_type", "image_content", "gt_answer", "file_name"),
        "file_name",
        _problem,
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
    score=unjudged(_INFO),
    sources=JUDGE_SOURCES | {"judge": "perpo_eval.judge.mmhal"},
)
