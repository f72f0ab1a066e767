"""The tiny world: pictures, questions and truths that are drawn, for tests and for learning."""

from perpo.tiny.world.rows import (
    BENCHMARKS,
    EXPRESSIONS_PER_ROW,
    LOOSE_SCALE,
    PROMPT,
    QUESTIONS_START,
    SCENES,
    answer_text,
    benchmark_rows,
    loose_box,
    write_parquet,
    write_questions,
)

__all__ = [
    "BENCHMARKS",
    "EXPRESSIONS_PER_ROW",
    "LOOSE_SCALE",
    "PROMPT",
    "QUESTIONS_START",
    "SCENES",
    "answer_text",
    "benchmark_rows",
    "loose_box",
    "write_parquet",
    "write_questions",
]
