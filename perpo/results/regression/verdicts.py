"""Decide what rows say: p-values adjusted over all of them, verdicts, waivers. No torch.

The gain g of a row is the difference of the two runs in the better direction, d its threshold. Over the rows that
gate, of all candidates together, p-values are adjusted (`perpo.stats.stepdown`: Holm's method, sharpened by what the
rows have in common):

    regressed     adjusted p < 0.05 and g <= -d
    improved      adjusted p < 0.05 and g >= d
    changed       either of them, where a metric has no better direction (POPE's yes ratio)
    identical     every response is the same in both runs, and so are the scores
    unchanged     the 95% interval of equivalence (see `perpo.stats.cluster_t`) lies within (-d, d): two one-sided
                  tests (Schuirmann 1987) at 2.5%, because with clusters of many sizes those at 5% erred more often
    inconclusive  anything else; the smallest effect that would have been found is given

A row that only guards and in which no sample differs can raise no alarm whatever the level. It is not counted among
the tests (Tarone 1990, "A Modified Bonferroni Method for Discrete Data"), so that guarding against what does not happen
costs no power. Rows that are only told are adjusted as if all rows gated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime

from perpo.results.regression.rows import ALPHA, FAILURES, ReportRow, Verdict, Waiver
from perpo.stats import joint_holm, minimum_detectable_effect


def decided(rows: Sequence[ReportRow], alike: Sequence[bool]) -> list[ReportRow]:
    """Return the rows with their adjusted p-values, verdicts and smallest detectable effects.

    Args:
        rows: Those of all candidates; one that guards where nothing differs comes back as only told.
        alike: For each, whether every response is the same in both runs.
    """
    rows = [replace(row, role="told") if row.role == "guards" and not row.differs else row for row in rows]
    tested = [row for row in rows if row.difference.p_value is not None]
    counted = _adjusted([row for row in tested if row.role != "told"])
    told = _adjusted(tested)
    decided_rows = []
    for row, same_words in zip(rows, alike, strict=True):
        family = told if row.role == "told" else counted
        p, stderr = family.get(id(row)), row.difference.stderr
        level = ALPHA / len(family) if family else ALPHA  # what Holm asks of the smallest p-value
        groups = row.difference.n_clusters if row.difference.df is None else row.difference.df + 1
        mde = None if stderr is None else minimum_detectable_effect(stderr, groups, alpha=level)
        same = row.difference.value == 0 and same_words  # a judge may rate one answer in two ways
        decided_rows.append(replace(row, p_adjusted=p, verdict="identical" if same else _verdict(row, p), mde=mde))
    return decided_rows


def _adjusted(rows: Sequence[ReportRow]) -> dict[int, float]:
    p_values = [row.difference.p_value or 0.0 for row in rows]
    freedoms = [row.difference.n_clusters - 1.0 for row in rows]
    adjusted = joint_holm(p_values, freedoms, [row.difference.parts for row in rows])
    return dict(zip(map(id, rows), adjusted, strict=True))


def _verdict(row: ReportRow, p: float | None) -> Verdict:
    gain, within = row.gain, row.difference.equivalence
    if gain is None or p is None:
        return "inconclusive"
    if p < ALPHA and abs(gain) >= row.threshold:
        if row.metric.higher_is_better is None:
            return "changed"
        return "improved" if gain > 0 else "regressed"
    if within is not None and -row.threshold < within[0] and within[1] < row.threshold:
        return "unchanged"
    return "inconclusive"


def waived(
    rows: Sequence[ReportRow], waivers: Sequence[Waiver], today: date | None
) -> tuple[list[ReportRow], list[str]]:
    """Return the rows with the waivers that let their losses pass, and what is to be said of those that do not."""
    now, notes, live = today or datetime.now(UTC).date(), [], {}
    failed = {row.name: row for row in rows if row.verdict in FAILURES}
    for waiver in waivers:
        row = failed.get(waiver.task)
        lost = 0.0 if row is None or row.gain is None else _lost(row, row.gain)
        if waiver.expires < now:
            notes.append(f"The waiver for {waiver.task} expired on {waiver.expires} ({waiver.reason}).")
        elif lost > waiver.max_loss:
            allowed = f"a loss of at most {waiver.max_loss:g} points, and {lost:.2f} were lost"
            notes.append(f"The waiver for {waiver.task} is for {allowed} ({waiver.reason}).")
        else:
            live[waiver.task] = waiver
    return [replace(row, waiver=live.get(row.name)) if row.name in failed else row for row in rows], notes


def _lost(row: ReportRow, gain: float) -> float:
    points = gain * 100 / row.metric.scale
    return abs(points) if row.metric.higher_is_better is None else -points
