"""The rows of a regression report, and what is asked of them. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from perpo.benchmarks.base import Definition
from perpo.stats import Difference

Verdict = Literal["regressed", "changed", "inconclusive", "unchanged", "improved", "identical"]
Role = Literal["decides", "guards", "told"]

ALPHA = 0.05
THRESHOLD = 0.5
"""Points below which a difference does not matter, unless told otherwise; 100 are the metric's whole scale."""

FAILURES: tuple[Verdict, ...] = ("regressed", "changed")
"""The verdicts that fail a gate."""


@dataclass(frozen=True)
class Wanted:
    """The wishes of somebody who asks for a report.

    Attributes:
        thresholds: Points (0 to 100 of the metric's scale) by the name of a row, task, group or benchmark, or by one of
            these with a metric behind a dot; "" for all others. A metric or a kind of samples that is named decides.
        metrics: Which metrics gate besides those that a threshold names: the primary one of each task; that and losses
            that are easily missed (`perpo.results.regression.parts.GUARDS`); or all that have a better direction.
        slices: Whether the primary metric is told by kinds of samples, and whether a loss in one kind fails the gate.
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)
    metrics: Literal["primary", "losses", "all"] = "losses"
    slices: Literal["none", "tell", "gate"] = "none"


@dataclass(frozen=True)
class Waiver:
    """A known loss that may pass: in which row, of at most how many points, why, and until when."""

    task: str
    reason: str
    expires: date
    max_loss: float


@dataclass(frozen=True)
class Pairs:
    """Counts of samples that both runs had right, one alone, or neither: a description (it ignores clusters)."""

    both: int
    baseline_only: int
    candidate_only: int
    neither: int


@dataclass(frozen=True)
class ReportRow:
    """One metric of a task, of an average of tasks, or of one kind of a task's samples.

    Attributes:
        task: The task's name, or the group's.
        tasks: The tasks that it is made of.
        benchmark: What the record calls the benchmark.
        metric: What is compared.
        baseline: The baseline's value over the compared samples, or None; of several runs their mean.
        candidate: The candidate's.
        difference: Candidate minus baseline.
        threshold: In the metric's unit, above 0.
        p_adjusted: Over all rows of all candidates that are tested; None where there is no p-value.
        verdict: See `perpo.results.regression.verdicts`.
        mde: The smallest effect found with a power of 80%, or None.
        pairs: For scores that are 0 or 1, of one run a side.
        waiver: What lets a regression pass, or None.
        role: Whether its verdict is one of the report's ("decides"), counts only where it fails ("guards"), or is told
            beside it ("told").
        kind: By what its samples are told apart and which these are, such as ("box size", "below 1% of the picture");
            None for all samples.
        primary: Whether the metric stands for the benchmark.
        left_out: Samples that are left out, because an answer, a judgement or a score is missing in one of the runs.
    """

    task: str
    tasks: list[str]
    benchmark: str
    metric: Definition
    baseline: float | None
    candidate: float | None
    difference: Difference
    threshold: float
    p_adjusted: float | None = None
    verdict: Verdict = "inconclusive"
    mde: float | None = None
    pairs: Pairs | None = None
    waiver: Waiver | None = None
    role: Role = "decides"
    kind: tuple[str, str] | None = None
    primary: bool = True
    left_out: int = 0

    @property
    def name(self) -> str:
        """Return what waivers, thresholds and texts call it: a.parse_fail, or a[box size: below 1% of the picture]."""
        return row_name(self.task, self.metric, self.kind, primary=self.primary)

    @property
    def gain(self) -> float | None:
        """The difference, above 0 where the candidate is better; of a metric without a better direction as it is."""
        value = self.difference.value
        return -value if value is not None and self.metric.higher_is_better is False else value

    @property
    def fails(self) -> bool:
        """Return whether it fails a gate."""
        return self.verdict in FAILURES and self.waiver is None and self.role != "told"

    @property
    def differs(self) -> bool:
        """Return whether the runs differ in any sample, so that there is something to test."""
        return self.difference.method != "cluster-exact" or self.difference.value != 0


def row_name(task: str, metric: Definition, kind: tuple[str, str] | None, *, primary: bool) -> str:
    """Return what a row is called; see `ReportRow.name`."""
    named = task if primary else f"{task}.{metric.name}"
    return f"{named}[{kind[0]}: {kind[1]}]" if kind else named


def directed(row: ReportRow, interval: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return an interval of a row's difference as one of its gain."""
    if interval is None or row.metric.higher_is_better is not False:
        return interval
    return -interval[1], -interval[0]
