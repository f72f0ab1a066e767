"""A run's scores as columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perpo.records.run_record import CUT, RunRecord, metric_of
from perpo.records.store import Run

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class OwnNumber:
    """A number that a function of its task's own made of all samples: see `perpo.benchmarks.declared`.

    Attributes:
        value: The number, or None.
        n: How many samples it was made of.
        clusters: Digest of their clusters.
        draws: What each draw of the clusters gave.
    """

    value: float | None
    n: int
    clusters: str
    draws: list[float | None]


@dataclass(frozen=True)
class Scores:
    """A run's samples as columns, sorted by sample key.

    Attributes:
        keys: (n,) sample keys.
        tasks: (n,) task names.
        clusters: (n,) cluster labels.
        values: For each score, (n,) numbers; NaN where it does not apply or could not be had.
        failed: (n,) whether a sample got no answer, or no judgement; None stands for no such sample.
        cut: (n,) 1 where the token limit cut the answer, 0 where it did not, NaN where that is not known; None where it
            is known of no sample.
        own: By task and metric, the numbers that no formula makes of the scores. They are of all samples of the run.
    """

    keys: NDArray
    tasks: NDArray
    clusters: NDArray
    values: dict[str, NDArray]
    failed: NDArray[np.bool_] | None = None
    cut: NDArray[np.float64] | None = None
    own: Mapping[tuple[str, str], OwnNumber] = field(default_factory=dict)

    def take(self, places: NDArray) -> Scores:
        """Return some of the samples, by their places or as a mask."""
        values = {name: column[places] for name, column in self.values.items()}
        failed = None if self.failed is None else self.failed[places]
        cut = None if self.cut is None else self.cut[places]
        parts = {name: getattr(self, name)[places] for name in ("keys", "tasks", "clusters")}
        return replace(self, **parts, values=values, failed=failed, cut=cut)


def read_scores(run: Run) -> Scores:
    """Return the scores of a run's samples.

    Raises:
        PerpoError: The samples are missing or damaged.
    """
    some_failed = any(task.n_error for task in run.record.tasks)
    cuts_known = any(task.n_truncated is not None for task in run.record.tasks)
    columns = ["sample_key", "task", "cluster_id", "scores"]
    columns += [*(["error"] if some_failed else []), *(["finish_reason"] if cuts_known else [])]
    table = run.samples(columns).sort_by("sample_key")
    failed = table["error"].is_valid().to_numpy() if some_failed else None
    keys, tasks, clusters = (table[name].to_numpy() for name in ("sample_key", "task", "cluster_id"))
    fields = table["scores"].combine_chunks().flatten()
    names = [field.name for field in table.schema.field("scores").type]
    values = {
        name: column.to_numpy(zero_copy_only=False).astype(float) for name, column in zip(names, fields, strict=True)
    }
    cut = _cut(table["finish_reason"]) if cuts_known else None
    own = own_numbers(run.record)
    return Scores(keys.astype(str), tasks.astype(str), clusters.astype(str), values, failed, cut, own)


def _cut(reasons: pa.ChunkedArray) -> NDArray[np.float64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    cut = reduce(pc.or_, (pc.equal(reasons, reason) for reason in CUT))  # of which an unknown reason stays unknown
    return cut.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(float)


def own_numbers(record: RunRecord) -> dict[tuple[str, str], OwnNumber]:
    """Return the numbers of a run that functions of its tasks' own made, by task and metric."""
    numbers = {}
    for task in record.tasks:
        for said in (task.declared or {}).get("metrics", []):
            drawn: dict[str, Any] | None = said.get("draws")
            metric = metric_of(task.metrics, said["name"])
            if drawn is not None and metric is not None:
                number = OwnNumber(metric.value, metric.n or 0, drawn["clusters_sha256"], drawn["values"])
                numbers[task.task, said["name"]] = number
    return numbers
