"""Errors of pages by line, over the answers of a run."""

import json

from perpo.texts.line_errors import ERRORS
from perpo_dashboard.compare.page_errors import errors_of


def test_lines_and_loops_are_counted() -> None:
    pages = ["one line\nanother one\nthe third", "only this line", "not answered", "in a loop"]
    said = ["one line\nthe third", "<think>what is it</think>only that line", None, "in a loop\n" * 60]
    read = [None, json.dumps("only that line"), None, None]
    errors = errors_of([*map(json.dumps, pages)], read, said)
    assert (errors.lines, errors.answers, errors.loops) == (5, 3, 1)
    assert errors.wrong == dict.fromkeys(ERRORS, 0) | {"dropped": 1, "changed": 1, "repeated": 59}
