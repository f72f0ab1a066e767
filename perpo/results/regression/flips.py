"""The samples on which a candidate run lost most against its baseline. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perpo.benchmarks.declared import info_in
from perpo.records.store import Run
from perpo.results.samples import Scores

_FLIPS = 20


@dataclass(frozen=True)
class Flip:
    """A sample on which the candidate lost `loss` of a score, as a share of its scale.

    The other columns are as in `perpo.records.run_record.SAMPLE_COLUMNS`.
    """

    task: str
    sample_key: str
    loss: float
    benchmark: str
    image: dict[str, Any]
    question: str
    target: str
    baseline: str
    candidate: str
    baseline_prediction: str | None
    candidate_prediction: str | None


def flips(baseline: Run, candidate: Run, ours: Scores, theirs: Scores, regressed: set[str]) -> list[Flip]:
    """Return the samples that lost most.

    Args:
        baseline: The run that was.
        candidate: The run in question.
        ours: The candidate's scores.
        theirs: The baseline's, of the same samples.
        regressed: Tasks whose samples come first.
    """
    losses = np.zeros((2, len(ours.keys)))
    for task in np.unique(ours.tasks).tolist():
        chosen = ours.tasks == task
        info = info_in(baseline.record.tasks, baseline.record.task(task).benchmark)
        for place, name in enumerate((info.flip_scores[0], info.flip_scores[-1])):
            share = info.share(name)
            losses[place][chosen] = np.nan_to_num(share * (theirs.values[name] - ours.values[name])[chosen])
    order = np.lexsort((ours.keys, -losses[1], -losses[0], ~np.isin(ours.tasks, sorted(regressed))))
    worst = [place for place in order if losses[0][place] > 0][:_FLIPS]
    return described(baseline, candidate, [(str(ours.keys[place]), float(losses[0][place])) for place in worst])


def described(baseline: Run, candidate: Run, worst: Sequence[tuple[str, float]]) -> list[Flip]:
    """Return samples with their question, truth and answers.

    Args:
        baseline: The run that was.
        candidate: The run in question.
        worst: Keys of samples that both have, each with what the candidate lost on it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not worst:
        return []
    columns = ["sample_key", "task", "image", "question", "target", "response", "prediction"]
    keys = pa.array([key for key, _ in worst], pa.string())
    tables = []
    for run in (baseline, candidate):
        table = run.samples(columns)
        chosen = table.filter(pc.is_in(table["sample_key"], value_set=keys))
        tables.append({sample["sample_key"]: sample for sample in chosen.to_pylist()})
    worst_flips = []
    for key, loss in worst:
        old, new = tables[0][key], tables[1][key]
        texts = (old["question"], old["target"], old["response"], new["response"])
        about = (baseline.record.task(old["task"]).benchmark, old["image"] or {})
        worst_flips.append(Flip(old["task"], key, loss, *about, *texts, old["prediction"], new["prediction"]))
    return worst_flips
