"""Filter and order samples. No Streamlit; arrays, no walk over rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perpo_dashboard.shared.outcomes import Pair

Mask = NDArray[np.bool_]
Column = Callable[[int, str], pa.Array]
"""A column of A (0) or B (1) by its name, in the order of a `Pair`; "scores" is a struct."""

SORTS = ("disagreement", "B gains most", "B loses most", "worst of A", "worst of B", "longest answers", "key")
UNREADABLE = ("any", "A", "B", "either", "neither")


@dataclass(frozen=True)
class Condition:
    """One more thing that a column of a run must say, scores as "scores.iou".

    The columns: `perpo.records.run_record.SAMPLE_COLUMNS`.

    Attributes:
        run: 0 for A, 1 for B.
        column: Its name.
        low: What it is at least, for numbers.
        high: What it is at most.
        holds: What it must hold, for text; case does not matter.
    """

    run: int
    column: str
    low: float | None = None
    high: float | None = None
    holds: str = ""


@dataclass(frozen=True)
class Filter:
    """A choice of samples; each part alone narrows it.

    Attributes:
        tasks: Only samples of these.
        outcome: One of `perpo_dashboard.shared.outcomes.OUTCOMES`, or "all".
        question: Text within the question; case does not matter.
        answer: Text within the answer of A or of B.
        unreadable: Whose answer could not be read, one of `UNREADABLE`.
        a: What the measure of A is at least and at most; None for any, missing ones too.
        b: The same for B.
        keys: Only these samples, or None.
        condition: One more, or None.
    """

    tasks: tuple[str, ...]
    outcome: str = "all"
    question: str = ""
    answer: str = ""
    unreadable: str = "any"
    a: tuple[float, float] | None = None
    b: tuple[float, float] | None = None
    keys: frozenset[str] | None = None
    condition: Condition | None = None


def chosen(pair: Pair, wanted: Filter, column: Column) -> Mask:
    """(n,) which samples are asked for."""
    mask = pair.among(wanted.tasks)
    if wanted.outcome != "all":
        mask &= pair.outcome(wanted.outcome)
    for run, within in enumerate((wanted.a, wanted.b)):
        if within is not None:
            mask &= (pair.measure[run] >= within[0]) & (pair.measure[run] <= within[1])
    if wanted.keys is not None:
        mask &= np.isin(pair.keys, sorted(wanted.keys))
    if wanted.unreadable != "any":
        mask &= _unreadable(wanted.unreadable, column)
    if wanted.question:
        mask &= _holds(column(0, "question"), wanted.question)
    if wanted.answer:
        mask &= _holds(column(0, "response"), wanted.answer) | _holds(column(1, "response"), wanted.answer)
    if wanted.condition is not None:
        mask &= _meets(wanted.condition, column)
    return mask


def ordered(pair: Pair, mask: Mask, sort: str, column: Column) -> NDArray[np.intp]:
    """Return the places of the samples in a mask, by one of `SORTS`; what has no score comes last, equals by their
    keys.
    """
    places = np.flatnonzero(mask)
    if sort == "key":
        return places
    if sort == "longest answers":
        rank = -np.maximum(*(_numbers(pc.utf8_length(column(run, "response"))) for run in (0, 1)))
    else:
        better, gain = pair.measure * pair.signs[pair.tasks], pair.gain()
        rank = {
            "disagreement": -np.abs(gain),
            "B gains most": -gain,
            "B loses most": gain,
            "worst of A": better[0],
            "worst of B": better[1],
        }[sort]
    return places[np.argsort(rank[places], kind="stable")]  # NaN is sorted to the end


def _unreadable(whose: str, column: Column) -> Mask:
    a, b = (~_flags(column(run, "parse_ok"), True) for run in (0, 1))
    return {"A": a, "B": b, "either": a | b, "neither": ~(a | b)}[whose]


def _holds(texts: pa.Array, wanted: str) -> Mask:
    return _flags(pc.match_substring(texts, wanted, ignore_case=True), False)


def _flags(values: pa.Array, missing: bool) -> Mask:
    return pc.fill_null(values, missing).to_numpy(zero_copy_only=False).astype(bool)


def _numbers(values: pa.Array) -> NDArray[np.float64]:
    return pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False)


def _meets(wanted: Condition, column: Column) -> Mask:
    name, _, field = wanted.column.partition(".")
    values = column(wanted.run, name)
    if field:
        values = pc.struct_field(values, field)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return _holds(values, wanted.holds)
    numbers = _numbers(values)
    low, high = (-np.inf if wanted.low is None else wanted.low), (np.inf if wanted.high is None else wanted.high)
    return (numbers >= low) & (numbers <= high)
