"""What README, CONTRIBUTING and docs say of the code is there: paths, names of modules, the order of packages."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support import ROOT

_SPEC = importlib.util.spec_from_file_location("layers", ROOT / "tools" / "layers.py")
layers = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(layers)

TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ARCHITECTURE = ROOT / "docs" / "architecture.md"

# perpo_eval and perpo_dashboard are no folders of the root, so that paths which begin with them are found out. results/
# is left out: perpo-eval writes there.
_FOLDERS = "perpo|perpo_eval|perpo_dashboard|eval|dashboard|tests|docs|tools|benchmarks|recipes"
_PATH = re.compile(rf"(?<![\w./$-])(?:(?:{_FOLDERS})/[\w./{{}},<>+-]*|[\w./{{}},<>+-]+\.py\b)")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_NAME = re.compile(r"(?<![\w./-])perpo(?:_eval|_dashboard)?(?:[.:][A-Za-z_]\w*)+(?![\w/])")
_BRACES = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDER = re.compile(r"<\w+>")


def wrong_in(text: str, folder: Path = ROOT) -> list[str]:
    """Return the paths, links and names of a text that the tree does not have.

    A path with braces stands for several; `<name>` in one stands for any name, of which there must be one at least. A
    file's name alone may be that of any file.

    Args:
        text: Markdown.
        folder: What its links start from.
    """
    paths = [word.rstrip(".,") for word in _PATH.findall(text)]
    wrong = [path for word in paths for path in _expanded(word) if not _is_there(path)]
    wrong += [link for link in _LINK.findall(text) if not (folder / link).exists()]
    wrong += [name for name in _NAME.findall(text) if not _is_defined(name)]
    return list(dict.fromkeys(wrong))


def _expanded(path: str) -> Iterator[str]:
    """Yield the paths that one with braces stands for."""
    parts = _BRACES.split(path)
    for chosen in itertools.product(*(part.split(",") if place % 2 else [part] for place, part in enumerate(parts))):
        yield "".join(chosen)


def _is_there(path: str) -> bool:
    if _PLACEHOLDER.search(path):
        return any(ROOT.glob(_PLACEHOLDER.sub("*", path)))
    return (ROOT / path).exists() if "/" in path else any(path in names for _, _, names in _tree())


@cache
def _tree() -> list[tuple[str, list[str], list[str]]]:
    """Return the folders and files of the code."""
    return [step for name in ("perpo", "eval", "dashboard", "tests", "tools") for step in os.walk(ROOT / name)]


def _is_defined(name: str) -> bool:
    """Say whether a dotted name is a module, or stands in one: a class, a function, a constant, or a class's part."""
    words = re.split("[.:]", name)
    files = layers.modules()
    length = next(n for n in range(len(words), -1, -1) if ".".join(words[:n]) in files or n == 0)
    if length == 0:
        return False
    body = ast.parse(files[".".join(words[:length])].read_text(encoding="utf-8")).body
    for word in words[length:]:
        found = next((node for node in body if word in _names(node)), None)
        if found is None:
            return False
        body = getattr(found, "body", [])
    return True


def _names(node: ast.stmt) -> list[str]:
    """Return what a statement gives a name to."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_what_a_text_names_is_in_the_tree(path):
    assert wrong_in(path.read_text(encoding="utf-8"), path.parent) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`perpo/nowhere.py`, `perpo/errors.py`", ["perpo/nowhere.py"]),
        ("perpo_eval/evaluate/run.py stands in eval/perpo_eval/evaluate/.", ["perpo_eval/evaluate/run.py"]),
        ("`runner.py` is nowhere, `store.py` somewhere, tools/layers.py here.", ["runner.py"]),
        ("perpo/stats/{paired,unpaired}.py", ["perpo/stats/unpaired.py"]),
        ("`perpo/cli/<program>.py`, `perpo/clis/<program>.py`", ["perpo/clis/<program>.py"]),
        ("see [this](docs/training.md#data), [that](docs/sleeping.md), [web](https://a.b/c)", ["docs/sleeping.md"]),
        ("`perpo.models.families.FAMILIES`, `perpo.models.families.TRIBES`", ["perpo.models.families.TRIBES"]),
        ("`perpo.errors.PerpoError.hint`, `perpo.nowhere`", ["perpo.errors.PerpoError.hint", "perpo.nowhere"]),
        ("`perpo.models.families.Family.box_format`, `perpo_eval.cli.run:demo_main`, --model perpo.", []),
        ("`perpo.losses.perpo_loss`, handed on by its package, and runs/tiny/results/x.json", []),
    ],
)
def test_a_path_or_name_that_is_not_there_is_found(text, wrong):
    assert wrong_in(text) == wrong


def test_the_tables_of_packages_are_those_of_the_code():
    """Rows of docs/architecture.md: line, package, whether it needs torch, what it is for."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (no|in part|yes) \| \S.*\|$", ARCHITECTURE.read_text(), re.MULTILINE)
    assert rows == [
        (str(number), package, _needs_torch(f"{distribution}.{package}"))
        for distribution, lines in layers.LINES.items()
        for number in range(len(lines), 0, -1)
        for package in lines[number - 1]
    ]


def _needs_torch(package: str) -> str:
    free = [name for name in layers.TORCH_FREE if f"{name}.".startswith(f"{package}.")]
    return "no" if package in free else "in part" if free else "yes"
