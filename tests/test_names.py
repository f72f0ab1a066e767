"""Names mean one thing, and what is public says what it does."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

_FOLDERS = ("perpo", "eval/perpo_eval", "dashboard/perpo_dashboard", "benchmarks", "tools")


def _modules() -> Iterator[tuple[Path, ast.Module]]:
    for folder in _FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def test_no_two_classes_have_one_name():
    """A reader who knows what one `Row` is should not meet another."""
    where = defaultdict(list)
    for path, module in _modules():
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(f"{path}:{node.lineno}")
    assert len(where) > 200
    assert {name: places for name, places in where.items() if len(places) > 1} == {}


_Named = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _public(body: list[ast.stmt], inside: str = "") -> Iterator[tuple[str, _Named]]:
    for node in body:
        if isinstance(node, _Named) and not node.name.startswith("_"):
            yield inside + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, f"{inside}{node.name}.")


def test_what_is_public_is_described_by_a_sentence_or_a_name_and_not_by_half_a_question():
    """ "Return whether ..." says what a reader gets, "Whether ..." leaves that open."""
    questions = {"What", "Whether", "How", "Why", "Which", "Where", "When"}
    described, open_ended = 0, []
    for path, module in _modules():
        for name, node in [("", module), *_public(module.body)]:
            text = ast.get_docstring(node)
            described += text is not None
            if text and text.split()[0].rstrip(",.:") in questions:
                open_ended.append(f"{path} {name}: {text.splitlines()[0]}")
    assert described > 1000
    assert not open_ended, "\n".join(open_ended)


def test_names_say_what_was_found() -> None:
    """A variable or parameter called `found` leaves open what it is."""
    left_open = [
        f"{path}:{node.lineno}"
        for path, module in _modules()
        for node in ast.walk(module)
        if (isinstance(node, ast.Name) and node.id == "found") or (isinstance(node, ast.arg) and node.arg == "found")
    ]
    assert not left_open, "\n".join(left_open)
