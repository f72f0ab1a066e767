"""Which comparisons of the packages' code name something by a word of its own, where a table should be asked."""

import ast
from collections.abc import Collection

from tests.support import ROOT


def compared_by_name(about: str, names: Collection[str]) -> list[str]:
    """Return "file:line" of each comparison in whose sides `about` stands, and one of these names as a text."""
    found = []
    for folder in ("perpo", "eval/perpo_eval", "dashboard/perpo_dashboard"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Compare) and any(about in ast.unparse(side) for side in _sides(node)):
                    words = {each.value for side in _sides(node) for each in ast.walk(side) if _is_text(each)}
                    found += [f"{path.name}:{node.lineno}"] if words & set(names) else []
    return found


def _sides(node: ast.Compare) -> list[ast.expr]:
    return [node.left, *node.comparators]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
