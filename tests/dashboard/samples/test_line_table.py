"""The table of lines: what it says, and that no text of a model's becomes HTML."""

from html.parser import HTMLParser

from perpo.texts.line_errors import line_errors
from perpo_dashboard.samples.line_table import as_html, told

PAGE = "one line here\n<b>bold</b> & so on\na third line\nthe last of them"
SAID = "the last of them\none line here\n<b>bald</b> & so on\n<script>alert(1)</script>"


class Cells(HTMLParser):
    """The texts of the cells, and the names of all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data) -> None:
        if self.cells:
            self.cells[-1] += data


def test_lines_stand_beside_each_other() -> None:
    cells = Cells(as_html(line_errors(PAGE, SAID), "#009e73", "#d55e00"))
    rows = [tuple(cells.cells[start : start + 3]) for start in range(0, len(cells.cells), 3)]
    assert rows == [
        ("in another place", "", "the last of them"),
        ("", "one line here", "one line here"),
        ("changed", "<b>bold</b> & so on", "<b>bald</b> & so on"),
        ("dropped", "a third line", ""),
        ("in another place", "the last of them", ""),
        ("added", "", "<script>alert(1)</script>"),
    ]
    assert not cells.tags & {"script", "b"}


def test_counts_are_told() -> None:
    assert told(line_errors(PAGE, SAID)) == "Lines: 1 dropped, 1 added, 1 changed, 1 in another place, 1 the same"
