"""Read single cells of prediction files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from perpo.errors import PerpoError

_ENDS = {"stop": "stop", "length": "length", "eos": "stop", "end_turn": "stop", "max_tokens": "length"}
_ENDS |= {"repetition": "repetition"}
# VLMEvalKit writes it where a request came to nothing. POPE's rule would read it as yes.
_FAILED = "Failed to obtain answer via API"


def is_data(value: Any) -> bool:
    """Return whether an answer is written as a list or an object, and not as a text."""
    while isinstance(value, list) and len(value) == 1:
        (value,) = value
    return isinstance(value, list | Mapping)


def read_answer(value: Any, column: str, boxes: bool) -> str | None:
    """Return an answer as a text, None where there is none; a number, and boxes where they are asked for, as JSON.

    Raises:
        PerpoError: It is no answer. As JSON, each word of it would be read with its quotes.
    """
    within = value
    while isinstance(within, list) and len(within) == 1:
        within = within[0]
    if within is None or isinstance(within, str):
        value = within
    if value is None or isinstance(value, str):
        return None if value is not None and value.strip().startswith(_FAILED) else value
    if isinstance(value, float) and math.isnan(value):
        return None
    try:
        if isinstance(value, bool) or (isinstance(value, list | Mapping) and not boxes):
            raise TypeError
        return json.dumps(value, ensure_ascii=False)
    except TypeError as error:
        raise PerpoError(f"{column} is {value!r:.40}, which is no answer", "expected a text") from error


def _name(value: Any, column: str) -> str:
    """A name of a sample, a picture or a split: a text, or a whole number as a table writes it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, Mapping) and isinstance(value.get("path"), str):
        value = value["path"]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise PerpoError(f"{column} is {value!r:.40}", "expected a text or a whole number")
    return str(value).strip()


def _question(value: Any, column: str) -> str:
    value = value.get("problem", value.get("question")) if isinstance(value, Mapping) else value
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if not isinstance(value, str):
        raise PerpoError(f"{column} is {value!r:.40}", "expected what was asked, as a text")
    return value


def _whole(value: Any, column: str) -> int:
    try:
        number = float(value)
        if isinstance(value, bool) or not number.is_integer() or number < 0:
            raise ValueError
        return int(number)
    except (TypeError, ValueError, OverflowError):
        raise PerpoError(f"{column} is {value!r:.40}", "expected a whole number") from None


def _side(value: Any, column: str) -> int:
    side = _whole(value, column)
    if side < 1:
        raise PerpoError(f"{column} is {side}", "expected pixels")
    return side


def _tokens(value: Any, column: str) -> int | None:
    """A count, or lmms-eval's counts of each request."""
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    if isinstance(value, Mapping):
        value = value.get("output_tokens")
    return None if value is None else _whole(value, column)


def _milliseconds(value: Any, column: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not number >= 0 or math.isinf(number):
        raise PerpoError(f"{column} is {value!r:.40}", "expected milliseconds")
    return number


def _finish(value: Any, column: str) -> str:
    if not isinstance(value, str) or value not in _ENDS:
        raise PerpoError(f"{column} is {value!r:.40}", f"expected one of {', '.join(_ENDS)}")
    return _ENDS[value]


READ = {
    "sample_key": _name,
    "id": _name,
    "number": _whole,
    "image": _name,
    "question": _question,
    "truth": lambda value, column: value,
    "split": _name,
    "width": _side,
    "height": _side,
    "tokens": _tokens,
    "latency_ms": _milliseconds,
    "finish": _finish,
}
"""What reads a cell, by what it is; answers have a reader of their own."""
