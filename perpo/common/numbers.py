"""The kinds of numbers that programs take. Each knows its range and refuses what lies outside in one sentence.

A field of an arguments dataclass says its kind by its type, as in `limit: Count | None`. `perpo.common.arguments`
holds every number that it reads to its kind. A class that code makes by itself calls `check_numbers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

from perpo.errors import PerpoError

LARGEST = 2**31 - 1
"""Whole numbers without a bound of their own go up to here: libraries below us count in 32 or 64 bits."""


@dataclass(frozen=True)
class Range:
    """The numbers from `least` to `most`.

    Attributes:
        least: The smallest; infinite ones and NaN never belong to it.
        most: The largest; None where there is no bound.
        open_below: Whether `least` itself does not belong to it.
        open_above: Whether `most` itself does not.
        written: How the bounds are written where digits are hard to read.
    """

    least: float
    most: float | None = None
    open_below: bool = False
    open_above: bool = False
    written: str | None = None

    def check(self, value: float, where: str) -> None:
        """Refuse a number that lies outside.

        Args:
            value: The number.
            where: What the user gave it as, such as `--seed`.

        Raises:
            PerpoError: It does.
        """
        if not self._holds(value):
            raise PerpoError(f"{where} must be {self}, got {value}", "see --help for its meaning")
        if self.most is None and isinstance(value, int) and value > LARGEST:
            raise PerpoError(f"{where} must be at most 2^31 - 1, got {value}", "see --help for its meaning")

    def _holds(self, value: float) -> bool:
        low = self.least < value if self.open_below else self.least <= value
        high = self.most is None or (value < self.most if self.open_above else value <= self.most)
        return low and high and (isinstance(value, int) or math.isfinite(value))

    def __str__(self) -> str:
        """Return it in words: at least 1; above 0 and at most 1; from 0 to 1."""
        if self.written is not None:
            return self.written
        low = f"{'above' if self.open_below else 'at least'} {self.least}"
        if self.most is None:
            return low
        if not (self.open_below or self.open_above):
            return f"from {self.least} to {self.most}"
        return f"{low} and {'below' if self.open_above else 'at most'} {self.most}"


SEED_32 = Range(0, 2**32 - 1, written="from 0 to 2^32 - 1")
COUNT, COUNT_OR_ZERO = Range(1), Range(0)
ABOVE_ZERO = Range(0, open_below=True)

Seed32 = Annotated[int, SEED_32]
"""A seed of NumPy's and torch's global generators, which take no larger one."""
Seed64 = Annotated[int, Range(0, 2**64 - 1, written="from 0 to 2^64 - 1")]
"""A seed of what is drawn for each answer."""
Count = Annotated[int, COUNT]
CountOrZero = Annotated[int, COUNT_OR_ZERO]
"""A number of things, where 0 means none, or all."""
Port = Annotated[int, Range(0, 65535)]
AboveZero = Annotated[float, ABOVE_ZERO]
ZeroOrMore = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
ShareAboveZero = Annotated[float, Range(0, 1, open_below=True)]
ShareBelowOne = Annotated[float, Range(0, 1, open_above=True)]


def ranges_of(cls: Any) -> Mapping[str, Range]:
    """Return the ranges of a dataclass's fields, by name, of those whose type says one."""
    ranges: dict[str, Range] = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        for kind in (hint, *get_args(hint)):  # `X | None` holds X
            for annotation in getattr(kind, "__metadata__", ()):
                if isinstance(annotation, Range):
                    ranges[name] = annotation
    return ranges


def check_numbers(arguments: Any, prefix: str = "--") -> None:
    """Refuse an arguments dataclass with a number out of the range of its kind; None is none.

    Raises:
        PerpoError: It has one; it is named as `prefix` and the field's name.
    """
    for name, allowed in ranges_of(type(arguments)).items():
        value = getattr(arguments, name)
        if value is not None:
            allowed.check(value, f"{prefix}{name}")
