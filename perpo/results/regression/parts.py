"""Choose the rows of a regression report: tasks, averages of those that belong together, metrics. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perpo.benchmarks.base import BenchmarkInfo, Definition
from perpo.benchmarks.declared import info_in
from perpo.benchmarks.grounding import IN_FRAMES
from perpo.records.run_record import GroupResult
from perpo.records.store import Run
from perpo.results.regression.rows import THRESHOLD, Role, Wanted

CUT = Definition("truncated", "cut off", False)
"""The share of answers that were cut, at the token limit or where they looped. Every benchmark has it where it is known
why answers ended."""

GUARDS = ("parse_fail", CUT.name)
"""Losses that gate although they are no benchmark's main number: answers that cannot be read, or have no end."""


@dataclass(frozen=True)
class ReportPart:
    """Some tasks of one benchmark that become a row of the report."""

    name: str
    group: str
    info: BenchmarkInfo
    tasks: list[str]

    @property
    def benchmark(self) -> str:
        """Return the benchmark's name."""
        return self.info.name


@dataclass(frozen=True)
class AskedMetric:
    """A metric of a part, what its row is for, and its threshold in points (0 to 100 of the metric's scale)."""

    metric: Definition
    primary: bool
    role: Role
    points: float


def parts_of(run: Run, present: set[str]) -> list[ReportPart]:
    """Return the tasks, and behind those of each group their average."""
    parts = []
    for group in run.record.groups:
        tasks = [task for task in group.tasks if task in present]
        info = info_in(run.record.tasks, group.benchmark)
        parts += [ReportPart(task, group.name, info, [task]) for task in tasks]
        if len(tasks) > 1:
            parts.append(ReportPart(_average_name(group, tasks), group.name, info, tasks))
    return parts


def _average_name(group: GroupResult, tasks: Sequence[str]) -> str:
    return group.name if group.name not in tasks else f"{group.name} (average)"


def metrics_of(part: ReportPart, scores: set[str]) -> tuple[Definition, list[Definition]]:
    """Return the metric that stands for a part's benchmark, and the others that samples with these scores have.

    Accuracies with the answers read in other frames than the declared one say nothing of quality and are no metrics
    here. A benchmark's own share of cut answers stands before that of the engine.
    """
    info = part.info
    primary = info.by_name[info.primary]
    others = [metric for metric in info.metrics if metric is not primary and metric.name not in IN_FRAMES]
    if not any(metric.name == CUT.name for metric in others):
        others.append(CUT)
    return primary, [metric for metric in others if metric.needs() <= scores]


def slice_metric(part: ReportPart) -> str:
    """Return the metric that kinds of a part's samples are told by: the primary one, and where that is a ratio, which
    may say nothing within one kind (F1 among questions whose answer is no), the share of right answers.
    """
    info = part.info
    ratio, right = bool(info.by_name[info.primary].bottom), info.right.score
    return right if ratio and right in info.by_name else info.primary


def decisive_score(part: ReportPart) -> str:
    """Return the score of a part's benchmark by which a sample is said to have been lost."""
    return part.info.flip_scores[0]


def asked_of(part: ReportPart, scores: set[str], wanted: Wanted) -> list[AskedMetric]:
    """Return the metrics of a part, the primary one first, with what each is for."""
    primary, others = metrics_of(part, scores)
    asked = []
    for metric in (primary, *others):
        named = _named(part, metric, wanted)
        points = named if named is not None else _general(part, wanted)
        role: Role = "told"
        if metric is primary or named is not None or (metric.higher_is_better is not None and wanted.metrics == "all"):
            role = "decides"
        elif metric.name in GUARDS and wanted.metrics == "losses":
            role = "guards"
        asked.append(AskedMetric(metric, metric is primary, role, points))
    return asked


def _named(part: ReportPart, metric: Definition, wanted: Wanted) -> float | None:
    keys = (f"{name}.{metric.name}" for name in (part.name, part.group, part.benchmark))
    return next((wanted.thresholds[key] for key in keys if key in wanted.thresholds), None)


def _general(part: ReportPart, wanted: Wanted) -> float:
    keys = (part.name, part.group, part.benchmark, "")
    return next((wanted.thresholds[key] for key in keys if key in wanted.thresholds), THRESHOLD)


def threshold_names(parts: Sequence[ReportPart], scores: set[str]) -> set[str]:
    """Return what a threshold can be given for: parts, and their benchmarks, alone or with a metric behind a dot."""
    names = set()
    for part in parts:
        primary, others = metrics_of(part, scores)
        for name in (part.name, part.group, part.benchmark):
            names |= {name, *(f"{name}.{metric.name}" for metric in (primary, *others))}
    return names
