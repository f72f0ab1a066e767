"""Task files by the names of their tasks, groups and tags: lmms-eval's, and those of a folder of one's own.

lmms-eval's own index reads two thousand files. Here only files that hold the name are read.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpo.errors import PerpoError
from perpo_eval.rows.suites import TASKS


@dataclass(frozen=True)
class TaskFile:
    """A task file of lmms-eval's format.

    Attributes:
        name: The task's.
        path: The file.
        config: What it says, its functions loaded.
        sha256: Digest of it, of what it includes, and of the modules beside it that its functions are in or import.
    """

    name: str
    path: Path
    config: dict[str, Any]
    sha256: str


@dataclass(frozen=True)
class _Entry:
    """What a file makes known under a name: a task, or the members of a group or a tag."""

    path: Path
    members: tuple[str, ...] | None


def find_tasks(names: Sequence[str], include_path: str | None) -> list[TaskFile]:
    """Return the task files of some names; groups and tags stand for their tasks.

    Args:
        names: Of tasks, groups or tags.
        include_path: A folder of one's own that holds task files.

    Raises:
        PerpoError: A name that nobody knows, a task that is defined twice, or a file that cannot be loaded.
    """
    if include_path is not None and not Path(include_path).is_dir():
        raise PerpoError(f"--include_path {include_path} is no folder", "give the folder of your task files")
    roots = [_shipped(), *([] if include_path is None else [Path(include_path).resolve()])]
    task_files: dict[str, TaskFile] = {}
    for name in names:
        members = list(_tasks(name, roots, ()))
        if [task for task, _ in members] != [name]:
            print(
                f"note: {name} stands for {len(members)} tasks. Each has its own numbers; lmms-eval's number of all of "
                "them together is not made",
                file=sys.stderr,
            )
        for task, path in members:
            if task not in task_files:
                task_files[task] = _read(task, path)
    return list(task_files.values())


def _shipped() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("lmms_eval")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / "tasks"


def _tasks(name: str, roots: Sequence[Path], above: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """The tasks that a name stands for, with their files."""
    task_files = [_entries(name, root) for root in roots]
    entries = [entry for of_root in task_files for entry in of_root]
    if not entries:
        inside = f" (in {above[-1]})" if above else ""
        near = difflib.get_close_matches(name, [*TASKS, *(path.stem for root in roots for path in _files(root))], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "lmms-eval's names: python -m lmms_eval --tasks list"
        raise PerpoError(f"lmms-eval has no task '{name}'{inside}, and perpo has none", hint)
    plain = [entry for entry in entries if entry.members is None]
    twice = (
        [of_root[0].path for of_root in task_files]
        if all(task_files) and len(task_files) > 1
        else [each.path for each in plain]
    )
    if len(set(twice)) > 1:
        where = " and ".join(map(str, twice[:2]))
        raise PerpoError(f"the task '{name}' is defined twice: {where}", "give one of them another name")
    if plain:
        yield name, plain[0].path
        return
    for member in dict.fromkeys(member for entry in entries for member in entry.members or ()):
        if member not in above:
            yield from _tasks(member, roots, (*above, name))


def _entries(name: str, root: Path) -> list[_Entry]:
    from lmms_eval import utils

    entries = []
    for path in _files(root):
        text = _text(path)
        if name not in text:
            continue
        try:
            config = utils.load_yaml_config(str(path), mode="simple")
        except Exception as error:  # another task's file may hold anything
            if re.search(rf"^(task|group):\s*['\"]?{re.escape(name)}['\"]?\s*(#.*)?$", text, re.MULTILINE):
                raise _not_loaded(path, error) from error
            continue
        entries += _said(name, config, path) if isinstance(config, dict) else []
    return entries


def _said(name: str, config: dict[str, Any], path: Path) -> list[_Entry]:
    """What a file says of a name."""
    task = config.get("task")
    if isinstance(task, list):
        members = tuple(each if isinstance(each, str) else str(each.get("task")) for each in task)
        return [_Entry(path, members)] if config.get("group") == name else []
    if task == name:
        return [_Entry(path, None)]
    tags = [config.get(kind) for kind in ("tag", "group")]
    held = [tag for given in tags for tag in (given if isinstance(given, list) else [given])]
    return [_Entry(path, (str(task),))] if name in held else []


def _files(root: Path) -> tuple[Path, ...]:
    return tuple(sorted(root.rglob("*.yaml")))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _read(name: str, path: Path) -> TaskFile:
    """Load a task file with its functions."""
    from lmms_eval import utils

    # Any code may run and fail while its functions are loaded.
    try:
        with contextlib.redirect_stdout(sys.stderr):
            config = utils.load_yaml_config(str(path), mode="full")
    except Exception as error:
        raise _not_loaded(path, error) from error
    return TaskFile(name, path, config, _digest(path))


def _not_loaded(path: Path, error: Exception) -> PerpoError:
    return PerpoError(
        f"the task file {path} cannot be loaded: {type(error).__name__}: {' '.join(str(error).split()):.200}",
        "install what its functions import, or mend it",
    )


def _digest(path: Path) -> str:
    """Of the file, of what it includes, and of the Python files beside it that its functions are in or import."""
    import yaml

    digest, waiting, seen = hashlib.sha256(), [path], set()
    while waiting:
        file = waiting.pop(0)
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        content = file.read_bytes()
        digest.update(hashlib.sha256(content).digest())
        waiting += _imported(file, content) if file.suffix == ".py" else []
        for event in yaml.parse(content, Loader=yaml.SafeLoader) if file.suffix != ".py" else ():
            value = getattr(event, "value", None)
            if isinstance(value, str) and "\n" not in value and len(value) < 200:
                module = value.split(".")[0] if getattr(event, "tag", None) == "!function" else ""
                waiting += [file.parent / value] if (file.parent / value).is_file() else []
                waiting += [file.parent / f"{module}.py"] if module else []
    return digest.hexdigest()


def _imported(file: Path, content: bytes) -> list[Path]:
    """The Python files beside one that it imports by a name of theirs, also within a function."""
    names: set[str] = set()
    try:
        parsed = ast.parse(content)
    except (SyntaxError, ValueError):  # what is loaded can be parsed: nobody imports this one
        return []
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {name for each in node.names for name in each.name.split(".")}
            names |= set((node.module or "").split(".")) if isinstance(node, ast.ImportFrom) else set()
    return [beside for name in sorted(names) if (beside := file.parent / f"{name}.py").is_file()]
