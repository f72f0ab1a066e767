"""A run's scores as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perpo.records.store import Run


@dataclass(frozen=True)
class Scores:
    """A run's samples as columns, sorted by sample key.

    Attributes:
        keys: (n,) sample keys.
        tasks: (n,) task names.
        clusters: (n,) cluster labels.
        values: For each score, (n,) numbers; NaN where it does not apply or could not be had.
        failed: (n,) whether a sample got no answer, or no judgement; None stands for no such sample.
    """

    keys: NDArray
    tasks: NDArray
    clusters: NDArray
    values: dict[str, NDArray]
    failed: NDArray[np.bool_] | None = None

    def take(self, places: NDArray) -> Scores:
        """Return some of the samples, by their places or as a mask."""
        values = {name: column[places] for name, column in self.values.items()}
        failed = None if self.failed is None else self.failed[places]
        return Scores(self.keys[places], self.tasks[places], self.clusters[places], values, failed)


def read_scores(run: Run) -> Scores:
    """Return the scores of a run's samples.

    Raises:
        PerpoError: The samples are missing or damaged.
    """
    some_failed = any(task.n_error for task in run.record.tasks)
    columns = ["sample_key", "task", "cluster_id", "scores", *(["error"] if some_failed else [])]
    table = run.samples(columns).sort_by("sample_key")
    failed = table["error"].is_valid().to_numpy() if some_failed else None
    keys, tasks, clusters = (table[name].to_numpy() for name in ("sample_key", "task", "cluster_id"))
    fields = table["scores"].combine_chunks().flatten()
    names = [field.name for field in table.schema.field("scores").type]
    values = {
        name: column.to_numpy(zero_copy_only=False).astype(float) for name, column in zip(names, fields, strict=True)
    }
    return Scores(keys.astype(str), tasks.astype(str), clusters.astype(str), values, failed)
