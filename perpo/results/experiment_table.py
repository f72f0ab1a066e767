"""The table of one recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from perpo.benchmarks.base import BenchmarkInfo
from perpo.benchmarks.grounding import GROUNDING
from perpo.benchmarks.table import info_of
from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError
from perpo.records.run_record import GroupResult, Metric, RunRecord, metric_of
from perpo.records.store import Run
from perpo.results.compare import check_comparable, paired_difference
from perpo.results.samples import Scores, read_scores
from perpo.results.text import FRACTION, INTERVAL_NOTE, TINY_NOTE, TINY_PAGES_NOTE, Text, cell, is_tiny, number
from perpo.stats import Estimate

_ALSO = {GROUNDING.name: ("iou", "parse_fail")}
"""What else a leaderboard of a benchmark shows; all that its other leaderboards show where nothing is said here."""


@dataclass(frozen=True)
class Beside:
    """A run on another benchmark: its primary metric, and that minus the base's, paired; None for the base."""

    metric: Metric
    delta: Estimate | None


@dataclass(frozen=True)
class ExperimentRow:
    """One run of a leaderboard.

    Attributes:
        label: What the row is called.
        run_id: The run.
        tasks: The benchmark's primary metric for each of its tasks.
        average: The same over the tasks.
        delta: Average minus the base's, paired; None for the base itself.
        delta_against: The same against the second reference.
        metrics: Other metrics over the tasks, by name.
        beside: Other benchmarks that were run, by name.
        seconds: Wall seconds of each stage that led to the run.
    """

    label: str
    run_id: str
    tasks: dict[str, Metric]
    average: Metric
    delta: Estimate | None
    delta_against: Estimate | None
    metrics: dict[str, Metric]
    beside: dict[str, Beside]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Leaderboard:
    """Several runs on the same samples; see `leaderboard`."""

    base: str
    against: str | None
    benchmark: str
    tiny: bool
    n: int
    n_clusters: int
    entries: list[ExperimentRow]

    def text(self) -> Text:
        """Return the rows and columns, in percent."""
        info, first = info_of(self.benchmark), self.entries[0]
        # In the order of the run that went through most of them.
        times = sorted((entry.seconds for entry in self.entries), key=len, reverse=True)
        stages = list(dict.fromkeys(stage for seconds in times for stage in seconds))
        header = ["run", "avg", f"vs {self.base}"]
        header += [f"vs {self.against}"] if self.against else []
        header += [info.title(name) for name in first.metrics]
        groups = [len(header)]
        for name in first.beside:
            header += [f"{name} {info_of(name).title(info_of(name).primary)}", f"{name} vs {self.base}"]
        groups += [len(header)] if first.beside else []
        header += [f"{stage} s" for stage in stages]
        # One task is the average.
        tasks = list(first.tasks) if len(first.tasks) > 1 else []
        groups += [len(header)] if tasks else []
        header += tasks
        rows = []
        for entry in self.entries:
            row = [entry.label, cell(entry.average), cell(entry.delta, signed=True)]
            row += [cell(entry.delta_against, signed=True)] if self.against else []
            row += [_percent(metric.value) for metric in entry.metrics.values()]
            for other in entry.beside.values():
                row += [cell(other.metric), cell(other.delta, signed=True)]
            row += [f"{entry.seconds[stage]:.0f}" if stage in entry.seconds else "" for stage in stages]
            rows.append(row + [_percent(entry.tasks[task].value) for task in tasks])
        tiny = TINY_NOTE if self.benchmark == GROUNDING.name else TINY_PAGES_NOTE
        notes = [INTERVAL_NOTE, f"Differences are paired by {self._sample}.", *([tiny] if self.tiny else [])]
        return Text(self._title(info), header, rows, notes, tuple(groups))

    @property
    def _sample(self) -> str:
        return "expression" if self.benchmark == GROUNDING.name else "question"

    def _title(self, info: BenchmarkInfo) -> str:
        primary = info.by_name[info.primary]
        lower = "" if primary.higher_is_better else ", lower is better"
        return f"{primary.title} (%{lower}) on {self.n:,} {self._sample}s about {self.n_clusters:,} images"

    def as_json(self) -> dict[str, Any]:
        """Return the same with full precision, as fractions."""
        return dataclasses.asdict(self) | {"metric": info_of(self.benchmark).primary, "notes": self.text().notes}


def leaderboard(
    runs: Mapping[str, Run],
    base: str,
    *,
    against: str | None = None,
    seconds: Mapping[str, Mapping[str, float]] | None = None,
    benchmark: str = GROUNDING.name,
) -> Leaderboard:
    """Rank nothing, show everything: runs in the given order with paired differences.

    Args:
        runs: Row label and run, in the order of the rows.
        base: The label that differences are taken against.
        against: A second such label, or None.
        seconds: Wall seconds of each stage, by row label.
        benchmark: What the runs are compared on; the other benchmarks that they hold stand beside it.

    Raises:
        PerpoError: An unknown label, runs without that benchmark, or runs that cannot be compared.
    """
    for label in filter(None, (base, against)):
        if label not in runs:
            raise PerpoError(f"the leaderboard has no run called '{label}'", did_you_mean(label, runs))
    for run in runs.values():
        check_comparable(run, runs[base])
    scores = {label: read_scores(run) for label, run in runs.items()}
    leading = _group(runs[base].record, benchmark)
    others = [group for group in runs[base].record.groups if group is not leading]

    def difference(label: str, reference: str | None, group: GroupResult) -> Estimate | None:
        if reference is None or label == reference:
            return None
        info = info_of(group.benchmark)
        return paired_difference(_of(scores[label], group), _of(scores[reference], group), info.by_name[info.primary])

    entries = []
    for label, run in runs.items():
        record, info = run.record, info_of(benchmark)
        averages, also = _group(record, benchmark).metrics, _ALSO.get(benchmark, info.shown[1:])
        entries.append(
            ExperimentRow(
                label=label,
                run_id=record.run_id,
                tasks={name: _metric(record.task(name).metrics, info.primary) for name in leading.tasks},
                average=_metric(averages, info.primary),
                delta=difference(label, base, leading),
                delta_against=difference(label, against, leading),
                metrics={name: _metric(averages, name) for name in also},
                beside={
                    group.name: Beside(
                        _metric(_named(record, group.name).metrics, info_of(group.benchmark).primary),
                        difference(label, base, group),
                    )
                    for group in others
                },
                seconds=dict((seconds or {}).get(label, {})),
            )
        )
    average, tiny = entries[0].average, is_tiny(runs[base].record)
    return Leaderboard(base, against, benchmark, tiny, average.n or 0, average.n_clusters or 0, entries)


def _percent(value: float | None) -> str:
    return "" if value is None else number(value, FRACTION)


def _metric(metrics: list[Metric], name: str) -> Metric:
    metric = metric_of(metrics, name)
    if metric is None:
        raise PerpoError(f"a run has no {name}", "evaluate it again with this version of perpo")
    return metric


def _group(record: RunRecord, benchmark: str) -> GroupResult:
    """The tasks of a benchmark that belong together; where it has several such groups, nobody has said which."""
    groups = [group for group in record.groups if group.benchmark == benchmark]
    if len(groups) != 1:
        raise PerpoError(
            f"a run has {len(groups)} averages of {benchmark}, and a leaderboard is of one",
            "evaluate on one group of tasks of the benchmark that is compared",
        )
    return groups[0]


def _named(record: RunRecord, name: str) -> GroupResult:
    group = record.group(name)
    if group is None:
        raise PerpoError(f"a run has no {name}, but the base has", "evaluate all runs on the same tasks")
    return group


def _of(scores: Scores, group: GroupResult) -> Scores:
    return scores.take(np.isin(scores.tasks, group.tasks))
