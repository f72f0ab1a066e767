"""Find where two runs differ: by the size of the box, the length of the question, the truth, the kind. No Streamlit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perpo.benchmarks.base import BenchmarkInfo
from perpo.records.run_record import RunRecord
from perpo.results import kinds as shared
from perpo.results.kinds import Column, Labels
from perpo.stats import Difference, cluster_t, paired_sums
from perpo_dashboard.shared.outcomes import Pair

BINS = 20


@dataclass(frozen=True)
class KindRow:
    """The samples of one kind.

    Attributes:
        name: The kind.
        n: How many have a value in both runs.
        a: Mean of A.
        b: Mean of B.
        difference: B minus A, paired by sample and clustered by image, every sample weighing the same.
    """

    name: str
    n: int
    a: float
    b: float
    difference: Difference


def by_kind(pair: Pair, values: NDArray[np.float64], labels: Labels, span: tuple[float, float]) -> list[KindRow]:
    """Return means of both runs and their difference for each kind that has samples.

    Args:
        pair: The samples.
        values: (2, n) what is averaged; NaN where it is missing.
        labels: The kinds.
        span: What a value can be at least and at most.
    """
    rows = []
    width = span[1] - span[0]
    held = ~np.isnan(values).any(0)
    for code in np.unique(labels.codes[held & (labels.codes >= 0)]):
        chosen = np.flatnonzero(held & (labels.codes == code))
        a, b = values[:, chosen]
        ones = np.ones(len(chosen))
        sums = paired_sums((b, ones), (a, ones), pair.clusters[chosen])
        difference = cluster_t(sums, bounds=(-width, width))
        rows.append(KindRow(labels.names[code], len(chosen), float(a.mean()), float(b.mean()), difference))
    return rows


def right_share(pair: Pair) -> NDArray[np.float64]:
    """(2, n) 1 where right, 0 where wrong, NaN where it cannot be told."""
    return np.where(pair.right < 0, np.nan, pair.right)


def kinds(info: BenchmarkInfo, scores: Sequence[str]) -> list[str]:
    """By what the samples of a benchmark can be told apart, their task among it; see `perpo.results.kinds.kinds`."""
    return [*shared.kinds(info, scores), "task"]


def labels(
    kind: str,
    info: BenchmarkInfo,
    pair: Pair,
    mask: NDArray[np.bool_],
    record: RunRecord,
    column: Column,
    scores: Mapping[str, NDArray],
) -> Labels:
    """Return what kind each of a pair's samples is of.

    Args:
        kind: One of `kinds`.
        info: The benchmark.
        pair: The samples.
        mask: (n,) which of them are asked for, all of the benchmark; others are of no kind.
        record: A's record.
        column: A's columns.
        scores: A's scores by name, in A's own order.
    """
    if kind == "task":
        return Labels(pair.names, np.where(mask, pair.tasks, -1))
    tasks, names = (pair.names, pair.tasks), list(scores)
    return shared.labels(kind, info, tasks, mask, record, column, names, lambda name: scores[name][pair.places[0]])


def first_known(ours: Column, theirs: Column) -> Column:
    """Return columns of A, or of B where A, which may be an older run, knows nothing of them."""

    def column(name: str) -> pa.Array:
        values = ours(name)
        return values if values.null_count < len(values) else theirs(name)

    return column


def plane(pair: Pair, mask: NDArray[np.bool_], span: tuple[float, float]) -> dict[str, NDArray[Any]]:
    """Return how many samples lie where, A's measure across and B's up: the cells that hold some, as columns of a
    table.
    """
    a, b = pair.measure[:, mask & ~np.isnan(pair.measure).any(0)]
    edges = _edges(span)
    counts = np.histogram2d(a, b, bins=(edges, edges))[0].astype(int)
    across, up = np.nonzero(counts)
    cells = {"a": edges[across], "a_end": edges[across + 1], "b": edges[up], "b_end": edges[up + 1]}
    return cells | {"samples": counts[across, up]}


def heights(pair: Pair, mask: NDArray[np.bool_], span: tuple[float, float]) -> dict[str, NDArray[Any]]:
    """Return how many samples of each run lie in each part of the measure's span, as columns of a table."""
    edges = _edges(span)
    counts = [np.histogram(pair.measure[run, mask & ~np.isnan(pair.measure[run])], edges)[0] for run in (0, 1)]
    return {"from": edges[:-1], "to": edges[1:], "A": counts[0], "B": counts[1]}


def _edges(span: tuple[float, float]) -> NDArray[np.float64]:
    """The span in 20 parts; ratings of whole points in parts of one point around each."""
    low, high = span
    if high - low > 1:
        return np.arange(low - 0.5, high + 1)
    return np.linspace(low, high, BINS + 1)
