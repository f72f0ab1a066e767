"""MMHal-Bench: a judge rates how much of an answer is made up."""

from __future__ import annotations

from perpo.benchmarks.base import BenchmarkInfo, Definition, Rule, rating

MMHAL_TYPES = (
    "attribute", "adversarial", "comparison", "counting", "relation", "environment", "holistic", "other",
)  # fmt: skip
"""In the order of the published file: the type of question number n is the one at n modulo 8."""


def _metrics(suffix: str = "") -> tuple[Definition, Definition]:
    kind = suffix.removeprefix(":")
    rate = Definition(f"hallucination_rate{suffix}", kind or "hallucination rate", False, judged=True)
    return rating(f"score{suffix}", kind or "score", 6, 0), rate


MMHAL = BenchmarkInfo(
    name="mmhal",
    answer="open",
    metrics=(
        *_metrics(),
        Definition("missing", "missing", False, judged=True),
        *(metric for kind in MMHAL_TYPES for metric in _metrics(f":{kind}")),
    ),
    primary="score",
    shown=("score", "hallucination_rate"),
    meanings={
        "score": "the judge's rating, 0 to 6, averaged; below 3 is a hallucination",
        "hallucination_rate": "share of answers that the judge rates below 3",
        "missing": "share of questions without a rating",
    },
    right=Rule("the judge gives at least 3 of 6 points", "score", 3.0, "score", "rating", (0, 6)),
    flip_scores=("score",),
    told_scores=("score",),
    suites=("judged",),
    max_new_tokens=1024,
    column_titles={
        ("mmhal_bench", "score"): "MMHal score",
        ("mmhal_bench", "hallucination_rate"): "MMHal hallucination",
    },
    leading_tasks=("mmhal",),
    note=(
        "Score: 0 to 6. Hallucination rate: the share of scores below 3. Missing: no judgement could be had or read; "
        "never counted as a score."
    ),
    judge_prompt="mmhal.txt",
)
