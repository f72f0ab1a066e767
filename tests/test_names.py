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
