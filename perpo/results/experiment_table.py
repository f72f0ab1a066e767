"""The table of one recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perpo.benchmarks.grounding import GROUNDING
from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError
from perpo.records.run_record import Metric, RunRecord, metric_of
from perpo.records.store import Run
from perpo.results.compare import check_comparable, paired_difference
from perpo.results.samples import read_scores
from perpo.results.text import FRACTION, INTERVAL_NOTE, TINY_NOTE, Text, cell, is_tiny, number
from perpo.stats import Estimate

_METRIC = GROUNDING.primary


@dataclass(frozen=True)
class ExperimentRow:
    """One run of a leaderboard.

    Attributes:
        label: What the row is called.
        run_id: The run.
        tasks: Acc@0.5 of each task.
        average: Acc@0.5 over the tasks.
        delta: Average minus the base's, paired; None for the base itself.
        delta_against: The same against the second reference.
        iou: Mean IoU over the tasks.
        parse_fail: Share of unreadable answers over the tasks.
        seconds: Wall seconds of each stage that led to the run.
    """

    label: str
    run_id: str
    tasks: dict[str, Metric]
    average: Metric
    delta: Estimate | None
    delta_against: Estimate | None
    iou: Metric
    parse_fail: Metric
    seconds: dict[str, float]


@dataclass(frozen=True)
class Leaderboard:
    """Several runs on the same samples; see `leaderboard`."""

    base: str
    against: str | None
    tiny: bool
    n: int
    n_clusters: int
    entries: list[ExperimentRow]

    def text(self) -> Text:
        """Return the rows and columns, in percent."""
        # In the order of the run that went through most of them.
        times = sorted((entry.seconds for entry in self.entries), key=len, reverse=True)
        stages = list(dict.fromkeys(stage for seconds in times for stage in seconds))
        header = ["run", "avg", f"vs {self.base}"]
        header += [f"vs {self.against}"] if self.against else []
        header += ["mean IoU", "unreadable"]
        groups = (len(header), len(header) + len(stages))
        header += [*(f"{stage} s" for stage in stages), *self.entries[0].tasks]
        rows = []
        for entry in self.entries:
            row = [entry.label, cell(entry.average), cell(entry.delta, signed=True)]
            row += [cell(entry.delta_against, signed=True)] if self.against else []
            row += [_percent(entry.iou.value), _percent(entry.parse_fail.value)]
            row += [f"{entry.seconds[stage]:.0f}" if stage in entry.seconds else "" for stage in stages]
            rows.append(row + [_percent(metric.value) for metric in entry.tasks.values()])
        title = f"Acc@0.5 (%) on {self.n:,} expressions about {self.n_clusters:,} images"
        notes = [INTERVAL_NOTE, "Differences are paired by expression.", *([TINY_NOTE] if self.tiny else [])]
        return Text(title, header, rows, notes, groups)

    def as_json(self) -> dict[str, Any]:
        """Return the same with full precision, as fractions."""
        return dataclasses.asdict(self) | {"metric": _METRIC, "notes": self.text().notes}


def leaderboard(
    runs: Mapping[str, Run],
    base: str,
    *,
    against: str | None = None,
    seconds: Mapping[str, Mapping[str, float]] | None = None,
) -> Leaderboard:
    """Rank nothing, show everything: runs in the given order with paired differences.

    Args:
        runs: Row label and run, in the order of the rows.
        base: The label that differences are taken against.
        against: A second such label, or None.
        seconds: Wall seconds of each stage, by row label.

    Raises:
        PerpoError: An unknown label, or runs that cannot be compared.
    """
    for label in filter(None, (base, against)):
        if label not in runs:
            raise PerpoError(f"the leaderboard has no run called '{label}'", did_you_mean(label, runs))
    for run in runs.values():
        check_comparable(run, runs[base])
    scores = {label: read_scores(run) for label, run in runs.items()}

    def difference(label: str, reference: str | None) -> Estimate | None:
        if reference is None or label == reference:
            return None
        return paired_difference(scores[label], scores[reference], _METRIC)

    entries = []
    for label, run in runs.items():
        record = run.record
        entries.append(
            ExperimentRow(
                label=label,
                run_id=record.run_id,
                tasks={result.task: _metric(result.metrics, _METRIC) for result in record.tasks},
                average=_group_metric(record, _METRIC),
                delta=difference(label, base),
                delta_against=difference(label, against),
                iou=_group_metric(record, "iou"),
                parse_fail=_group_metric(record, "parse_fail"),
                seconds=dict((seconds or {}).get(label, {})),
            )
        )
    average = entries[0].average
    return Leaderboard(base, against, is_tiny(runs[base].record), average.n or 0, average.n_clusters or 0, entries)


def _percent(value: float | None) -> str:
    return "" if value is None else number(value, FRACTION)


def _metric(metrics: list[Metric], name: str) -> Metric:
    metric = metric_of(metrics, name)
    if metric is None:
        raise PerpoError(f"a run has no {name}", "a leaderboard needs runs of the grounding suite")
    return metric


def _group_metric(record: RunRecord, name: str) -> Metric:
    group = record.group(GROUNDING.name)
    return _metric([] if group is None else group.metrics, name)
