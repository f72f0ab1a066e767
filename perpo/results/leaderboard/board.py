"""A leaderboard of run records, measured and reported ones told apart; `files.py` beside it renders it. No torch.

A column is one metric of one task, or of a benchmark's average, by one judge where a judge gave it. In each column
and for each base model the best value is bold where it is better than every other one on the same samples, with p below
0.05 by `perpo.results.compare.metric_difference`, adjusted for the number of comparisons by Holm's method. Where that
does not hold for some, those are its ties, and all of them carry "≈". A reported number has no interval and is never
best or tied.
"""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from perpo.benchmarks.metrics import BENCHMARKS, JUDGED, PRIMARY, Definition
from perpo.errors import PerpoError
from perpo.methods import METHODS, UNTRAINED
from perpo.records.run_record import GroupResult, Metric, RunRecord, metric_of
from perpo.records.store import Run
from perpo.results.compare import metric_difference, mismatches, other_versions
from perpo.results.samples import Scores, read_scores
from perpo.stats import Difference, holm

ALPHA = 0.05

# What columns are called otherwise than by the task and the metric.
_TITLES = {
    ("llava_bench_wild", "relative_score"): "LLaVA^W",
    ("mmhal_bench", "score"): "MMHal score",
    ("mmhal_bench", "hallucination_rate"): "MMHal hallucination",
}
# Of benchmarks of which more than the primary metric is shown: which.
_SHOWN: dict[str, tuple[str, ...]] = {
    "ocr": ("edit_distance", "f1", "precision", "recall", "bleu", "meteor"),
    "mmhal": ("score", "hallucination_rate"),
}
_KINDS = {"grounding": "Object grounding", "ocr": "Dense OCR", "": "Other benchmarks"}
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
class Row:
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
    rows: list[Row]
    marks: dict[tuple[int, Column], str]
    baseline: str | None = None


Differ = Callable[[Run, Run, Column], Difference | None]
"""Says by how much one run differs from another in a column, as `difference` does."""


def told_apart(name: str, data: str) -> str:
    """A task's name, with the data's mark where another data set has that name."""
    return f"{name}#{data}" if data else name


def boards(runs: Sequence[Run], differ: Differ | None = None) -> list[Board]:
    """Make the leaderboards: one of the runs that hold boxes, one of those that read pages, one of the others.

    Args:
        runs: In any order; rows are sorted by source, base and method.
        differ: What tells best from tied; by default `difference`.

    Raises:
        PerpoError: There are none.
    """
    if not runs:
        raise PerpoError("there are no runs to show", "run perpo-eval, or choose less narrowly")
    kinds: dict[str, list[Run]] = {title: [] for title in _KINDS.values()}
    for run in runs:
        held = {task.benchmark for task in run.record.tasks}
        kinds[next(title for benchmark, title in _KINDS.items() if benchmark in held or not benchmark)].append(run)
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


def judge_names(records: Sequence[RunRecord]) -> list[str]:
    """What each run's judge is called: its id, and a digest where judges of one id differ in anything else."""
    identities = [json.dumps(record.judge, sort_keys=True) for record in records]
    found = {
        key: str((record.judge or {}).get("id", "not named")) for key, record in zip(identities, records, strict=True)
    }
    names = list(found.values())
    return [
        found[key] + ("" if names.count(found[key]) == 1 else f" {sha256(key.encode()).hexdigest()[:6]}")
        for key in identities
    ]


DataMarks = dict[tuple[str, str], str]
"""By task (or average) and digest of its data: what tells the data apart from others of the same name."""


def data_marks(records: Sequence[RunRecord]) -> DataMarks:
    """How data sets that share a name are told apart: by the first six characters of their digest.

    Data whose digest is not known, as of reported numbers, have no mark.
    """
    found: dict[str, set[str]] = {}
    for record in records:
        for name, digest in _data_of(record).items():
            found.setdefault(name, set()).update([digest] if digest else [])
    return {(name, digest): digest[:6] for name, held in found.items() if len(held) > 1 for digest in held}


def _data_of(record: RunRecord) -> dict[str, str]:
    """The digest of the data of each task, and of each average of several; "" where it is not known."""
    known = {task.task: task.data_sha256 or "" for task in record.tasks}
    found = dict(known)
    for group in record.groups:
        if len(group.tasks) > 1:
            parts = [known.get(task, "") for task in group.tasks]
            found[_average(group)] = sha256("\n".join(parts).encode()).hexdigest() if all(parts) else ""
    return found


def _row(run: Run, judge: str, marks: DataMarks) -> Row:
    record = run.record
    data = {name: marks.get((name, digest), "") for name, digest in _data_of(record).items()}
    metrics = _metrics(record, f"judge {judge}", data)
    return Row(run, record.model.id, method_of(record), record.name, metrics)


def method_of(record: RunRecord) -> str:
    """How its model was trained: base, SFT, DPO, ..."""
    arguments = (record.training_run or {}).get("arguments", {})
    method = str(arguments.get("method", UNTRAINED)) if record.training_run else UNTRAINED
    return _METHODS.get(method, method)


def _metrics(record: RunRecord, judge: str, data: dict[str, str]) -> dict[Column, Metric]:
    """The primary metric of each task, more of some, and the averages of groups of several tasks."""
    found: dict[Column, Metric] = {}
    for task in record.tasks:
        names = _SHOWN.get(task.benchmark, (PRIMARY.get(task.benchmark, ""),))
        if task.benchmark not in BENCHMARKS:
            names = tuple(metric.name for metric in task.metrics)
        by = judge if task.benchmark in JUDGED else ""
        found |= _chosen(task.task, task.benchmark, task.metrics, names, data[task.task], by)
    for group in record.groups:
        if len(group.tasks) > 1:
            primary = (PRIMARY.get(group.benchmark, ""),)
            found |= _chosen(_average(group), group.benchmark, group.metrics, primary, data[_average(group)])
    return found


def _average(group: GroupResult) -> str:
    """What its column is called: averages over other numbers of tasks do not compare."""
    return f"{group.name} average of {len(group.tasks)}"


def _chosen(
    task: str, benchmark: str, metrics: list[Metric], names: Sequence[str], data: str, judge: str = ""
) -> dict[Column, Metric]:
    titles = {metric.name: metric.title for metric in BENCHMARKS.get(benchmark, ())}
    found = {}
    for name in names:
        metric = metric_of(metrics, name)
        if metric is not None and not (judge and metric.value is None):  # what awaits its judge has no column
            given = _TITLES.get((task, metric.name))
            plain = f"{told_apart(task, data)} {titles.get(metric.name, metric.name)}"
            title = plain if given is None else told_apart(given, data)
            title += f", {judge}" if judge else ""
            found[Column(benchmark, task, metric.name, title, metric.unit, metric.higher_is_better, data)] = metric
    return found


def _place(row: Row) -> tuple[Any, ...]:
    methods = list(_METHODS.values())
    place = methods.index(row.method) if row.method in methods else len(methods)
    record = row.run.record
    return (record.source != "measured", row.base, place, record.when, record.run_id)


def _column_place(column: Column) -> int:
    """Benchmarks in the papers' order; within one as the records have them."""
    starts = ("ref", "grounding", "fox", "tinypages", "ocr", "llava_bench", "mmhal", "")
    return next(n for n, start in enumerate(starts) if column.task.startswith(start))


def _marks(
    rows: Sequence[Row], members: Sequence[int], columns: Sequence[Column], differ: Differ
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
                found = differ(rows[best[column]].run, rows[n].run, column)
                p_values[column][n] = None if found is None else found.p_value
    marks: dict[tuple[int, Column], str] = {}
    for column, told in p_values.items():
        adjusted = iter(holm([p for p in told.values() if p is not None]))
        ties = [n for n, p in told.items() if p is None or next(adjusted) >= ALPHA]
        marks |= {(n, column): "tied" for n in ties} | {(best[column], column): "tied" if ties else "best"}
    return marks


def _held(rows: Sequence[Row], members: Sequence[int], column: Column) -> set[int]:
    """The runs that have a number in a column of which one can be better."""
    if _definition(column) is None or column.higher_is_better is None:
        return set()
    return {n for n in members if column in rows[n].metrics and rows[n].metrics[column].value is not None}


def _height(rows: Sequence[Row], column: Column, n: int) -> tuple[float, int]:
    """How good a run is in a column; of equal ones the first row is the best."""
    value = rows[n].metrics[column].value or 0.0
    return (value if column.higher_is_better else -value), -n


def _definition(column: Column) -> Definition | None:
    return next((metric for metric in BENCHMARKS.get(column.benchmark, ()) if metric.name == column.metric), None)


def difference(one: Run, other: Run, column: Column, read: Callable[[Run], Scores] | None = None) -> Difference | None:
    """One run minus another in a column, paired by sample.

    Args:
        one: The run in question.
        other: What is subtracted.
        column: A column of their leaderboard.
        read: What reads their scores; by default a reader that remembers some.

    Returns:
        None where the two were not measured on the same samples, or those are not at hand.
    """
    definition = _definition(column)
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
    groups = {_average(group): group.tasks for group in record.groups}
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
