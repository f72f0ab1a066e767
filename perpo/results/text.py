"""Tables as text and Markdown, and how numbers are written. No torch."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich import box
from rich.console import Console
from rich.table import Table

from perpo.records.run_record import Metric, RunRecord
from perpo.stats import Estimate

TINY_NOTE = "Data: the tiny world's drawn shapes; these numbers say nothing about photographs or RefCOCO."
TINY_PAGES_NOTE = "Data: the tiny world's drawn pages and shapes; these numbers say nothing about real documents."
INTERVAL_NOTE = "±: half of the 95% interval, clustered by image. The average weighs every task the same."
FRACTION = "fraction"
_GAP = 2  # blanks between two columns on a terminal


@dataclass(frozen=True)
class Text:
    """A table as text: what is rendered on a terminal or as Markdown.

    Attributes:
        title: What stands above it.
        header: Names of the columns; the first column names the rows.
        rows: The cells.
        notes: What stands below it.
        groups: Numbers of the columns at which a terminal too narrow for all of them begins a new table.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]
    groups: tuple[int, ...] = ()

    def show(self) -> None:
        """Print it on stdout; what is wider than the terminal continues in further tables with the same rows."""
        console = Console(markup=False, emoji=False)  # names may hold brackets
        widths = [max(map(len, [*_words(name), *cells])) for name, *cells in zip(self.header, *self.rows, strict=True)]
        console.print(self.title, style="italic", highlight=False)
        for columns in _pages(widths, self.groups, console.width):
            # The box puts one of the blanks between two columns.
            table = Table(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
            for column in columns:
                name = " ".join(_words(self.header[column]))
                table.add_column(name, justify="right" if column else "left", width=widths[column], vertical="bottom")
            for row in self.rows:
                table.add_row(*(row[column] for column in columns))
            console.print("", table)
        console.print()
        for note in self.notes:
            console.print(note, style="dim italic", highlight=False)

    def markdown(self) -> str:
        """Return the table as GitHub's Markdown, ending in a newline."""
        lines = [
            f"**{self.title}**",
            "",
            _line(self.header),
            _line(["---"] + ["---:"] * (len(self.header) - 1)),
            *map(_line, self.rows),
            "",
            *(f"{note}  " for note in self.notes),
        ]
        return "\n".join(lines).rstrip() + "\n"


def cell(estimate: Metric | Estimate | None, *, signed: bool = False) -> str:
    """Return a value with its 95% interval: "64.8 ±1.7", or "0.0 [0.0, 1.2]" where it is lopsided; see `number`.

    Lopsided is one side a quarter longer than the other, or more; an interval without a standard error always is.
    """
    if estimate is None or estimate.value is None:
        return ""
    unit = estimate.unit if isinstance(estimate, Metric) else FRACTION
    value = number(estimate.value, unit, signed=signed)
    if estimate.ci_low is None or estimate.ci_high is None:
        return value
    sides = sorted([estimate.value - estimate.ci_low, estimate.ci_high - estimate.value])
    if estimate.stderr is None or sides[1] > 1.25 * sides[0]:
        low, high = (number(end, unit, signed=signed) for end in (estimate.ci_low, estimate.ci_high))
        return f"{value} [{low}, {high}]"
    return f"{value} ±{number((estimate.ci_high - estimate.ci_low) / 2, unit)}"


def number(value: float, unit: str, *, signed: bool = False) -> str:
    """Return a value of a metric: fractions in percent ("64.8"), all else in its own unit ("2.26")."""
    scale, digits = (100, 1) if unit == FRACTION else (1, 2)
    return f"{round(scale * value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"  # + 0.0 turns -0.0 into 0.0


def with_unit(name: str, unit: str) -> str:
    """Return the name of a column, with the unit of what is no fraction."""
    return name if unit == FRACTION else f"{name} ({unit})"


def _words(name: str) -> list[str]:
    """Where a column's name may be broken on a terminal: `refshapes_testA` is two words."""
    return name.replace("_", " ").split()


def _pages(widths: Sequence[int], groups: Sequence[int], width: int) -> list[list[int]]:
    """The columns of each table, column 0 in all of them; groups stay whole where they can."""
    pages, room = [[0]], width - widths[0]
    for first, end in pairwise([1, *groups, len(widths)]):
        needed = [_GAP + each for each in widths[first:end]]
        whole = sum(needed) <= width - widths[0]
        for column, need in enumerate(needed, start=first):
            if len(pages[-1]) > 1 and room < (sum(needed) if whole and column == first else need):
                pages.append([0])
                room = width - widths[0]
            pages[-1].append(column)
            room -= need
    return pages


def literal(text: str) -> str:
    """Return text on one line in which Markdown and HTML find neither marks, links nor tags, and which mentions
    nobody.
    """
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"(?<!\w)@", "&#64;", re.sub(r"([\\`*]|(?<=\])\()", r"\\\1", text))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"


def judge_note(records: Sequence[RunRecord], names: Sequence[str] | None = None) -> list[str]:
    """Return who judged these runs, one sentence each, and where that departs from what was published.

    Args:
        records: The runs.
        names: What the table calls the judge of each; by default its id.
    """
    sentences = []
    for number, judge in enumerate(record.judge for record in records):
        if judge is None:
            continue
        changes, others = "; ".join(judge.get("deviations", [])), set(judge.get("served_as", [])) - {judge["id"]}
        served = f" (served as {', '.join(sorted(others))})" if others else ""
        departure = f" Not as published: {changes}. Compare only scores of the same judge." if changes else ""
        sentences.append(f"Judge: {names[number] if names else judge['id']}{served}.{departure}")
    return list(dict.fromkeys(sentences))


def is_tiny(record: RunRecord) -> bool:
    return any(result.dataset.startswith("tiny:") for result in record.tasks)
