"""A leaderboard as people and programs read it: text, Markdown, CSV, LaTeX, JSON. No torch."""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd

from perpo.methods import UNTRAINED
from perpo.results.leaderboard.board import Board, Column
from perpo.results.leaderboard.names import judge_names
from perpo.results.text import INTERVAL_NOTE, TINY_NOTE, Text, cell, is_tiny, judge_note, literal, with_unit


def frame(board: Board) -> pd.DataFrame:
    """Return the values with full precision: one line a run, what it is first, then a column for each metric."""
    lines = []
    for row in board.rows:
        record = row.run.record
        line: dict[str, Any] = {"base": row.base, "method": row.method, "name": row.label, "source": record.origin}
        line |= {"judge": (record.judge or {}).get("id"), "created_utc": record.created_utc, "run_id": record.run_id}
        for column in board.columns:
            metric = row.metrics.get(column)
            line[column.title] = None if metric is None else metric.value
            line[f"{column.title} low"] = None if metric is None else metric.ci_low
            line[f"{column.title} high"] = None if metric is None else metric.ci_high
        lines.append(line)
    return pd.DataFrame(lines)


def text(board: Board) -> Text:
    """For a terminal: percent with half of the 95% interval."""
    return _rendered(board, "{}*", "{}≈", "{}")


def render(board: Board, kind: str) -> str:
    """Return the leaderboard as a file's content.

    Args:
        board: The leaderboard.
        kind: markdown, csv, latex or json.

    Raises:
        KeyError: Another kind.
    """
    return _WRITERS[kind](board)


def _csv(board: Board) -> str:
    return frame(board).rename(columns=_inert).map(_inert).to_csv(index=False)


def _json(board: Board) -> str:
    lines = json.loads(frame(board).to_json(orient="records"))
    marks = [
        {"run_id": board.rows[n].run.record.run_id, "column": c.title, "mark": m} for (n, c), m in board.marks.items()
    ]
    return json.dumps({"title": board.title, "rows": lines, "marks": marks}, indent=1, ensure_ascii=False) + "\n"


def _markdown(board: Board) -> str:
    return _rendered(board, "**{}**", "{} ≈", "{}", literal).markdown()


def _latex(board: Board) -> str:
    return latex(_rendered(board, r"\textbf{{{}}}", r"{}$^\approx$", "{}", _tex))


_WRITERS = {"markdown": _markdown, "csv": _csv, "latex": _latex, "json": _json}


def _inert(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that would begin one stands behind an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _rendered(board: Board, best: str, tied: str, plain: str, escape: Any = str) -> Text:
    header = ["run", "source", *(_with_unit(column) for column in board.columns)]
    rows = []
    for n, (row, name) in enumerate(zip(board.rows, names(board), strict=True)):
        cells = [escape(name), row.run.record.origin]
        for column in board.columns:
            form = {"best": best, "tied": tied}.get(board.marks.get((n, column), ""), plain)
            value = escape(cell(row.metrics.get(column), signed=board.baseline is not None))
            cells.append(form.format(value) if value else "")
        rows.append(cells)
    return Text(escape(board.title), [escape(name) for name in header], rows, [escape(note) for note in notes(board)])


def names(board: Board) -> list[str]:
    """Return what each row is called: its base and method, and its run's name where several have both."""
    known = [(row.base, row.method, row.run.record.origin) for row in board.rows]
    return [
        (row.base if row.method == UNTRAINED else f"{row.base} + {row.method}")
        + (f" ({row.label})" if known.count(kind) > 1 else "")
        for row, kind in zip(board.rows, known, strict=True)
    ]


def _with_unit(column: Column) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[column.higher_is_better]
    return with_unit(column.title, column.unit) + arrow


def notes(board: Board) -> list[str]:
    """Return what stands below the table."""
    records = [row.run.record for row in board.rows]
    unit = "Percent" if board.baseline is None else "Points of 100"
    notes = [INTERVAL_NOTE, f"{unit}, if nothing else is said."] if any(r.source == "measured" for r in records) else []
    if any(record.source == "reported" for record in records):
        notes.append("Reported numbers are others' and were not measured here; they have no interval.")
    if board.baseline is not None:
        what = f"Differences to {board.baseline}, paired by sample where both were measured"
        notes.append(f"{what}; blank where they cannot be had.")
    if board.marks:
        notes.append(
            "Best of its base (* or bold) where it is better than every other run, paired by sample; ≈: not told apart "
            "from the best, or not comparable with it (other samples, or another version of the scores)."
        )
    if any(column.data for column in board.columns):
        notes.append("#: other data of the same name; these are the first characters of its digest.")
    told = dict.fromkeys(
        f"{row.label}, {task.task}: {task.note}." for row in board.rows for task in row.run.record.tasks if task.note
    )
    if len(told) > 8:  # the same about every reported row
        told = dict.fromkeys(f"{task.task}: {task.note}." for r in records for task in r.tasks if task.note)
    unfinished = [f"{record.run_id} is {record.status}." for record in records if record.status != "complete"]
    judges = judge_note(records, judge_names(records))
    return [*notes, *told, *judges, *unfinished, *([TINY_NOTE] if any(map(is_tiny, records)) else [])]


def latex(table: Text) -> str:
    """Return a table of booktabs; the cells are LaTeX already."""
    lines = [
        r"\begin{tabular}{ll" + "r" * (len(table.header) - 2) + "}",
        r"\toprule",
        " & ".join(table.header) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join([*lines, *(f"% {note}" for note in table.notes)]) + "\n"


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {"±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "≈": r"$\approx$"}
_TEX |= {sign: "\\" + sign for sign in "&%$#_{}"}


def _tex(words: str) -> str:
    return re.sub("|".join(map(re.escape, _TEX)), lambda sign: _TEX[sign[0]], " ".join(words.split()))
