"""All that a report tells beside its rows: pinned cases, the baseline's approval, what answers cost. No torch.

Tables and sentences, which every format renders.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from perpo.errors import PerpoError
from perpo.records.approval import Standing, standing_of
from perpo.records.store import Run
from perpo.results.regression.costs import Price, TaskCost, cost_table, costs_of
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
        standing: Of each run of the baseline, whether it is approved.
        costs: What answers cost, task by task.
        price: What an hour of the machine costs, where that is declared.
        same_machine: Whether all runs name the same hardware.
    """

    pinned: list[PinnedCase] = field(default_factory=list)
    standing: list[Standing] = field(default_factory=list)
    costs: list[TaskCost] = field(default_factory=list)
    price: Price | None = None
    same_machine: bool = True

    @property
    def fails(self) -> list[PinnedCase]:
        """Return the pinned cases because of which the gate fails."""
        return [case for case in self.pinned if case.fails]


def extras_of(
    baseline: Sequence[Run], candidate: Sequence[Run], *, pins: Sequence[Pin] = (), price: Price | None = None
) -> Extras:
    """Return what is to be told of two runs, or of runs of two configurations, beside their metrics.

    Args:
        baseline: The run that was, or runs of one configuration.
        candidate: The run in question, or such runs.
        pins: Samples that may never be lost.
        price: What an hour of the machine costs.
    """
    machines = [run.record.hardware for run in (*baseline, *candidate)]
    return Extras(
        pinned_cases(pins, baseline, candidate),
        [standing_of(run) for run in baseline],
        costs_of(baseline, candidate, price),
        price,
        all(machine == machines[0] for machine in machines),
    )


def require_approved(baseline: Sequence[Run]) -> None:
    """Refuse a baseline that nobody approved, or that was changed since."""
    for run in baseline:
        if (standing := standing_of(run)).state != "approved":
            raise PerpoError(
                f"the baseline {run.record.name} ({run.path}) is not approved: {standing.said}",
                f"look at it, then run {shlex.join(['perpo-report', 'approve', str(run.path), '--why', 'REASON'])}",
            )


def notes(extras: Extras) -> list[str]:
    """Return what is to be said of the baseline's approval, and of costs that were asked for and are not known."""
    said = [
        f"The baseline is {'' if standing.state == 'approved' else 'not approved: '}{standing.said}."
        for standing in extras.standing
    ]
    if extras.price is not None and not any(cost.known for cost in extras.costs):
        said.append("What answers cost is not told: no sample's tokens or seconds are known of both runs.")
    return list(dict.fromkeys(said))


def headline_part(extras: Extras) -> str:
    """Return what a headline says of pinned cases that fail, "" where none does."""
    named = [f"{pinned_name(case)} ({case.reason[:80]})" for case in extras.fails]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return f"; pinned cases failed: {', '.join(named[:_NAMED])}{more}" if named else ""


def tables(extras: Extras) -> list[Text]:
    """Return what is told as tables."""
    told = [_pinned_table(extras)] if extras.pinned else []
    if any(cost.known for cost in extras.costs):
        told.append(cost_table(extras.costs, extras.price, same_machine=extras.same_machine))
    return told


def _pinned_table(extras: Extras) -> Text:
    rows = [[pinned_name(case), "▼ failed" if case.fails else "held", case.said, case.reason] for case in extras.pinned]
    failed = len(extras.fails)
    title = f"Pinned cases: {failed} of {len(rows)} failed" if failed else f"Pinned cases: all {len(rows)} held"
    return Text(title, ["pinned case", "gate", "candidate", "reason"], rows, [_PINNED_NOTE])


def as_json(extras: Extras) -> dict[str, Any]:
    """Return it for the report's JSON."""
    pinned = [dataclasses.asdict(case) | {"fails": case.fails} for case in extras.pinned]
    return {
        "pinned": pinned,
        "approval": [dataclasses.asdict(standing) for standing in extras.standing],
        "costs": [dataclasses.asdict(cost) for cost in extras.costs],
        "price": None if extras.price is None else dataclasses.asdict(extras.price),
    }


def pinned_sentence(case: PinnedCase) -> str:
    """Return a pinned case as one sentence with question, truth and answers."""
    sample = case.sample
    told = (
        f"question {sample.question}; truth {sample.target}; baseline {sample.baseline}; candidate {sample.candidate}"
    )
    return f"pinned case {pinned_name(case)}: {case.said} (pinned because: {case.reason}); {told}"


def pinned_name(case: PinnedCase) -> str:
    """Return what a pinned case is called: its task and how its key begins."""
    return f"{case.sample.task} {case.sample.sample_key[:12]}"
