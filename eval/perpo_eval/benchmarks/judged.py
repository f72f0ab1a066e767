"""Parts that the benchmarks which a judge rates have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perpo.answers import answer_of
from perpo.benchmarks.base import BenchmarkInfo
from perpo.boxes import ImageSize
from perpo.models.families import Family
from perpo_eval.benchmarks.base import Row, Scored

JUDGE_SOURCES = {
    "judged benchmarks": "perpo_eval.benchmarks.judged",
    "judging": "perpo_eval.judge.base",
    "judge's question": "perpo_eval.judge.messages",
    "judge's ratings": "perpo_eval.judge.ratings",
    "judge's verdicts": "perpo_eval.judge.verdicts",
    "judge's error": "perpo_eval.judge.readings",
}
"""The modules that make scores of what a judge says, by what they do."""


def text_problem(row: Row, *names: str) -> str | None:
    """Return what is wrong with the first of a row's texts that is none, or None."""
    bad = next((name for name in names if not isinstance(row[name], str) or not row[name].strip()), None)
    return bad and f"{bad} is {row[bad]!r:.60}; expected a text"


def unjudged(info: BenchmarkInfo) -> Callable[[str, Any, ImageSize, Family], Scored]:
    """Return what scores answers before a judge does (`perpo_eval.judge.verdicts`): every score is None."""

    def score(response: str, target: Any, size: ImageSize, family: Family) -> Scored:
        return Scored(None, dict.fromkeys(info.score_names()), answer_of(response, "text") is not None)

    return score
