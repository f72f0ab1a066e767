"""Digests of code by what it does: other comments, docstrings, imports and folders are the same code. No torch."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path


def module_file(name: str) -> Path:
    """Return the file of a module, which is not imported.

    Raises:
        ModuleNotFoundError: There is none.
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module named {name}", name=name)
    return Path(spec.origin)


def code_digest(files: Mapping[str, Path]) -> str:
    """Return the SHA-256 of what files mean: Python as its syntax tree, any other file as its bytes.

    Left out of a tree are comments, docstrings and imports; positions are no part of it. So a file can be moved, and
    its text be made clearer, and runs made before and after stay comparable.

    Args:
        files: What each file is for, such as "boxes" -> its path. The order makes no difference.

    Raises:
        OSError: A file can't be read.
        SyntaxError: A .py file is not Python.
    """
    digest = hashlib.sha256()
    for job, path in sorted(files.items()):
        content = path.read_bytes()
        if path.suffix == ".py":
            content = repr(_meaning(ast.parse(content))).encode()
        digest.update(job.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()


def _meaning(node: object) -> object:
    """A tree as nested tuples. `ast.dump` is not used: what it prints of empty fields depends on Python's version."""
    if isinstance(node, list):
        return tuple(_meaning(item) for item in node if not isinstance(item, ast.Import | ast.ImportFrom))
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module) and _has_docstring(node):
        node.body = node.body[1:]
    fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
    return type(node).__name__, tuple((name, _meaning(value)) for name, value in fields)


def _has_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module) -> bool:
    return ast.get_docstring(node, clean=False) is not None
