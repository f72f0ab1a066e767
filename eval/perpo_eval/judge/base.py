"""The way in which a judge rates one benchmark: what it is asked, and how what it says is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perpo.benchmarks.base import BenchmarkInfo
from perpo.records.run_record import Metric

Vote = dict[str, Any]
"""One vote on a sample, as `perpo_eval.judge.verdicts` describes it."""

Messages = list[dict[str, str]]
"""OpenAI chat messages."""


@dataclass(frozen=True)
class Judging:
    """The way in which a judge rates one benchmark.

    Attributes:
        info: The benchmark.
        pairs: Whether the judge sees two answers, which can be shown in either order.
        messages: What it is asked of (question, target, answer, whether the model's answer is shown first).
        parse: Its rating as we read its text; None if there is none.
        official: Its rating as the official script reads its text.
        flags: What is odd about its text.
        scores: The scores that each readable vote of a sample gives, by name.
        official_metrics: The official script's numbers, of its ratings.
    """

    info: BenchmarkInfo
    pairs: bool
    messages: Callable[[str, Mapping[str, Any], str, bool], Messages]
    parse: Callable[[str], tuple[float, float] | int | None]
    official: Callable[[str], Any]
    flags: Callable[[str], list[str]]
    scores: Callable[[Sequence[Vote]], list[dict[str, float]]]
    official_metrics: Callable[[Sequence[Any]], list[Metric]]


def alone(name: str, value: float | None, n: int, higher_is_better: bool | None, unit: str) -> Metric:
    """Return a metric without an interval."""
    return Metric(name, value, None, None, None, None, n, None, higher_is_better, unit)
