"""A regression report: is a candidate worse than its baseline, task by task. Numbers only, no torch.

For each task's primary metric, and for their average where tasks belong together, the gain g is the difference
of the two runs in the better direction. Over all of them p-values are adjusted by Holm's method, and with the
threshold d:

    regressed     adjusted p < 0.05 and g <= -d
    improved      adjusted p < 0.05 and g >= d
    identical     every response is the same in both runs, and so are the scores
    unchanged     the 95% interval of equivalence (see `perpo.stats.cluster_t`) lies within (-d, d): two one-sided
                  tests (Schuirmann 1987) at 2.5%, because with clusters of many sizes those at 5% erred more often
    inconclusive  anything else; the smallest effect that would have been found is given
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Literal

import numpy as np

from perpo.benchmarks.base import Definition
from perpo.benchmarks.table import INFO
from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError
from perpo.records.store import Run
from perpo.results.compare import both_judged, check_comparable, metric_difference, shared_samples
from perpo.results.regression.checks import alike, check_complete, check_targets, other_code
from perpo.results.regression.extras import Extras
from perpo.results.regression.flips import Flip, flips
from perpo.results.regression.parts import ReportPart, parts_of
from perpo.results.regression.reviewed import wrong_label_notes
from perpo.results.samples import Scores, read_scores
from perpo.stats import Difference, holm, minimum_detectable_effect

Verdict = Literal["regressed", "inconclusive", "unchanged", "improved", "identical"]

ALPHA = 0.05
THRESHOLD = 0.5
"""Points below which a difference does not matter, unless told otherwise; 100 are the metric's whole scale."""


@dataclass(frozen=True)
class Waiver:
    """A known loss that may pass: in which task, of at most how many points, why, and until when."""

    task: str
    reason: str
    expires: date
    max_loss: float


@dataclass(frozen=True)
class Pairs:
    """Counts of samples that both runs had right, one alone, or neither: a description (it ignores clusters)."""

    both: int
    baseline_only: int
    candidate_only: int
    neither: int


@dataclass(frozen=True)
class ReportRow:
    """One task (or average of tasks) in its primary metric.

    Attributes:
        task: The task's name, or the group's.
        tasks: The tasks that it is made of.
        benchmark: A key of `perpo.benchmarks.table.INFO`.
        metric: What is compared.
        baseline: The baseline's value over the compared samples, or None.
        candidate: The candidate's.
        difference: Candidate minus baseline.
        threshold: In the metric's unit, above 0.
        p_adjusted: Holm's, over all rows; None where there is no p-value.
        verdict: See the module.
        mde: The smallest effect found with a power of 80%, or None.
        pairs: For scores that are 0 or 1.
        waiver: What lets a regression pass, or None.
    """

    task: str
    tasks: list[str]
    benchmark: str
    metric: Definition
    baseline: float | None
    candidate: float | None
    difference: Difference
    threshold: float
    p_adjusted: float | None = None
    verdict: Verdict = "inconclusive"
    mde: float | None = None
    pairs: Pairs | None = None
    waiver: Waiver | None = None

    @property
    def gain(self) -> float | None:
        """The difference, above 0 where the candidate is better."""
        value = self.difference.value
        return value if value is None or self.metric.higher_is_better else -value


@dataclass(frozen=True)
class Report:
    """All of it; rendered by `perpo.results.regression.text`."""

    baseline: Run
    candidate: Run
    rows: list[ReportRow]
    flips: list[Flip]
    samples: int
    notes: list[str]
    extras: Extras = field(default_factory=Extras)

    @property
    def verdict(self) -> Verdict:
        """The worst of the rows, "regressed" where a pinned case fails; a loss that is waived counts as "unchanged"."""
        if self.extras.fails:
            return "regressed"
        verdicts = {row.verdict if row.waiver is None else "unchanged" for row in self.rows}
        order: tuple[Verdict, ...] = ("regressed", "inconclusive", "improved", "unchanged")
        return next((verdict for verdict in order if verdict in verdicts), "identical")

    @property
    def waived(self) -> list[ReportRow]:
        """The rows whose regression a waiver lets pass."""
        return [row for row in self.rows if row.waiver is not None]


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
) -> Report:
    """Compare two runs.

    Args:
        baseline: What is to be held.
        candidate: What is new.
        thresholds: Points (0 to 100 of the metric's scale) by task, group or benchmark; "" for all others.
        common: Compare the tasks and samples that both have, rather than refuse.
        strict: Refuse runs that were scored by other code, rather than say so.
        waivers: Known losses; expired ones, and those that a loss is larger than, do not count and are named.
        today: For the waivers; by default the date in UTC.
        read: Where scores come from, for those who have kept them.

    Raises:
        PerpoError: The runs cannot be compared, or a threshold or waiver names no task of theirs; exit code 3
            where a run is not complete.
    """
    for run in (baseline, candidate):
        check_complete(run)
    check_comparable(candidate, baseline, common=common)
    notes = other_code(candidate, baseline, strict)
    ours, theirs = read(candidate), read(baseline)
    if common:
        counts = len(ours.keys), len(theirs.keys)
        ours, theirs = shared_samples(ours, theirs)
        notes.append(f"Compared on the {len(ours.keys):,} samples that both have, of {counts[1]:,} and {counts[0]:,}.")
        check_targets(candidate, baseline, ours)
        if absent := sorted(
            {task.task for run in (candidate, baseline) for task in run.record.tasks} - set(ours.tasks)
        ):
            notes.append(f"Not compared, because one run lacks it: {', '.join(absent)}.")
    elif len(ours.keys) != len(theirs.keys) or (ours.keys != theirs.keys).any():
        raise PerpoError(
            "the two runs hold different samples", "give --common to compare only the samples that both runs have"
        )
    parts, numbered = parts_of(baseline, set(ours.tasks)), (_numbered(ours), _numbered(theirs))
    rows = [_row(part, *numbered, thresholds or {}) for part in parts]
    _check_names(thresholds or {}, waivers, rows)
    rows = _decided(rows, alike(baseline, candidate, ours))
    notes += _unjudged(rows, ours) + wrong_label_notes(parts, ours, theirs)
    rows, more = _waived(rows, waivers, today)
    notes += more
    regressed = {task for row in rows if row.verdict == "regressed" for task in row.tasks}
    worst = flips(baseline, candidate, ours, theirs, regressed)
    return Report(baseline, candidate, rows, worst, len(ours.keys), notes)


def _numbered(scores: Scores) -> Scores:
    """The scores with a number for each cluster, which is told from others far quicker than a name."""
    return replace(scores, clusters=np.unique(scores.clusters, return_inverse=True)[1])


def _row(part: ReportPart, ours: Scores, theirs: Scores, thresholds: Mapping[str, float]) -> ReportRow:
    info = INFO[part.benchmark]
    metric = info.by_name[info.primary]
    chosen = np.isin(theirs.tasks, part.tasks)
    needed = {*metric.needs(), info.flip_scores[0]}
    new, old = (replace(run, values={n: run.values[n] for n in needed}).take(chosen) for run in (ours, theirs))
    candidate, baseline = both_judged(new, old, metric)
    values = [metric.estimate(run.values, run.clusters, run.tasks).value for run in (baseline, candidate)]
    points = next(
        (thresholds[key] for key in (part.name, part.group, part.benchmark, "") if key in thresholds), THRESHOLD
    )
    difference = metric_difference(candidate, baseline, metric)
    counted = metric.higher_is_better and not metric.judged  # ratings are not right or wrong
    pairs = _pairs(candidate, baseline, info.flip_scores[0]) if counted else None
    threshold = points / 100 * metric.scale
    return ReportRow(
        part.name, part.tasks, part.benchmark, metric, values[0], values[1], difference, threshold, pairs=pairs
    )


def _pairs(candidate: Scores, baseline: Scores, score: str) -> Pairs | None:
    one, other = candidate.values[score], baseline.values[score]
    if not (np.isin(one, (0, 1)).all() and np.isin(other, (0, 1)).all()):
        return None
    new, old = one == 1, other == 1
    return Pairs(int((new & old).sum()), int((old & ~new).sum()), int((new & ~old).sum()), int((~new & ~old).sum()))


def _unjudged(rows: Sequence[ReportRow], scores: Scores) -> list[str]:
    """How many samples lack a judgement or an answer in one of the runs, by row."""
    sentences = []
    for row in rows:
        count = int(np.isin(scores.tasks, row.tasks).sum()) - row.difference.n
        wanted = "judgement" if row.metric.judged else "answer"
        if count and row.difference.n:
            sentences.append(
                f"{row.task}: {count} samples are left out because their {wanted} is missing in one of the runs."
            )
    return sentences


def _decided(rows: Sequence[ReportRow], alike: set[str]) -> list[ReportRow]:
    """The rows with their adjusted p-values, verdicts and smallest detectable effects."""
    tested = [row for row in rows if row.difference.p_value is not None]
    adjusted = dict(zip(map(id, tested), holm([row.difference.p_value or 0.0 for row in tested]), strict=True))
    decided_rows = []
    for row in rows:
        p, stderr = adjusted.get(id(row)), row.difference.stderr
        level = ALPHA / len(tested) if tested else ALPHA  # what Holm asks of the smallest p-value
        mde = None if stderr is None else minimum_detectable_effect(stderr, row.difference.n_clusters, alpha=level)
        same = row.difference.value == 0 and alike.issuperset(row.tasks)  # a judge may rate one answer in two ways
        decided_rows.append(replace(row, p_adjusted=p, verdict="identical" if same else _verdict(row, p), mde=mde))
    return decided_rows


def _verdict(row: ReportRow, p: float | None) -> Verdict:
    gain, within = row.gain, row.difference.equivalence
    if gain is None or p is None:
        return "inconclusive"
    if p < ALPHA and abs(gain) >= row.threshold:
        return "improved" if gain > 0 else "regressed"
    if within is not None and -row.threshold < within[0] and within[1] < row.threshold:
        return "unchanged"
    return "inconclusive"


def _check_names(thresholds: Mapping[str, float], waivers: Sequence[Waiver], rows: Sequence[ReportRow]) -> None:
    known = {row.task for row in rows}
    for waiver in waivers:
        if waiver.task not in known:
            raise PerpoError(
                f"a waiver names '{waiver.task}', which was not compared", did_you_mean(waiver.task, known)
            )
    known |= {row.benchmark for row in rows} | {""}
    for name, points in thresholds.items():
        if name not in known:
            raise PerpoError(f"--threshold names '{name}', which was not compared", did_you_mean(name, known - {""}))
        if not 0 < points <= 100:
            raise PerpoError(f"--threshold {name}={points:g} is not between 0 and 100 points", "such as 0.5")


def _waived(
    rows: Sequence[ReportRow], waivers: Sequence[Waiver], today: date | None
) -> tuple[list[ReportRow], list[str]]:
    """The rows with the waivers that let their losses pass, and what is to be said of those that do not."""
    now, notes, live = today or datetime.now(UTC).date(), [], {}
    regressed = {row.task: row for row in rows if row.verdict == "regressed"}
    for waiver in waivers:
        row = regressed.get(waiver.task)
        lost = 0.0 if row is None or row.gain is None else -row.gain * 100 / row.metric.scale
        if waiver.expires < now:
            notes.append(f"The waiver for {waiver.task} expired on {waiver.expires} ({waiver.reason}).")
        elif lost > waiver.max_loss:
            allowed = f"a loss of at most {waiver.max_loss:g} points, and {lost:.2f} were lost"
            notes.append(f"The waiver for {waiver.task} is for {allowed} ({waiver.reason}).")
        else:
            live[waiver.task] = waiver
    return [replace(row, waiver=live.get(row.task)) if row.task in regressed else row for row in rows], notes
