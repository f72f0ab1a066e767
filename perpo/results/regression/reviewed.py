"""Of a gain in Acc@0.5, how much lies on labels that a review found wrong: what is learnt there is the annotators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perpo.benchmarks.grounding import GROUNDING, WRONG_LABELS
from perpo.results.regression.parts import ReportPart
from perpo.results.samples import Scores


def wrong_label_notes(parts: Sequence[ReportPart], candidate: Scores, baseline: Scores) -> list[str]:
    """Return a sentence for each part of which both runs know the wrong labels.

    Args:
        parts: What is compared.
        candidate: Scores of the run in question, on the same samples as
        baseline: Those of the run that it is held against.
    """
    if any(WRONG_LABELS not in scores.values for scores in (candidate, baseline)):
        return []
    notes = []
    for part in parts:
        shares = [_gains(candidate, baseline, task) for task in part.tasks if part.benchmark == GROUNDING.name]
        if not shares or any(share is None for share in shares):
            continue
        gain, wrong, count = np.asarray(shares, dtype=float).T
        notes.append(
            f"{part.name}: of the difference of {100 * gain.mean():+.2f} points in Acc@0.5, {100 * wrong.mean():+.2f} "
            f"lie on the {int(count.sum()):,} expressions whose label is wrong by the review: who gains there learns "
            "the annotators."
        )
    return notes


def _gains(candidate: Scores, baseline: Scores, task: str) -> tuple[float, float, int] | None:
    """The difference of one task in all, that on its wrong labels, and how many these are; None without a review."""
    chosen = candidate.tasks == task
    every, wrong = (
        (candidate.values[name] - baseline.values[name])[chosen] for name in (GROUNDING.primary, WRONG_LABELS)
    )
    n, held = int((~np.isnan(every)).sum()), int((~np.isnan(wrong)).sum())
    return (np.nansum(every) / n, np.nansum(wrong) / n, held) if n and held else None
