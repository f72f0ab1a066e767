"""Where two runs differ: by the size of the box, the length of the question, the truth, the kind. No Streamlit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perpo.benchmarks.base import BenchmarkInfo
from perpo.records.run_record import RunRecord
from perpo.stats import Difference, cluster_t, paired_sums
from perpo_dashboard.shared.outcomes import Pair

BINS = 20

_NUMBER = r"-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?"
_BOX = rf"^\[{_NUMBER}(, {_NUMBER}){{3}}\]$"  # as JSON is written here
_AREAS = (0.01, 0.04, 0.1, 0.25)
_LENGTHS = (3, 5, 8, 13)
_PAGES = (250, 1000, 2000, 4000)


@dataclass(frozen=True)
class Labels:
    """What kind each sample is of.

    Attributes:
        names: The kinds, in their order.
        codes: (n,) places in `names`; -1 for what is of no kind.
    """

    names: list[str]
    codes: NDArray[np.intp]


@dataclass(frozen=True)
class Row:
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


def by_kind(pair: Pair, values: NDArray[np.float64], labels: Labels, span: tuple[float, float]) -> list[Row]:
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
        rows.append(Row(labels.names[code], len(chosen), float(a.mean()), float(b.mean()), difference))
    return rows


def right_share(pair: Pair) -> NDArray[np.float64]:
    """(2, n) 1 where right, 0 where wrong, NaN where it cannot be told."""
    return np.where(pair.right < 0, np.nan, pair.right)


Column = Callable[[str], pa.Array]
"""A column of the pair's samples, as A holds them, by its name."""


def kinds(info: BenchmarkInfo, scores: Sequence[str]) -> list[str]:
    """By what the samples of a benchmark can be told apart.

    Args:
        info: The benchmark.
        scores: Names of the scores that the run has.
    """
    return [*(["question type"] if _types(info, scores) else []), *info.kinds, "task"]


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
        all_labels = Labels(pair.names, pair.tasks)
    elif kind == "box size":
        edges = [f"{100 * edge:g}%" for edge in _AREAS]
        all_labels = _binned(_box_share(column), _AREAS, edges, "of the picture")
    elif kind == "page length":
        all_labels = _binned(_lengths(column("target")), _PAGES, [f"{edge:,}" for edge in _PAGES], "characters")
    elif kind in ("expression length", "question length"):
        words = _words(column("question")) - _asked(pair, record)[pair.tasks]
        all_labels = _binned(words, _LENGTHS, list(map(str, _LENGTHS)), "words")
    elif kind == "truth":
        all_labels = _truths(column("target"), mask)
    else:
        all_labels = _typed(pair, _types(info, scores), scores)
    return Labels(all_labels.names, np.where(mask, all_labels.codes, -1))


def _truths(targets: pa.Array, mask: NDArray[np.bool_]) -> Labels:
    truths = pc.dictionary_encode(pc.if_else(pa.array(mask), pc.utf8_trim(targets, '"'), pa.scalar(None, pa.string())))
    names = [str(name) for name in truths.dictionary.to_pylist()]
    return Labels(names, pc.fill_null(truths.indices, -1).to_numpy(zero_copy_only=False))


def _typed(pair: Pair, types: Mapping[str, str], scores: Mapping[str, NDArray]) -> Labels:
    codes = np.full(len(pair.keys), -1)
    for code, score in enumerate(types.values()):
        codes[~np.isnan(scores[score][pair.places[0]])] = code
    return Labels(list(types), codes)


def _types(info: BenchmarkInfo, scores: Any) -> dict[str, str]:
    """The scores that only the questions of one type have, by that type."""
    prefix = f"{info.right.measure}:"
    return {name.removeprefix(prefix): name for name in scores if name.startswith(prefix)}


def _binned(values: NDArray[np.float64], edges: Sequence[float], names: Sequence[str], unit: str) -> Labels:
    told = [f"below {names[0]} {unit}", *(f"{low} to {high}" for low, high in pairwise(names))]
    codes = np.where(np.isnan(values), -1, np.digitize(values, edges))
    return Labels([*told, f"from {names[-1]}"], codes)


def _box_share(column: Column) -> NDArray[np.float64]:
    """(n,) the true box's part of the picture's area; NaN where there is no box or no size."""
    image = column("image")
    area = np.prod([_numbers(pc.struct_field(image, side)) for side in ("width", "height")], axis=0)
    texts = pc.fill_null(column("target"), "")
    boxes = pc.match_substring_regex(texts, _BOX).to_numpy(zero_copy_only=False)
    share = np.full(len(boxes), np.nan)
    ends = pc.list_flatten(pc.split_pattern(pc.utf8_trim(texts.filter(pa.array(boxes)), "[]"), ", "))
    x1, y1, x2, y2 = _numbers(ends).reshape(-1, 4).T
    with np.errstate(divide="ignore", invalid="ignore"):
        share[boxes] = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0) / area[boxes]
    return share


def _words(texts: pa.Array) -> NDArray[np.float64]:
    return _numbers(pc.count_substring_regex(texts, r"\S+"))


def _lengths(texts: pa.Array) -> NDArray[np.float64]:
    return _numbers(pc.utf8_length(texts))


def _asked(pair: Pair, record: RunRecord) -> NDArray[np.float64]:
    """(tasks,) words of each task's prompt that are not the sample's own."""
    prompts = {result.task: result.prompt or "" for result in record.tasks}
    return np.array(
        [sum("{" not in word for word in prompts.get(name, "").split()) for name in pair.names], dtype=float
    )


def _numbers(values: pa.Array) -> NDArray[np.float64]:
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)


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
