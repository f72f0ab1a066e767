"""A regression report: is a candidate worse than its baseline, task by task. Numbers only, no torch.

What verdicts mean is told in `perpo.results.regression.verdicts`, what rows there are in `parts` and `slices` there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import numpy as np

from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError
from perpo.records.store import Run
from perpo.results.regression.checks import alike
from perpo.results.regression.entries import Entry, aligned, check_apart, check_entry, mean_scores
from perpo.results.regression.extras import Extras
from perpo.results.regression.flips import Flip, flips
from perpo.results.regression.measure import Sides, held_scores, numbered, rows_of, unguarded
from perpo.results.regression.parts import parts_of, threshold_names
from perpo.results.regression.reviewed import wrong_label_notes
from perpo.results.regression.rows import FAILURES, ReportRow, Verdict, Waiver, Wanted
from perpo.results.regression.slices import slices_of
from perpo.results.regression.verdicts import decided, waived
from perpo.results.samples import Scores, read_scores


@dataclass(frozen=True)
class Report:
    """A candidate against a baseline; rendered by `perpo.results.regression.text`.

    Attributes:
        baseline_entry: What is to be held: one run, or several of one configuration.
        candidate_entry: What is new; likewise.
        rows: What gates: primary metrics, others that somebody named, and guards in which the runs differ.
        others: Rows that are only told.
        flips: The samples that lost most.
        samples: How many were compared.
        notes: What is to be said.
        extras: What is told beside the rows: pinned cases, which decide too, approvals and cost.
    """

    baseline_entry: Entry
    candidate_entry: Entry
    rows: list[ReportRow]
    others: list[ReportRow]
    flips: list[Flip]
    samples: int
    notes: list[str]
    extras: Extras = field(default_factory=Extras)

    @property
    def baseline(self) -> Run:
        """The baseline's run, of several the first."""
        return self.baseline_entry.runs[0]

    @property
    def candidate(self) -> Run:
        """The candidate's run, of several the first."""
        return self.candidate_entry.runs[0]

    @property
    def verdict(self) -> Verdict:
        """The worst of the rows that decide, and of those that guard and fail; "regressed" where a pinned case fails.

        A loss that is waived counts as "unchanged".
        """
        if self.extras.fails:
            return "regressed"
        rows = [row for row in self.rows if row.role == "decides" or row.verdict in FAILURES]
        verdicts = {row.verdict if row.waiver is None else "unchanged" for row in rows}
        order: tuple[Verdict, ...] = (*FAILURES, "inconclusive", "improved", "unchanged")
        return next((verdict for verdict in order if verdict in verdicts), "identical")

    @property
    def waived(self) -> list[ReportRow]:
        """The rows whose failure a waiver lets pass."""
        return [row for row in self.rows if row.waiver is not None]


@dataclass(frozen=True)
class _Draft:
    """A candidate's rows before they are decided."""

    entry: Entry
    sides: Sides
    rows: list[ReportRow]
    alike: set[str]
    notes: list[str]


def compare_runs(
    baseline: Run,
    candidate: Run,
    *,
    thresholds: Mapping[str, float] | None = None,
    common: bool = False,
    strict: bool = False,
    waivers: Sequence[Waiver] = (),
    today: date | None = None,
    read: Callable[[Run], Scores] = read_scores,
    metrics: Literal["primary", "losses", "all"] = "losses",
    slices: Literal["none", "tell", "gate"] = "none",
) -> Report:
    """Compare two runs; see `compare_entries`, which says what the arguments are."""
    wanted = Wanted(thresholds or {}, metrics, slices)
    return compare_entries(
        Entry((baseline,)), [Entry((candidate,))], wanted,
        common=common, strict=strict, waivers=waivers, today=today, read=read,
    )[0]  # fmt: skip


def compare_entries(
    baseline: Entry,
    candidates: Sequence[Entry],
    wanted: Wanted,
    *,
    common: bool = False,
    strict: bool = False,
    waivers: Sequence[Waiver] = (),
    today: date | None = None,
    read: Callable[[Run], Scores] = read_scores,
) -> list[Report]:
    """Compare candidates with a baseline, with p-values adjusted over the rows of all of them.

    Args:
        baseline: What is to be held.
        candidates: What is new.
        wanted: Thresholds, and which metrics and kinds of samples gate.
        common: Compare the tasks and samples that both have, rather than refuse.
        strict: Refuse runs that were scored by other code, rather than say so.
        waivers: Known losses; expired ones, and those that a loss is larger than, do not count and are named.
        today: For the waivers; by default the date in UTC.
        read: Where scores come from, for those who have kept them.

    Returns:
        A report for each candidate.

    Raises:
        PerpoError: The runs cannot be compared, or a threshold or waiver names no row of theirs; exit code 3
            where a run is not complete.
    """
    drafts = [_draft(baseline, entry, wanted, common, strict, read) for entry in candidates]
    _check_names(wanted, waivers, baseline, drafts)
    rows = [row for draft in drafts for row in draft.rows]
    rows = decided(rows, [draft.alike.issuperset(row.tasks) for draft in drafts for row in draft.rows])
    reports = []
    for draft in drafts:
        mine, rows = rows[: len(draft.rows)], rows[len(draft.rows) :]
        reports.append(_finished(baseline, draft, mine, waivers, today))
    return reports


def _draft(
    baseline: Entry, candidate: Entry, wanted: Wanted, common: bool, strict: bool, read: Callable[[Run], Scores]
) -> _Draft:
    notes = [note for entry in (baseline, candidate) for note in check_entry(entry, common=common)]
    notes += check_apart(candidate, baseline)
    ours, theirs, said = aligned(candidate, baseline, read, common=common, strict=strict)
    first = theirs[0]
    others = [*candidate.runs, *baseline.runs[1:]]
    slices = slices_of(baseline.runs[0], first, others) if wanted.slices != "none" else []
    sides = numbered(Sides(ours, theirs), np.unique(read(baseline.runs[0]).clusters))
    parts = parts_of(baseline.runs[0], set(first.tasks))
    rows = [row for part in parts for row in rows_of(part, sides, wanted, slices)]
    if missing := [name for part in parts for name in unguarded(part, sides, wanted)]:
        notes.append(f"Not known of every run, so that they guard nothing: {', '.join(missing)}.")
    same = set.intersection(*(alike(baseline.runs[0], run, first) for run in others))
    return _Draft(candidate, sides, rows, same, [*notes, *said])


def _finished(
    baseline: Entry, draft: _Draft, rows: list[ReportRow], waivers: Sequence[Waiver], today: date | None
) -> Report:
    rows, more = waived(rows, waivers, today)
    gating, told = ([row for row in rows if (row.role == "told") is only] for only in (False, True))
    regressed = {task for row in gating if row.verdict in FAILURES for task in row.tasks}
    ours, theirs = mean_scores(draft.sides.ours), mean_scores(draft.sides.theirs)
    of_labels = wrong_label_notes(parts_of(baseline.runs[0], set(theirs.tasks)), ours, theirs)
    notes = [*draft.notes, *_left_out(gating), *of_labels, *more]
    worst = flips(baseline.runs[0], draft.entry.runs[0], ours, theirs, regressed)
    return Report(baseline, draft.entry, gating, told, worst, len(theirs.keys), notes)


def _left_out(rows: Sequence[ReportRow]) -> list[str]:
    """How many samples lack a judgement or an answer in one of the runs, by row."""
    return [
        f"{row.name}: {row.left_out} samples are left out, whose {'judgement' if row.metric.judged else 'answer'} is "
        "missing in one of the runs."
        for row in rows
        if row.left_out and row.role == "decides"
    ]


def _check_names(wanted: Wanted, waivers: Sequence[Waiver], baseline: Entry, drafts: Sequence[_Draft]) -> None:
    known = {row.name for draft in drafts for row in draft.rows}
    for waiver in waivers:
        if waiver.task not in known:
            raise PerpoError(
                f"a waiver names '{waiver.task}', which was not compared", did_you_mean(waiver.task, known)
            )
    for name, points in wanted.thresholds.items():
        for draft in drafts if name else ():  # a candidate that lacks it would pass for that
            parts = parts_of(baseline.runs[0], set(draft.sides.theirs[0].tasks))
            known = {row.name for row in draft.rows} | threshold_names(parts, held_scores(draft.sides))
            if name not in known:
                against = f" of {draft.entry.name}" if len(drafts) > 1 else ""
                raise PerpoError(
                    f"--threshold names '{name}', which was not compared{against}", did_you_mean(name, known)
                )
        if not 0 < points <= 100:
            raise PerpoError(f"--threshold {name}={points:g} is not between 0 and 100 points", "such as 0.5")
