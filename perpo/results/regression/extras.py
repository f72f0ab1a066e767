"""All that a report tells beside its rows: pinned cases. Tables and sentences for every format. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from perpo.records.store import Run
from perpo.results.regression.pinned import Pin, PinnedCase, pinned_cases
from perpo.results.text import Text

_NAMED = 3  # cases that a headline names
_PINNED_NOTE = (
    "A pinned case that the candidate answers wrongly, or not at all, fails the gate, also where the baseline does so "
    "already. No waiver lets it pass."
)


@dataclass(frozen=True)
class Extras:
    """All that is told of two runs beside their metrics.

    Attributes:
        pinned: The cases that may not be lost, those that fail first.
    """

    pinned: list[PinnedCase] = field(default_factory=list)

    @property
    def fails(self) -> list[PinnedCase]:
        """Return the pinned cases because of which the gate fails."""
        return [case for case in self.pinned if case.fails]


def extras_of(baseline: Sequence[Run], candidate: Sequence[Run], *, pins: Sequence[Pin] = ()) -> Extras:
    """Return what is to be told of two runs, or of runs of two configurations, beside their metrics."""
    return Extras(pinned_cases(pins, baseline, candidate))


def headline_part(extras: Extras) -> str:
    """Return what a headline says of pinned cases that fail, "" where none does."""
    named = [f"{_name(case)} ({case.reason[:80]})" for case in extras.fails]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return f"; pinned cases failed: {', '.join(named[:_NAMED])}{more}" if named else ""


def tables(extras: Extras) -> list[Text]:
    """Return what is told as tables."""
    if not extras.pinned:
        return []
    rows = [[_name(case), "▼ failed" if case.fails else "held", case.said, case.reason] for case in extras.pinned]
    failed = len(extras.fails)
    title = f"Pinned cases: {failed} of {len(rows)} failed" if failed else f"Pinned cases: all {len(rows)} held"
    return [Text(title, ["pinned case", "gate", "candidate", "reason"], rows, [_PINNED_NOTE])]


def as_json(extras: Extras) -> dict[str, Any]:
    """Return it for the report's JSON."""
    pinned = [dataclasses.asdict(case) | {"fails": case.fails} for case in extras.pinned]
    return {"pinned": pinned}


def pinned_sentence(case: PinnedCase) -> str:
    """Return a pinned case as one sentence with question, truth and answers."""
    sample = case.sample
    told = (
        f"question {sample.question}; truth {sample.target}; baseline {sample.baseline}; candidate {sample.candidate}"
    )
    return f"pinned case {_name(case)}: {case.said} (pinned because: {case.reason}); {told}"


def _name(case: PinnedCase) -> str:
    return f"{case.sample.task} {case.sample.sample_key[:12]}"
