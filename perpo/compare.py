"""Two runs side by side: may they be compared, and by how much do they differ, sample by sample. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perpo.errors import PerpoError
from perpo.records import RunRecord
from perpo.stats import Estimate, clustered_mean
from perpo.store import Run


@dataclass(frozen=True)
class Scores:
    """A run's samples as columns, sorted by sample key.

    Attributes:
        keys: (n,) sample keys.
        tasks: (n,) task names.
        clusters: (n,) cluster labels.
        values: For each score, (n,) numbers in [0, 1]; NaN where it does not apply or could not be had.
    """

    keys: NDArray
    tasks: NDArray
    clusters: NDArray
    values: dict[str, NDArray]


def read_scores(run: Run) -> Scores:
    """The scores of a run's samples.

    Raises:
        PerpoError: The samples are missing or damaged.
    """
    table = run.samples(["sample_key", "task", "cluster_id", "scores"]).sort_by("sample_key")
    keys, tasks, clusters = (table[name].to_numpy() for name in ("sample_key", "task", "cluster_id"))
    fields = table["scores"].combine_chunks().flatten()
    names = [field.name for field in table.schema.field("scores").type]
    values = {
        name: column.to_numpy(zero_copy_only=False).astype(float) for name, column in zip(names, fields, strict=True)
    }
    return Scores(keys.astype(str), tasks.astype(str), clusters.astype(str), values)


def mismatches(candidate: RunRecord, baseline: RunRecord) -> list[str]:
    """What keeps two runs from being compared, one sentence each; empty if nothing does."""
    found = []
    if candidate.suite["name"] != baseline.suite["name"]:
        found.append(f"suite {candidate.suite['name']} against {baseline.suite['name']}")
    theirs = {result.task: result for result in baseline.tasks}
    ours = {result.task: result for result in candidate.tasks}
    if only := sorted(set(ours) ^ set(theirs)):
        found.append(f"only one of them has the tasks {', '.join(only)}")
    for field in ("temperature", "top_p"):
        one, other = candidate.generation.get(field), baseline.generation.get(field)
        if one != other and None not in (one, other):
            found.append(f"{field} {one} against {other}")
    for name in sorted(set(ours) & set(theirs)):
        for field in ("data_sha256", "box_frame", "task_version", "prompt", "max_new_tokens", "n_scored"):
            one, other = getattr(ours[name], field), getattr(theirs[name], field)
            if one != other and None not in (one, other):  # None: not known
                found.append(f"{name}: {field} {one!s:.60} against {other!s:.60}")
    return found


def check_comparable(candidate: Run, baseline: Run) -> None:
    """Refuse to compare what cannot be compared.

    Raises:
        PerpoError: The runs differ in suite, tasks, data, frame, scorer or number of samples; all
            differences are listed.
    """
    if found := mismatches(candidate.record, baseline.record):
        raise PerpoError(
            f"{candidate.record.name} and {baseline.record.name} cannot be compared: {'; '.join(found)}",
            "evaluate both with the same suite, data, tasks, limit, prompt_style and max_new_tokens",
        )


def paired_difference(candidate: Scores, baseline: Scores, score: str) -> Estimate:
    """Mean of candidate minus baseline over the same samples, every task weighing the same.

    Pairing takes away what makes a sample hard for both (Miller 2024, section 4); the interval is
    clustered as in `perpo.stats.clustered_mean`.

    Args:
        candidate: Scores of the run in question.
        baseline: Scores of the run it is held against.
        score: A key of `values`, such as "acc@0.5". Samples that do not have it are left out.

    Raises:
        PerpoError: The two hold different samples, or a score is missing in one of them alone.
    """
    if len(candidate.keys) != len(baseline.keys) or (candidate.keys != baseline.keys).any():
        shared = len(np.intersect1d(candidate.keys, baseline.keys))
        raise PerpoError(
            f"the runs share {shared} of {len(candidate.keys)} and {len(baseline.keys)} samples",
            "evaluate both on the same data with the same limit",
        )
    difference = candidate.values[score] - baseline.values[score]
    held = ~np.isnan(difference)
    if (np.isnan(candidate.values[score]) != np.isnan(baseline.values[score])).any():
        raise PerpoError(f"{score} is missing for samples of one run alone", "score both again: perpo-eval --rescore")
    return clustered_mean(difference[held], candidate.clusters[held], candidate.tasks[held], bounds=(-1.0, 1.0))
