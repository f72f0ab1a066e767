"""Measure what rows are made of: two entries' scores, part by part and metric by metric. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from perpo.benchmarks.base import Definition
from perpo.results.compare import both_judged, mean_difference, metric_value
from perpo.results.regression.parts import CUT, GUARDS, AskedMetric, ReportPart, asked_of, decisive_score, slice_metric
from perpo.results.regression.rows import Pairs, ReportRow, Role, Wanted, row_name
from perpo.results.regression.slices import Slice
from perpo.results.samples import Scores

SMALLEST_SLICE = 20
"""A kind of samples that is about fewer images is told and not tested: a t test of so few alarms too often."""


@dataclass(frozen=True)
class Sides:
    """The same samples in the runs of both entries."""

    ours: list[Scores]
    theirs: list[Scores]

    @property
    def runs(self) -> list[Scores]:
        """All runs, the candidate's first."""
        return [*self.ours, *self.theirs]

    def of(self, runs: Sequence[Scores]) -> Sides:
        """Return the same sides with other samples."""
        return Sides(list(runs[: len(self.ours)]), list(runs[len(self.ours) :]))

    def take(self, places: np.ndarray) -> Sides:
        """Return some of the samples."""
        return self.of([run.take(places) for run in self.runs])


def numbered(sides: Sides, labels: np.ndarray) -> Sides:
    """Return the scores with a number for each cluster, which is told from others far quicker than a name, and with the
    answers that were cut as a score like others.

    Args:
        sides: The scores.
        labels: The clusters of the whole baseline in their order, so that numbers are the same for every candidate.
    """
    clusters = np.searchsorted(labels, sides.theirs[0].clusters)
    return sides.of([replace(run, clusters=clusters, values=run.values | _cut(run)) for run in sides.runs])


def _cut(run: Scores) -> dict[str, np.ndarray]:
    """The score of cut answers: a benchmark's own where it has one."""
    if run.cut is None:
        return {}
    own = run.values.get(CUT.name)
    return {CUT.name: run.cut if own is None else np.where(np.isnan(own), run.cut, own)}


def rows_of(part: ReportPart, sides: Sides, wanted: Wanted, slices: Sequence[Slice] = ()) -> list[ReportRow]:
    """Return a part's rows: its primary metric, kinds of samples in it, and the other metrics."""
    chosen = sides.take(np.flatnonzero(np.isin(sides.theirs[0].tasks, part.tasks)))
    asked = asked_of(part, held_scores(chosen), wanted)
    rows = [row for each in asked if (row := _row(part, chosen, each)) is not None]
    if len(part.tasks) > 1:
        return rows
    role: Role = "guards" if wanted.slices == "gate" else "told"
    told = next((each for each in asked if each.metric.name == slice_metric(part)), asked[0])
    where = {key: place for place, key in enumerate(sides.theirs[0].keys)} if slices else {}
    for each in slices:
        if each.task == part.name:
            picked = sides.take(np.array([where[key] for key in each.keys]))
            row = _row(part, picked, _asked_of_kind(part, each, told, role, wanted))
            rows += [_few(replace(row, kind=each.kind, pairs=None))] if row is not None else []
    return rows


def _asked_of_kind(part: ReportPart, kind: Slice, told: AskedMetric, role: Role, wanted: Wanted) -> AskedMetric:
    """What a kind of samples is told for: one that a threshold names decides, with that threshold."""
    points = wanted.thresholds.get(row_name(part.name, told.metric, kind.kind, primary=told.primary))
    return replace(told, role=role) if points is None else replace(told, role="decides", points=points)


def held_scores(sides: Sides) -> set[str]:
    """Return the scores that some of the samples have in every run."""
    names = set.intersection(*(set(run.values) for run in sides.runs))
    return {name for name in names if all(not np.isnan(run.values[name]).all() for run in sides.runs)}


def unguarded(part: ReportPart, sides: Sides, wanted: Wanted) -> list[str]:
    """Return the guards of a task that some runs know and others do not, such as why answers ended."""
    if wanted.metrics == "primary" or len(part.tasks) > 1:
        return []
    chosen = sides.take(np.flatnonzero(np.isin(sides.theirs[0].tasks, part.tasks)))
    every = held_scores(chosen)
    some = set.union(*(held_scores(Sides([run], [])) for run in chosen.runs))
    return [f"{part.name}.{name}" for name in GUARDS if name in some - every]


def _few(row: ReportRow) -> ReportRow:
    few = row.difference.n_clusters < SMALLEST_SLICE
    return replace(row, difference=replace(row.difference, p_value=None)) if few else row


def _row(part: ReportPart, sides: Sides, asked: AskedMetric) -> ReportRow | None:
    metric, decisive = asked.metric, decisive_score(part)
    needed = {*metric.needs(), decisive} if asked.primary else metric.needs()
    count = len(sides.theirs[0].keys) - _apart(sides.runs, metric)
    known = [replace(run, values={name: run.values[name] for name in needed}) for run in sides.runs]
    if not asked.primary:
        known, count = _known(known, metric)
    compared = sides.of(both_judged(known, metric))
    ours, theirs = (_mean(runs, metric) for runs in (compared.ours, compared.theirs))
    if not asked.primary and None in (ours, theirs):
        return None
    difference = mean_difference(compared.ours, compared.theirs, metric, draw=asked.role != "told", parts=True)
    counted = asked.primary and metric.higher_is_better and not metric.judged  # ratings are not right or wrong
    pairs = _pairs(compared, decisive) if counted and len(compared.runs) == 2 else None
    threshold, left_out = asked.points / 100 * metric.scale, count - difference.n
    return ReportRow(
        part.name, part.tasks, part.benchmark, metric, theirs, ours, difference, threshold, pairs=pairs,
        role=asked.role, primary=asked.primary, left_out=left_out if difference.n else 0,
    )  # fmt: skip


def _known(runs: Sequence[Scores], metric: Definition) -> tuple[list[Scores], int]:
    """The samples that have a metric's scores in all runs, and how many have them in one or more."""
    held = [~np.isnan(np.sum(metric.sums(run.values), axis=0)) for run in runs]
    places = np.flatnonzero(np.all(held, axis=0))
    return [run.take(places) for run in runs], int(np.any(held, axis=0).sum())


def _apart(runs: Sequence[Scores], metric: Definition) -> int:
    """How many samples a metric is not about, as MME's questions of another kind: no run has it, and none failed."""
    if metric.judged:
        return 0
    lacking = np.all([np.isnan(np.sum(metric.sums(run.values), axis=0)) for run in runs], axis=0)
    failed = [run.failed for run in runs if run.failed is not None]
    return int((lacking & ~np.any(failed, axis=0)).sum()) if failed else int(lacking.sum())


def _mean(runs: Sequence[Scores], metric: Definition) -> float | None:
    values = [metric_value(run, metric) for run in runs]
    told = [value for value in values if value is not None]
    return float(np.mean(told)) if len(told) == len(values) else None


def _pairs(sides: Sides, score: str) -> Pairs | None:
    one, other = sides.ours[0].values[score], sides.theirs[0].values[score]
    if not (np.isin(one, (0, 1)).all() and np.isin(other, (0, 1)).all()):
        return None
    new, old = one == 1, other == 1
    return Pairs(int((new & old).sum()), int((old & ~new).sum()), int((new & ~old).sum()), int((~new & ~old).sum()))
