"""Values that people write, in flags or YAML, as the types that an arguments dataclass names."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError


def without_none(hint: Any) -> Any:
    """Return X for `X | None`, and the hint itself otherwise."""
    if get_origin(hint) in (Union, types.UnionType):
        return Union[tuple(part for part in get_args(hint) if part is not type(None))]  # noqa: UP007
    return hint


def convert(value: Any, hint: Any, where: str) -> Any:
    """Return a value (typed, from YAML, or text, from the command line) as the type that `hint` names.

    Raises:
        PerpoError: It is none; it is named as `where`.
    """
    kind = without_none(hint)
    optional = type(None) in get_args(hint)
    if optional and (value is None or value == "none"):
        return None
    if get_origin(kind) is list:
        if not isinstance(value, list):
            raise PerpoError(f"{where} expects a list, got {value!r}", "write it as [a, b]")
        return [convert(item, get_args(kind)[0], where) for item in value]
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        words = {str(choice): choice for choice in choices}
        if str(value) not in words:
            message = f"{where} expects one of {', '.join(words)}, got {value!r}"
            raise PerpoError(message, did_you_mean(str(value), words))
        return words[str(value)]
    expected, read = _READERS[kind]
    try:
        return read(value)
    except (TypeError, ValueError):
        hint_text = "write none to leave it unset" if optional else "see --help for its meaning"
        raise PerpoError(f"{where} expects {expected}, got {value!r}", hint_text) from None


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _read_number_or_text(value: Any) -> int | str:
    try:
        return _read_int(value)
    except ValueError:
        return _read_text(value)


def _read_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError
    return int(value)


def _read_float(value: Any) -> float:
    # text is taken from YAML too, where 1e-5 (without a point) is a string
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _read_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in ("true", "false"):
        raise ValueError
    return value.lower() == "true"


_READERS: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    str: ("text", _read_text),
    Path: ("a path", lambda value: Path(_read_text(value))),
    int: ("a whole number", _read_int),
    Union[int, str]: ("a whole number or text", _read_number_or_text),  # noqa: UP007
    float: ("a finite number", _read_float),
    bool: ("True or False", _read_bool),
}
