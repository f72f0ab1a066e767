"""LLaVA-Bench-in-the-Wild. How it is asked; a judge scores it (`perpo_eval.judge.llava_bench`)."""

from __future__ import annotations

from perpo.benchmarks import llava_bench
from perpo.benchmarks.prompts import AS_WRITTEN
from perpo_eval.benchmarks.base import TINY_TOKENS, Benchmark, Row, RowFormat, TaskSpec
from perpo_eval.benchmarks.judged import JUDGE_SOURCES, text_problem, unjudged

_INFO = llava_bench.LLAVA_BENCH


def _problem(row: Row) -> str | None:
    if row["category"] not in llava_bench.LLAVA_BENCH_CATEGORIES:
        return f"category is {row['category']!r:.40}; expected {', '.join(llava_bench.LLAVA_BENCH_CATEGORIES)}"
    return text_problem(row, "question", "caption", "reference")


LLAVA_BENCH = Benchmark(
    info=_INFO,
    tasks=(
        TaskSpec("tinywild_test", _INFO.name, "tinywild", "test", TINY_TOKENS),
        TaskSpec("llava_bench_wild", _INFO.name, "llava_bench_wild", "test", _INFO.max_new_tokens),
    ),
    rows=RowFormat(
        "LLaVA-Bench-in-the-Wild",
        ("question_id", "image", "question", "category", "caption", "reference", "file_name"),
        "file_name",
        _problem,
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
    score=unjudged(_INFO),
    sources=JUDGE_SOURCES | {"judge": "perpo_eval.judge.llava_bench"},
)
