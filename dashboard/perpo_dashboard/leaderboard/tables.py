"""A leaderboard as a table in a browser: headers, help, numbers to sort by and how they are written. No Streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from perpo.benchmarks.table import meaning, title
from perpo.records.run_record import Metric
from perpo.results.colours import BETTER, WORSE
from perpo.results.leaderboard import files
from perpo.results.leaderboard.board import Board, Column
from perpo.results.text import cell
from perpo_dashboard.leaderboard.boards import judge_of, names_data_sets

GREY = "#808080"  # is read on white and on black


def headers(columns: Sequence[Column], *, points: bool = False) -> list[tuple[str, str]]:
    """For each column what stands above it, in two lines: what several share, and its own.

    Args:
        columns: The columns.
        points: Whether they hold differences: of percentages these are points.
    """
    lines = []
    for column in columns:
        alike = [each for each in columns if each.benchmark == column.benchmark]
        arrow = {True: " ↑", False: " ↓", None: ""}[column.higher_is_better]
        unit = ("points" if points else "%") if column.unit == "fraction" else column.unit
        name = title(column.benchmark, column.metric)
        if len({each.metric for each in alike}) == 1 and len(alike) > 1:
            what = name if names_data_sets(column) else f"{column.benchmark} {name}"
            lines.append((f"{what}, {unit}{arrow}", _task(column)))
        elif column.title.startswith(f"{column.name} "):
            lines.append((column.name, f"{column.title.removeprefix(column.name).strip()}, {unit}{arrow}"))
        else:
            lines.append((column.name, f"{column.title}, {unit}{arrow}"))
    return lines


def _task(column: Column) -> str:
    """A task's name; of an average what it is one of, without the benchmark's name."""
    _, separator, rest = column.name.partition(" average of ")
    return f"average of {rest}" if separator else column.name


def help_of(board: Board, column: Column) -> str:
    """Return what a column means: the metric, its unit and direction, and what it was measured on."""
    explanation = meaning(column.benchmark, column.metric)
    better = {True: "Higher is better.", False: "Lower is better.", None: "Neither higher nor lower is better."}
    unit = "In percent." if column.unit == "fraction" else f"In {column.unit}."
    words = [f"{title(column.benchmark, column.metric)}: {explanation}.", unit, better[column.higher_is_better]]
    counts = {
        (metric.n, metric.n_clusters)
        for row in board.rows
        if (metric := row.metrics.get(column)) is not None and metric.n
    }
    if len(counts) == 1:
        n, clusters = counts.pop()
        words.append(f"{n:,} samples" + (f" about {clusters:,} images." if clusters else "."))
    return " ".join(words)


def cells(board: Board) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the numbers of a leaderboard, by which a browser sorts, and how they are written.

    Returns:
        Two frames, a line a run and a column a metric: values as tables have them (percent for fractions; missing
        ones are NaN), and texts such as "71.0 ±1.6 ≈" ("" where missing).
    """
    numbers, texts = {}, {}
    for column in board.columns:
        metrics = [row.metrics.get(column) for row in board.rows]
        numbers[column.title] = [_number(column, metric) for metric in metrics]
        tied = [board.marks.get((n, column)) == "tied" for n in range(len(metrics))]
        texts[column.title] = [
            cell(metric, signed=board.baseline is not None)
            + (" ≈" if tie else " \u2007" if any(tied) else "")  # a blank as wide as a digit: numbers stay in line
            for metric, tie in zip(metrics, tied, strict=True)
        ]
    return pd.DataFrame(numbers), pd.DataFrame(texts)


def _number(column: Column, metric: Metric | None) -> float:
    if metric is None or metric.value is None:
        return float("nan")
    return metric.value * (100 if column.unit == "fraction" else 1)


def verdict(column: Column, metric: Metric | None) -> str:
    """Of a difference: "better" or "worse" where its 95% interval leaves out 0, else ""."""
    if metric is None or metric.ci_low is None or metric.ci_high is None or column.higher_is_better is None:
        return ""
    if metric.ci_low > 0 or metric.ci_high < 0:
        return "better" if (metric.ci_low > 0) == column.higher_is_better else "worse"
    return ""


def styled(board: Board) -> tuple[Styler, int]:
    """Return the table: what each run is, then its numbers, written and coloured.

    Best values are bold, reported ones grey; differences that differ from 0 have a colour.

    Returns:
        The table, with two lines of headers, and how many columns stand before the numbers.
    """
    records = [row.run.record for row in board.rows]
    about: dict[str, Any] = {
        "run": files.names(board),
        "source": [[record.origin] for record in records],
        "date": pd.to_datetime([record.when for record in records], utc=True),
    }
    if any(record.judge for record in records):
        about["judge"] = [judge_of(record) for record in records]
    numbers, texts = cells(board)
    data = pd.concat([pd.DataFrame(about), numbers], axis=1)
    above = headers(board.columns, points=board.baseline is not None)
    data.columns = pd.MultiIndex.from_tuples([*(("", name) for name in about), *above])
    styles = [[_style(board, n, column) for column in board.columns] for n in range(len(board.rows))]
    whole = pd.DataFrame([[""] * len(about) + line for line in styles], data.index, data.columns)
    table = data.style.apply(lambda _: whole, axis=None)
    for place, column in enumerate(data.columns[len(about) :]):
        table = _written(table, column, numbers.iloc[:, place], texts.iloc[:, place])
    return table, len(about)


def _written(table: Styler, column: tuple[str, str], numbers: pd.Series, texts: pd.Series) -> Styler:
    """A column's numbers as texts; a styler writes by value, so rows of one value and two texts are told one by one."""
    known = dict(zip(numbers, texts, strict=True))
    table = table.format(lambda value: known.get(value, ""), subset=[column])
    for n, (value, text) in enumerate(zip(numbers, texts, strict=True)):
        if known.get(value, "") != text:
            table = table.format(partial(_always, text), subset=([n], [column]))
    return table


def _always(text: str, _: float) -> str:
    return text


def _style(board: Board, n: int, column: Column) -> str:
    row = board.rows[n]
    if row.run.record.source == "reported":
        return f"color: {GREY}"
    style = "font-weight: 700;" if board.marks.get((n, column)) == "best" else ""
    comparison = verdict(column, row.metrics.get(column)) if board.baseline is not None else ""
    return style + {"better": f"color: {BETTER}", "worse": f"color: {WORSE}", "": ""}[comparison]
