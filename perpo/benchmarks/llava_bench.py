"""LLaVA-Bench-in-the-Wild: a judge rates an answer beside a reference answer."""

from __future__ import annotations

from perpo.benchmarks.base import BenchmarkInfo, Definition, Rule, rating

LLAVA_BENCH_CATEGORIES = ("conv", "detail", "complex")


def _relative(suffix: str = "") -> Definition:
    name, title = f"relative_score{suffix}", suffix.removeprefix(":") or "relative score"
    above, below = {f"model{suffix}": 1.0}, {f"reference{suffix}": 1.0}
    # A rating is 1 to 10, and so a question's own ratio a tenth to ten.
    return Definition(name, title, True, above, below, bounds=(0.1, 10.0), top_bounds=(1.0, 10.0), judged=True)


LLAVA_BENCH = BenchmarkInfo(
    name="llava_bench",
    answer="open",
    metrics=(
        _relative(),
        rating("model", "model's rating", 10, 1),
        rating("reference", "reference's rating", 10, 1, None),
        Definition("missing", "missing", False, judged=True),
        *(_relative(f":{category}") for category in LLAVA_BENCH_CATEGORIES),
    ),
    primary="relative_score",
    shown=("relative_score",),
    meanings={
        "relative_score": "sum of the judge's ratings over the sum of its ratings of the reference answers",
        "model": "the judge's rating of the answers, 1 to 10",
        "reference": "the judge's rating of the reference answers, 1 to 10",
        "missing": "share of questions without a rating",
    },
    right=Rule(
        "the judge rates it no lower than the reference", "model", 0, "model", "rating", (1, 10), rival="reference"
    ),
    flip_scores=("model",),
    told_scores=("model", "reference"),
    suites=("judged",),
    max_new_tokens=1024,
    column_titles={("llava_bench_wild", "relative_score"): "LLaVA^W"},
    leading_tasks=("llava_bench",),
    note=(
        "Relative score: the sum of the model's ratings over that of the reference answers', of the questions that "
        "have both. Missing: no judgement could be had or read; never counted as a score."
    ),
    judge_prompt="llava_bench.json",
)
