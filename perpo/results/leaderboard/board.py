"""A leaderboard of run records, measured and reported ones told apart; `files.py` beside it renders it. No torch.

A column is one metric of one task, or of a benchmark's average, by one judge where a judge gave it. In each column
and for each base model the best value is bold where it is better than every other one on the same samples, with p below
0.05 by `perpo.results.compare.metric_difference`, adjusted for the number of comparisons by Holm's method. Where that
does not hold for some, those are its ties, and all of them carry "≈". A reported number has no interval and is never
best or tied.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from perpo.benchmarks.base import BenchmarkInfo, Definition
from perpo.benchmarks.declared import infos
from perpo.benchmarks.table import INFO
from perpo.errors import PerpoError
from perpo.methods import METHODS, UNTRAINED
from perpo.records.run_record import Metric, RunRecord, metric_of
from perpo.records.store import Run
from perpo.results.compare import metric_difference, mismatches, other_versions
from perpo.results.leaderboard.names import DataMarks, average_name, data_marks, data_of, judge_names, told_apart
from perpo.results.samples import Scores, read_scores
from perpo.stats import Difference, holm

ALPHA = 0.05

_BOARDS = {info.name: info.board for info in INFO.values() if info.board}
_OTHER_BOARD = "Other benchmarks"
_METHODS = {UNTRAINED: UNTRAINED} | {method.name: method.title for method in METHODS.values()}


@dataclass(frozen=True)
class Column:
    """One metric of one task, or of a group's average (then `task` says of how many tasks).

    `data` tells apart what other runs measured on other data of the same name: the first characters of the data's
    digest; empty where there is one such data set alone, or where it is not known (of reported numbers).
    """

    benchmark: str
    task: str
    metric: str
    title: str
    unit: str
    higher_is_better: bool | None
    data: str = ""

    @property
    def name(self) -> str:
        """The task, and which data of that name."""
        return told_apart(self.task, self.data)


@dataclass(frozen=True)
class BoardRow:
    """One run.

    Attributes:
        run: The run.
        base: The model that it started from.
        method: base, SFT, DPO, ...
        label: What the row is called where base and method are not enough.
        metrics: By column; absent where the run does not have it.
    """

    run: Run
    base: str
    method: str
    label: str
    metrics: dict[Column, Metric]


@dataclass(frozen=True)
class Board:
    """Rows and columns.

    Attributes:
        title: What is measured.
        columns: In the papers' order.
        rows: By source, base and method, unless they were sorted otherwise.
        marks: Which values are best or tied: (row number, column) to "best" or "tied".
        baseline: What the metrics are differences to, in words; None where they are values.
    """

    title: str
    columns: list[Column]
    rows: list[BoardRow]
    marks: dict[tuple[int, Column], str]
    baseline: str | None = None


Differ = Callable[[Run, Run, Column], Difference | None]
"""Says by how much one run differs from another in a column, as `difference` does."""


def boards(runs: Sequence[Run], differ: Differ | None = None) -> list[Board]:
    """Make the leaderboards: one of the runs that hold boxes, one of those that read pages, one of the others.

    Args:
        runs: In any order; rows are sorted by source, base and method.
        differ: What tells best from tied; by default `difference`.

    Raises:
        PerpoError: There are none.
    """
    if not runs:
        raise PerpoError("there are no runs to show", "run perpo-eval first, or choose runs with fewer conditions")
    kinds: dict[str, list[Run]] = {title: [] for title in (*_BOARDS.values(), _OTHER_BOARD)}
    for run in runs:
        held = {task.benchmark for task in run.record.tasks}
        kinds[next((title for name, title in _BOARDS.items() if name in held), _OTHER_BOARD)].append(run)
    return [_board(title, members, differ or difference) for title, members in kinds.items() if members]


def _board(title: str, runs: Sequence[Run], differ: Differ) -> Board:
    judges = judge_names([run.record for run in runs])
    marks_of_data = data_marks([run.record for run in runs])
    named = [_row(run, judge, marks_of_data) for run, judge in zip(runs, judges, strict=True)]
    rows = sorted(named, key=_place)
    columns = sorted(dict.fromkeys(column for row in rows for column in row.metrics), key=_column_place)
    marks: dict[tuple[int, Column], str] = {}
    for base in dict.fromkeys(row.base for row in rows):
        members = [n for n, row in enumerate(rows) if (row.base, row.run.record.source) == (base, "measured")]
        marks |= _marks(rows, members, columns, differ)
    return Board(title, columns, rows, marks)


def _row(run: Run, judge: str, marks: DataMarks) -> BoardRow:
    record = run.record
    data = {name: marks.get((name, digest), "") for name, digest in data_of(record).items()}
    metrics = _metrics(record, f"judge {judge}", data)
    return BoardRow(run, record.model.id, method_of(record), record.name, metrics)


def method_of(record: RunRecord) -> str:
    """Return how its model was trained: base, SFT, DPO, ..."""
    arguments = (record.training_run or {}).get("arguments", {})
    method = str(arguments.get("method", UNTRAINED)) if record.training_run else UNTRAINED
    return _METHODS.get(method, method)


def _metrics(record: RunRecord, judge: str, data: dict[str, str]) -> dict[Column, Metric]:
    """The primary metric of each task, more of some, and the averages of groups of several tasks."""
    metrics: dict[Column, Metric] = {}
    known = infos(record.tasks)
    for task in record.tasks:
        info = known.get(task.benchmark)
        names = tuple(metric.name for metric in task.metrics) if info is None else info.shown
        by = judge if info is not None and info.judged else ""
        metrics |= _chosen(task.task, task.benchmark, info, task.metrics, names, data[task.task], by)
    for group in record.groups:
        info = known.get(group.benchmark)
        if len(group.tasks) > 1 and info is not None:
            name = average_name(group)
            primary = (info.primary, *(shown for shown in info.shown if shown.startswith(f"{info.primary}:")))
            metrics |= _chosen(name, group.benchmark, info, group.metrics, primary, data[name])
    return metrics


def _chosen(
    task: str,
    benchmark: str,
    info: BenchmarkInfo | None,
    metrics: list[Metric],
    names: Sequence[str],
    data: str,
    judge: str = "",
) -> dict[Column, Metric]:
    chosen = {}
    for name in names:
        metric = metric_of(metrics, name)
        if metric is not None and not (judge and metric.value is None):  # what awaits its judge has no column
            own_title = info.column_titles.get((task, name)) if info else None
            plain = f"{told_apart(task, data)} {info.title(name) if info else name}"
            title = plain if own_title is None else told_apart(own_title, data)
            title += f", {judge}" if judge else ""
            chosen[Column(benchmark, task, metric.name, title, metric.unit, metric.higher_is_better, data)] = metric
    return chosen


def _place(row: BoardRow) -> tuple[Any, ...]:
    methods = list(_METHODS.values())
    place = methods.index(row.method) if row.method in methods else len(methods)
    record = row.run.record
    return (record.source != "measured", row.base, place, record.when, record.run_id)


def _column_place(column: Column) -> int:
    """Benchmarks in the papers' order, and behind them those of others; within one as the records have them."""
    starts = (*(start for info in INFO.values() for start in info.leading_tasks), "")
    if column.benchmark not in INFO:
        return len(starts)
    return next(n for n, start in enumerate(starts) if column.task.startswith(start))


def _marks(
    rows: Sequence[BoardRow], members: Sequence[int], columns: Sequence[Column], differ: Differ
) -> dict[tuple[int, Column], str]:
    """Which of a base's measured runs are best in a column, or not told apart from the best.

    Run by run and for all columns at once, so that the samples of each are read once.
    """
    held = {column: _held(rows, members, column) for column in columns}
    held = {column: places for column, places in held.items() if len(places) > 1}
    best = {column: max(places, key=partial(_height, rows, column)) for column, places in held.items()}
    p_values: dict[Column, dict[int, float | None]] = {column: {} for column in held}
    for n in members:
        for column, places in held.items():
            if n in places and n != best[column]:
                comparison = differ(rows[best[column]].run, rows[n].run, column)
                p_values[column][n] = None if comparison is None else comparison.p_value
    marks: dict[tuple[int, Column], str] = {}
    for column, p_of_run in p_values.items():
        adjusted = iter(holm([p for p in p_of_run.values() if p is not None]))
        ties = [n for n, p in p_of_run.items() if p is None or next(adjusted) >= ALPHA]
        marks |= {(n, column): "tied" for n in ties} | {(best[column], column): "tied" if ties else "best"}
    return marks


def _held(rows: Sequence[BoardRow], members: Sequence[int], column: Column) -> set[int]:
    """The runs that have a number in a column of which one can be better."""
    if column.higher_is_better is None:
        return set()
    held = {n for n in members if column in rows[n].metrics and rows[n].metrics[column].value is not None}
    return {n for n in held if _definition(rows[n].run.record, column) is not None}


def _height(rows: Sequence[BoardRow], column: Column, n: int) -> tuple[float, int]:
    """How good a run is in a column; of equal ones the first row is the best."""
    value = rows[n].metrics[column].value or 0.0
    return (value if column.higher_is_better else -value), -n


def _definition(record: RunRecord, column: Column) -> Definition | None:
    info = infos(record.tasks).get(column.benchmark)
    return None if info is None else info.by_name.get(column.metric)


def difference(one: Run, other: Run, column: Column, read: Callable[[Run], Scores] | None = None) -> Difference | None:
    """Return one run minus another in a column, paired by sample.

    Args:
        one: The run in question.
        other: What is subtracted.
        column: A column of their leaderboard.
        read: What reads their scores; by default a reader that remembers some.

    Returns:
        None where the two were not measured on the same samples, or those are not at hand.
    """
    definition = _definition(one.record, column)
    records = one.record, other.record
    if definition is None or mismatches(*records, common=True) or other_versions(*records):
        return None
    tasks = _tasks(one.record, column)
    try:
        scores = [_needed((read or _recent)(run), tasks, definition) for run in (one, other)]
        return metric_difference(scores[0], scores[1], definition)
    except PerpoError:  # other samples, none, or a score that one alone lacks
        return None


def _tasks(record: RunRecord, column: Column) -> list[str]:
    groups = {average_name(group): group.tasks for group in record.groups}
    return groups.get(column.task, [column.task])


def _needed(scores: Scores, tasks: Sequence[str], definition: Definition) -> Scores:
    """What a metric is made of: of many scores and samples, copying the rest takes most of the time."""
    import numpy as np

    values = {name: column for name, column in scores.values.items() if name in definition.needs()}
    return dataclasses.replace(scores, values=values).take(np.isin(scores.tasks, list(tasks)))


class _Recent:
    """Reads the scores of runs, and keeps those that were asked for last; the digest tells when a file is another."""

    def __init__(self, size: int = 16) -> None:
        self._size = size
        self._kept: OrderedDict[tuple[Path, str], Scores] = OrderedDict()

    def __call__(self, run: Run) -> Scores:
        key = run.path, "" if run.record.samples is None else run.record.samples.sha256
        if key not in self._kept:
            self._kept[key] = read_scores(run)
        self._kept.move_to_end(key)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return self._kept[key]


_recent = _Recent()
