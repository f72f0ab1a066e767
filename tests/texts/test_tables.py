"""perpo.texts.tables: cells and their neighbours, by hand."""

from __future__ import annotations

import pytest

from perpo.texts.tables import Table, html_tables, markdown_tables, tables

MARKDOWN = "Before\n\n| Model | Words | Bytes |\n|:--|:-:|--:|\n| arXiv | 1 | 2 |\n| | 3 | 4 |\nAfter"
HTML = (
    "<table><thead><tr><th rowspan='2'>Name</th><th colspan=2>Size</th></tr><tr><th>a</th><th>b</th></tr></thead>"
    "<tr><td>x<br>y</td><td>1</td><td>2</td></tr></table>"
)


def beside(table: Table, text: str) -> dict[str, list[str]]:
    """The texts around the only cell of that text."""
    (cell,) = [cell for cell in table if cell.text == text]
    around = {way: sorted(other.text for other in getattr(cell, way)) for way in ("up", "down", "left", "right")}
    heads = {f"{way} headings": sorted(other.text for other in cell.headings(way)) for way in ("up", "left")}
    return {way: found for way, found in (around | heads).items() if found}


def test_a_table_in_markdown() -> None:
    (table,) = tables(MARKDOWN)
    assert [cell.text for cell in table] == ["Model", "Words", "Bytes", "arXiv", "1", "2", "", "3", "4"]
    assert [cell.text for cell in table if cell.heading] == ["Model", "Words", "Bytes", "arXiv", ""]
    assert beside(table, "1") == {
        "up": ["Words"], "down": ["3"], "left": ["arXiv"], "right": ["2"], "up headings": ["Words"],
        "left headings": ["arXiv"],
    }  # fmt: skip
    # Without its pipe, an empty cell at the start of a line is lost, as in the official program.
    (moved,) = tables("a | b\n | c")
    assert beside(moved, "c")["up"] == ["a"]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a | b\nno pipe\nc | d", []),  # one line is no table
        ("a | b\nc | d", [["a", "b"], ["c", "d"]]),
        ("a | b\n\nc | d\n- | -\ne|f", [["c", "d"], ["e", "f"]]),
        ("|a|\n|---|\n|---|\n|b|", [["a"], ["b"]]),
        ("|a|\n\t|---|\t\n|b|", [["a"], ["b"]]),
        ("", []),
    ],
)
def test_what_is_a_table_in_markdown(text: str, rows: list[list[str]]) -> None:
    found = [cell.text for table in markdown_tables(text) for cell in table]
    assert found == [cell for row in rows for cell in row]


def test_cells_that_span_rows_and_columns() -> None:
    (table,) = html_tables(HTML)
    assert beside(table, "Name") == {"down": ["x\ny"], "right": ["Size", "a"]}
    assert beside(table, "Size") == {"down": ["a", "b"], "left": ["Name"], "left headings": ["Name"]}
    assert beside(table, "2")["up headings"] == ["Size", "b"]
    assert beside(table, "2")["left headings"] == ["x\ny"]  # no heading: where the way ends


def test_spans_that_say_nonsense() -> None:
    (table,) = html_tables(
        '<TABLE><tr><td rowspan="x" colspan="-2">a</td><td rowspan="0">b</td></tr><tr><td>c</td></tr>'
    )
    assert beside(table, "b") == {"left": ["a", "c"], "left headings": ["a", "c"]}
    (huge,) = html_tables('<table><tr><td rowspan="99999999">a</td><td>b</td></tr></table>')
    assert beside(huge, "b") == {"left": ["a"], "left headings": ["a"]}


def test_a_cell_over_one_that_hangs_from_above() -> None:
    """The official program stops there; the lower cell takes the place."""
    (table,) = html_tables(
        '<table><tr><td>a</td><td rowspan="3">b</td></tr><tr><td colspan="2">c</td></tr><tr><td>d</td></tr></table>'
    )
    assert beside(table, "c")["up"] == ["a", "b"]


@pytest.mark.parametrize("text", ["<table></table>", "<table><tr></tr></table>", "<table", "no <b>table</b>"])
def test_no_table(text: str) -> None:
    assert html_tables(text) == []
