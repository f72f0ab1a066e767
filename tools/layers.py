"""Show and check which package may import which. `python tools/layers.py` prints the table, and what the code does.

A package imports only packages on lines below its own; packages on one line do not import each other. Imports within
functions and under TYPE_CHECKING count. `tests/test_imports.py` holds the code to it.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

LINES: dict[str, tuple[tuple[str, ...], ...]] = {
    "perpo": (
        ("errors", "answers", "stats", "losses", "methods"),
        ("common",),
        ("boxes", "texts"),
        ("benchmarks",),
        ("data",),
        ("records",),
        ("models", "results"),
        ("rewards",),
        ("engines", "tiny"),
        ("sample", "train"),
        ("prepare",),
        ("cli",),
    ),
    "perpo_eval": (
        ("scorers", "wanted"),
        ("benchmarks", "judge", "engines"),
        ("rows",),
        ("tasks", "arguments", "harness"),
        ("evaluate",),
        ("recipes", "imports"),
        ("cli",),
    ),
    "perpo_dashboard": (
        ("shared", "export"),
        ("leaderboard", "compare", "samples", "training", "vote", "regressions"),
        ("app", "cli"),
    ),
}
"""The packages of each distribution, from the ground up."""

SOURCES = {"perpo": "perpo", "perpo_eval": "eval/perpo_eval", "perpo_dashboard": "dashboard/perpo_dashboard"}
MAY_IMPORT = {"perpo": set(), "perpo_eval": {"perpo"}, "perpo_dashboard": {"perpo"}}

TORCH_FREE = (
    *(f"perpo.{name}" for name in ("errors", "answers", "stats", "common", "boxes", "texts")),
    *(f"perpo.{name}" for name in ("benchmarks", "data", "records")),
    *("perpo.methods", "perpo.rewards", "perpo.results", "perpo.prepare", "perpo.cli", "perpo.tiny.world"),
    *(f"perpo.models.{name}" for name in ("families", "families_table", "checkpoints", "answer_format")),
    *(f"perpo.models.{name}" for name in ("control_tokens", "costs", "memory", "hub", "original", "original_files")),
    *(f"perpo.engines.{name}" for name in ("base", "choice", "replies", "served", "server_flags", "vllm_flags")),
    *("perpo.engines.chat", "perpo.engines.server_pool", "perpo.sample"),
    *(f"perpo.train.{name}" for name in ("arguments", "recording", "resuming", "samplers", "authors")),
    *(f"perpo.train.outputs.{name}" for name in ("card", "export", "merge", "services")),
    *(
        f"perpo_eval.{name}"
        for name in ("scorers", "benchmarks", "judge", "rows", "harness", "recipes", "imports", "cli")
    ),
    *("perpo_eval.wanted", "perpo_eval.arguments", "perpo_eval.engines.failures"),
    *("perpo_eval.evaluate.scoring", "perpo_eval.evaluate.numbers"),
    *("perpo_dashboard.shared", "perpo_dashboard.leaderboard", "perpo_dashboard.compare", "perpo_dashboard.samples"),
    *(
        "perpo_dashboard.training",
        "perpo_dashboard.vote",
        "perpo_dashboard.regressions",
        "perpo_dashboard.export",
        "perpo_dashboard.cli",
    ),
)
"""Packages and modules whose import loads neither torch nor transformers nor lmms-eval."""

Import = tuple[str, str, int]
"""The module that imports, the module that is imported, the line."""


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return the files of the three distributions by module name."""
    paths = {}
    for name, folder in SOURCES.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = (name, *path.relative_to(root / folder).with_suffix("").parts)
            paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return paths


def imports(files: Mapping[str, Path]) -> list[Import]:
    """Return every import of one of these modules by another, read from the syntax trees."""
    taken = []
    for module, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [name if name in files else node.module for name in names]
            else:
                continue
            taken += [(module, target, node.lineno) for target in targets if target in files and target != module]
    return taken


def package_of(module: str) -> tuple[str, str]:
    """Return the distribution of a module, and the package or module of its first level ("" for the face)."""
    distribution, _, rest = module.partition(".")
    return distribution, rest.partition(".")[0]


def line_of(package: tuple[str, str]) -> int:
    """Return the line of a package, 1 at the ground; 0 for the face of a distribution, which imports nothing.

    Raises:
        KeyError: The table does not name it.
    """
    distribution, name = package
    lines = (number for number, line in enumerate(LINES[distribution], 1) if name in line)
    number = next(lines, 0 if name == "" else None)
    if number is None:
        raise KeyError(f"tools/layers.py names no line for {distribution}.{name}")
    return number


def upward(taken: Iterable[Import]) -> list[Import]:
    """Return the imports that do not run down: to the same line or a higher one, or to a distribution that is none of
    the importer's business.
    """
    wrong = []
    for module, target, line in taken:
        one, other = package_of(module), package_of(target)
        if one[0] != other[0]:
            if other[0] not in MAY_IMPORT[one[0]]:
                wrong.append((module, target, line))
        elif one != other and line_of(other) >= line_of(one):
            wrong.append((module, target, line))
    return wrong


def circles(taken: Iterable[Import]) -> list[list[str]]:
    """Return the groups of modules that import each other in a loop (Tarjan 1972)."""
    below: dict[str, set[str]] = defaultdict(set)
    for module, target, _ in taken:
        below[module].add(target)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in sorted(below[module]):
            if target not in index:
                visit(target)
            if target in stack:
                low[module] = min(low[module], low[target])
        if low[module] == index[module]:
            place = stack.index(module)
            if len(stack) - place > 1:
                groups.append(sorted(stack[place:]))
            del stack[place:]

    for module in sorted(below):
        if module not in index:
            visit(module)
    return groups


def main() -> int:
    """Print the lines with their packages and what each imports; return 1 if something runs up or in a circle."""
    files = modules()
    taken = imports(files)
    below = defaultdict(set)
    sizes: dict[tuple[str, str], int] = defaultdict(int)
    for module, path in files.items():
        sizes[package_of(module)] += len(path.read_text(encoding="utf-8").splitlines())
    for module, target, _ in taken:
        one, other = package_of(module), package_of(target)
        if one != other:
            below[one].add(other[1] if one[0] == other[0] else ".".join(part for part in other if part))
    for distribution, lines in LINES.items():
        print(distribution)
        for number in range(len(lines), 0, -1):
            for name in lines[number - 1]:
                package = distribution, name
                print(f"  {number:2}  {name:12} {sizes[package]:5} lines  imports {', '.join(sorted(below[package]))}")
    wrong, loops = upward(taken), circles(taken)
    for module, target, line in wrong:
        print(f"upward: {files[module].relative_to(ROOT)}:{line} imports {target}")
    for loop in loops:
        print(f"circle: {', '.join(loop)}")
    print(f"{len(files)} modules, {len(taken)} imports, {len(loops)} circles, {len(wrong)} upward imports")
    return 1 if wrong or loops else 0


if __name__ == "__main__":
    sys.exit(main())
