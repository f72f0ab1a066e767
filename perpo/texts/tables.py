"""Tables in a page's text, in Markdown or HTML, as cells that know their neighbours.

The rules are those of olmOCR-Bench (`olmocr/bench/table_parsing.py`), so that its tests of tables pass and fail as
there: a cell that spans several rows or columns has one text, and may have several neighbours in one direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from perpo.errors import PerpoError

_MOST_SPANNED = 1000
"""A broken answer may claim millions of rows. Browsers stop there too, for columns."""


@dataclass
class Cell:
    """A cell of a table.

    Attributes:
        text: What it says.
        rows: How many rows it spans.
        columns: How many columns it spans.
        heading: Whether it heads a row or a column.
        up: The cells that touch it above, and so on.
    """

    text: str
    rows: int = 1
    columns: int = 1
    heading: bool = False
    up: list[Cell] = field(default_factory=list, repr=False)
    down: list[Cell] = field(default_factory=list, repr=False)
    left: list[Cell] = field(default_factory=list, repr=False)
    right: list[Cell] = field(default_factory=list, repr=False)

    def headings(self, way: str) -> list[Cell]:
        """Return the headings on the way "up" or "left"; without any, the cells where the way ends."""
        seen, waiting = {id(self): self}, [self]
        while waiting:
            for cell in getattr(waiting.pop(), way):
                if id(cell) not in seen:
                    seen[id(cell)] = cell
                    waiting.append(cell)
        others = [cell for cell in seen.values() if cell is not self]
        return [cell for cell in others if cell.heading] or [cell for cell in others if not getattr(cell, way)]


Table = list[Cell]


def tables(text: str) -> list[Table]:
    """Return the tables of a text: first those in Markdown, then those in HTML."""
    return markdown_tables(text) + html_tables(text)


def markdown_tables(text: str) -> list[Table]:
    """Return the tables in Markdown: at least two lines in a row that hold a pipe. First rows and columns are
    headings.
    """
    grid: list[list[str]] = [[]]
    for line in text.strip().split("\n"):
        if "|" in line:
            grid[-1].append(line)
        elif grid[-1]:
            grid.append([])
    rows = (_markdown_rows(lines) for lines in grid if len(lines) > 1)
    return [table for cells in rows if (table := _connected(cells))]


def html_tables(text: str) -> list[Table]:
    """Return the tables in HTML. Cells of `th` and of `thead` are headings.

    Raises:
        PerpoError: Beautiful Soup is not installed.
    """
    # Before a text without tables is left alone: what is missing is said at the first one.
    try:
        from bs4 import BeautifulSoup
        from bs4.exceptions import ParserRejectedMarkup
    except ImportError as error:
        raise PerpoError("tables in HTML need beautifulsoup4", "pip install 'perpo[pages]'") from error

    if "<table" not in text.lower():
        return []
    try:
        soup = BeautifulSoup(text, "html.parser")
    except ParserRejectedMarkup:  # such as a declaration that never ends
        return []
    rows = (_html_rows(element.find_all("tr")) for element in soup.find_all("table"))
    return [table for cells in rows if (table := _connected(cells))]


def _markdown_rows(lines: Sequence[str]) -> list[list[Cell]]:
    rules = [bool(inner := line.replace("|", "").strip()) and not set(inner) - set("- :") for line in lines]
    first = rules.index(True) if True in rules else None
    rows: list[list[Cell]] = []
    for number, line in enumerate(lines):
        if number == first or (line.strip() and not set(line) - set("- :|")):
            continue
        texts = [cell.strip() for cell in line.split("|")]
        texts = texts[1:] if texts and not texts[0] else texts
        texts = texts[:-1] if texts and not texts[-1] else texts
        if texts:
            heads = not rows
            rows.append([Cell(text, heading=heads or place == 0) for place, text in enumerate(texts)])
    return rows


def _html_rows(elements: Sequence[Any]) -> list[list[Cell]]:
    rows = []
    for number, element in enumerate(elements):
        in_head = element.find_parent("thead") is not None
        cells = []
        for cell in element.find_all(["th", "td"], recursive=False):
            for line_break in cell.find_all("br"):
                line_break.replace_with("\n")
            to_the_end = str(cell.get("rowspan")).strip() == "0"
            spanned = max(1, len(elements) - number) if to_the_end else _span(cell.get("rowspan"))
            text = cell.get_text(separator="").strip()
            cells.append(Cell(text, spanned, _span(cell.get("colspan")), cell.name == "th" or in_head))
        rows.append(cells)
    return rows


def _span(said: Any) -> int:
    try:
        number = int(said)
    except (TypeError, ValueError):
        return 1
    return min(number, _MOST_SPANNED) if number > 0 else 1


def _connected(rows: Iterable[Sequence[Cell]]) -> Table:
    """The cells of some rows, each with its neighbours."""
    grid, corners = _laid_out(rows)
    width = max((len(line) for line in grid), default=0)
    across = [[*line, *[None] * (width - len(line))] for line in grid]
    down = [list(column) for column in zip(*across, strict=True)]
    for cell, (row, column) in corners:
        for line in across[row : row + cell.rows]:
            _add(cell.left, cell, reversed(line[:column]))
            _add(cell.right, cell, line[column + cell.columns :])
        for line in down[column : column + cell.columns]:
            _add(cell.up, cell, reversed(line[:row]))
            _add(cell.down, cell, line[row + cell.rows :])
    return [cell for cell, _ in corners]


def _add(neighbours: list[Cell], cell: Cell, line: Iterable[Cell | None]) -> None:
    """Add the first other cell of a line that leads away from the cell."""
    other = next((one for one in line if one is not None and one is not cell), None)
    if other is not None and not any(one is other for one in neighbours):
        neighbours.append(other)


def _laid_out(rows: Iterable[Sequence[Cell]]) -> tuple[list[list[Cell | None]], list[tuple[Cell, tuple[int, int]]]]:
    """The cell of each place, and the place of each cell's upper left corner."""
    grid: list[list[Cell | None]] = []
    corners = []
    hanging: dict[int, tuple[Cell, int]] = {}  # by column: a cell from above, and how many more rows it takes
    for number, cells in enumerate(rows):
        line: list[Cell | None] = []
        waiting = list(cells)
        while waiting or any(column >= len(line) for column in hanging):
            column = len(line)
            if column in hanging:
                line.append(_lowered(hanging, column))
            elif waiting:
                cell = waiting.pop(0)
                corners.append((cell, (number, column)))
                for spanned in range(column, column + cell.columns):
                    line.append(cell)
                    hanging.pop(spanned, None)
                    if cell.rows > 1:
                        hanging[spanned] = cell, cell.rows - 1
            else:
                line.append(None)
        grid.append(line)
    while hanging:
        last = max(hanging)
        grid.append([_lowered(hanging, column) if column in hanging else None for column in range(last + 1)])
    return grid, corners


def _lowered(hanging: dict[int, tuple[Cell, int]], column: int) -> Cell:
    """The cell that hangs into a column, which then takes one row less."""
    cell, left = hanging.pop(column)
    if left > 1:
        hanging[column] = cell, left - 1
    return cell
