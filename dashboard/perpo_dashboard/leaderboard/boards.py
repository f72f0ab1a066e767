"""The leaderboard as a page shows it: which runs and columns, in which order. No Streamlit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd

from perpo.benchmarks.table import INFO
from perpo.records.run_record import RunRecord
from perpo.records.store import Run
from perpo.results.leaderboard import board as leaderboard
from perpo.results.leaderboard import files, views
from perpo.results.leaderboard.board import Board, BoardRow, Column
from perpo.results.text import cell

NO_JUDGE = "no judge"
AVERAGES = "averages"
ORDERS: dict[str, tuple[Callable[[BoardRow], Any] | None, bool]] = {
    "source, base and method": (None, False),
    "base": (lambda row: row.base, False),
    "method": (lambda row: row.method, False),
    "newest first": (lambda row: row.run.record.when, True),
    "judge": (lambda row: judge_of(row.run.record), False),
}
"""What rows can be sorted by, beside a column."""


@dataclass(frozen=True)
class RunChoice:
    """A choice of runs; what is empty leaves all of them.

    Attributes:
        bases: Ids of models.
        methods: How they were trained.
        judges: Who judged them, or `NO_JUDGE`.
        sources: measured, reported.
        since: The first day (UTC) of the evaluation.
        until: The last one.
    """

    bases: Sequence[str] = ()
    methods: Sequence[str] = ()
    judges: Sequence[str] = ()
    sources: Sequence[str] = ()
    since: date | None = None
    until: date | None = None

    def holds(self, run: Run) -> bool:
        """Return whether a run is meant."""
        record = run.record
        day = record.when.date()
        return (
            (not self.bases or record.model.id in self.bases)
            and (not self.methods or leaderboard.method_of(record) in self.methods)
            and (not self.judges or judge_of(record) in self.judges)
            and (not self.sources or record.source in self.sources)
            and (self.since is None or day >= self.since)
            and (self.until is None or day <= self.until)
        )


def judge_of(record: RunRecord) -> str:
    """Return who judged a run."""
    return NO_JUDGE if record.judge is None else str(record.judge.get("id", "not named"))


def ordered(board: Board, by: str) -> Board:
    """Return a leaderboard sorted by a key of `ORDERS` or by the title of a column, which need not be one of its
    own.
    """
    if by in ORDERS:
        key, last_first = ORDERS[by]
        order = range(len(board.rows)) if key is None else views.by(board, key, last_first=last_first)
    else:
        column = next((each for each in board.columns if each.title == by), None)
        order = range(len(board.rows)) if column is None else views.by_column(board, column)
    return views.arranged(board, list(order), board.columns)


def split(board: Board) -> list[Board]:
    """Return a leaderboard as several, where some of its rows have no column in common with the others.

    Each begins with the averages of its benchmarks, and is named after its data where there are several.
    """
    parts: list[tuple[set[Column], list[int]]] = []
    for n, row in enumerate(board.rows):
        columns, members = set(row.metrics), [n]
        for part in [part for part in parts if part[0] & columns]:
            parts.remove(part)
            columns, members = part[0] | columns, part[1] + members
        parts.append((columns, members))
    parts.sort(key=lambda part: min(part[1]))
    boards = [views.arranged(board, sorted(rows), _headline_first(board, columns)) for columns, rows in parts]
    if len(boards) == 1:
        return boards
    return [dataclasses.replace(part, title=title) for part, title in zip(boards, _titles(boards), strict=True)]


def _headline_first(board: Board, columns: set[Column]) -> list[Column]:
    order = list(dict.fromkeys(column.benchmark for column in board.columns))
    held = [column for column in board.columns if column in columns]
    return sorted(held, key=lambda column: (order.index(column.benchmark), topic(column) != AVERAGES))


def _titles(parts: Sequence[Board]) -> list[str]:
    """What each is called, no two alike: by its benchmarks, or else by its tasks, or else by its number too."""
    kinds = (lambda part: benchmarks([part]), lambda part: list(dict.fromkeys(each.name for each in part.columns)))
    for names in kinds:
        titles = [f"{part.title}: {_listed([name for name in names(part) if name != AVERAGES])}" for part in parts]
        if len(set(titles)) == len(titles):
            return titles
    return [f"{title} ({number})" for number, title in enumerate(titles, 1)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def benchmarks(boards: Sequence[Board]) -> list[str]:
    """Return what the columns of some leaderboards are about: the splits of a data set count once."""
    return list(dict.fromkeys(topic(column) for board in boards for column in board.columns))


def topic(column: Column) -> str:
    """Return the part of a table that a column belongs to."""
    if " average of " in column.task:
        return AVERAGES
    return column.task.split("_")[0] if names_data_sets(column) else column.benchmark


def names_data_sets(column: Column) -> bool:
    """Return whether what a column is about is told by its data set rather than by its benchmark."""
    info = INFO.get(column.benchmark)
    return info is not None and info.several_data_sets


def only(board: Board, topics: Sequence[str]) -> Board:
    """Return the columns about some of `benchmarks`; all if none is named."""
    columns = [column for column in board.columns if not topics or topic(column) in topics]
    return views.arranged(board, range(len(board.rows)), columns)


def bars(board: Board, columns: Sequence[Column]) -> pd.DataFrame:
    """Return what is drawn of some columns: run, method, source, column (its title), value, low, high and text."""
    lines: list[dict[str, Any]] = []
    names = files.names(board)
    for column in columns:
        for row, name in zip(board.rows, names, strict=True):
            metric = row.metrics.get(column)
            if metric is None or metric.value is None:
                continue
            scale = 100 if column.unit == "fraction" else 1
            low, high = (None if end is None else scale * end for end in (metric.ci_low, metric.ci_high))
            line: dict[str, Any] = {
                "run": name,
                "method": row.method,
                "source": row.run.record.source,
                "column": column.title,
            }
            line |= {"value": scale * metric.value, "low": low, "high": high}
            lines.append(line | {"text": cell(metric, signed=board.baseline is not None)})
    return pd.DataFrame(lines)
