"""Other views of a leaderboard: some of its columns, in another order, or as differences to one run. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from perpo.methods import UNTRAINED
from perpo.records.run_record import Metric
from perpo.results.leaderboard.board import Board, BoardRow, Column, Differ, difference


def arranged(board: Board, order: Sequence[int], columns: Sequence[Column]) -> Board:
    """Return some rows and columns of a leaderboard, in this order; what is best or tied stays so.

    Args:
        board: The leaderboard.
        order: Numbers of its rows.
        columns: Some of its columns.
    """
    place = {old: new for new, old in enumerate(order)}
    marks = {(place[n], c): mark for (n, c), mark in board.marks.items() if n in place and c in columns}
    return dataclasses.replace(board, columns=list(columns), rows=[board.rows[n] for n in order], marks=marks)


def by_column(board: Board, column: Column) -> list[int]:
    """Return the numbers of the rows, the best value of a column first, rows without one last."""

    def key(n: int) -> tuple[bool, float]:
        metric = board.rows[n].metrics.get(column)
        if metric is None or metric.value is None:
            return True, 0.0
        return False, metric.value if column.higher_is_better is False else -metric.value

    return sorted(range(len(board.rows)), key=key)


def by(board: Board, what: Callable[[BoardRow], Any], *, last_first: bool = False) -> list[int]:
    """Return the numbers of the rows, sorted by something of theirs; equal ones stay as they were."""
    return sorted(range(len(board.rows)), key=lambda n: what(board.rows[n]), reverse=last_first)


def own_bases(board: Board) -> list[BoardRow | None]:
    """For each row the row of its base model before any training, from the same source; None where there is none."""
    bases = {(row.base, row.run.record.source): row for row in reversed(board.rows) if row.method == UNTRAINED}
    return [bases.get((row.base, row.run.record.source)) for row in board.rows]


def against(board: Board, baselines: Sequence[BoardRow | None], name: str, differ: Differ | None = None) -> Board:
    """Return the leaderboard with differences in place of values.

    Measured runs are paired by sample; of two reported numbers the plain difference is taken, without an interval;
    between a measured and a reported one there is none, and a baseline's own row is blank.

    Args:
        board: The leaderboard.
        baselines: What is subtracted from each of its rows.
        name: What that is, in words.
        differ: What takes the differences; by default `perpo.results.leaderboard.board.difference`.
    """
    rows = []
    for row, baseline in zip(board.rows, baselines, strict=True):
        differences = {}
        if baseline is not None and baseline.run.record.run_id != row.run.record.run_id:
            differences = {column: _difference(row, baseline, column, differ or difference) for column in board.columns}
        rows.append(dataclasses.replace(row, metrics={c: metric for c, metric in differences.items() if metric}))
    return dataclasses.replace(board, rows=rows, baseline=name)


def _difference(row: BoardRow, baseline: BoardRow, column: Column, differ: Differ) -> Metric | None:
    ours, theirs = row.metrics.get(column), baseline.metrics.get(column)
    if ours is None or theirs is None or ours.value is None or theirs.value is None:
        return None
    sources = {row.run.record.source, baseline.run.record.source}
    if sources == {"reported"}:
        return dataclasses.replace(ours, value=ours.value - theirs.value)
    comparison = differ(row.run, baseline.run, column) if sources == {"measured"} else None
    if comparison is None or comparison.value is None:
        return None
    low, high = comparison.interval or (None, None)
    numbers = (comparison.value, comparison.stderr, low, high, comparison.method, comparison.n, comparison.n_clusters)
    return Metric(ours.name, *numbers, ours.higher_is_better, ours.unit)
