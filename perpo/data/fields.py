"""One row of a file of questions or records: fields are checked as they are taken; errors name the row."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from perpo.data.row_formats import plain_row
from perpo.data.rows import Row
from perpo.errors import PerpoError, placed


class Fields:
    """One row of a file, whose fields are checked as they are taken."""

    def __init__(self, row: Any, place: str) -> None:
        self.place = place
        if not isinstance(row, dict):
            raise self.error(f"expected an object with named fields, found {row!r:.40}", "each record is a JSON object")
        with placed(place):
            self.row: Row = plain_row(row)

    def error(self, problem: str, hint: str) -> PerpoError:
        return PerpoError(f"{self.place}: {problem}", hint)

    def text(self, name: str) -> str:
        value = self.row.get(name)
        if not isinstance(value, str):
            hint = (
                f"each record needs `{name}`; this one has {', '.join(self.row)[:200]}. To give a field another name: "
            )
            raise self.error(f"expected text as `{name}`, found {value!r:.40}", f"{hint}jq -c '.{name} = .NAME' FILE")
        if "\0" in value:
            raise self.error(f"`{name}` holds a NUL character: {value!r:.60}", "correct or remove the record")
        return value

    def per_answer(self, name: str, count: int, is_good: Callable[[Any], bool], expected: str) -> list[Any]:
        """Return a list with one good value for each of `count` answers."""
        values = self.row.get(name)
        if not isinstance(values, list):
            raise self.error(f"expected a list as `{name}`, found {values!r:.40}", f"give {expected} for each answer")
        if len(values) != count:
            raise self.error(f"{count} answers but {len(values)} `{name}`", f"give {expected} for each answer")
        for value in values:
            if not is_good(value):
                raise self.error(
                    f"expected {expected} in `{name}`, found {value!r:.40}", "correct or remove the record"
                )
        return values


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floating-point numbers
        return False


def is_reward(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def is_logp(value: Any) -> bool:
    return value is None or _is_number(value)
