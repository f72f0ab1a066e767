"""By what samples can be told apart: size of the box, length of the question, truth, type. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perpo.benchmarks.base import BenchmarkInfo
from perpo.benchmarks.ocr import NORMALISED
from perpo.records.run_record import RunRecord

_NUMBER = r"-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?"
_BOX = rf"^\[{_NUMBER}(, {_NUMBER}){{3}}\]$"  # as JSON is written here
_AREAS = (0.01, 0.04, 0.1, 0.25)
_LENGTHS = (3, 5, 8, 13)
_PAGES = (50, 100, 250, 1000, 2000, 4000)


@dataclass(frozen=True)
class Labels:
    """The kind of each sample.

    Attributes:
        names: The kinds, in their order.
        codes: (n,) places in `names`; -1 for what is of no kind.
    """

    names: list[str]
    codes: NDArray[np.intp]


Column = Callable[[str], pa.Array]
"""A column of the samples by its name, see `perpo.records.run_record.SAMPLE_COLUMNS`."""

Score = Callable[[str], NDArray[np.float64]]
"""A score of the samples by its name; NaN where it does not apply."""


def kinds(info: BenchmarkInfo, scores: Sequence[str]) -> list[str]:
    """By what the samples of a benchmark can be told apart.

    Args:
        info: The benchmark.
        scores: Names of the scores that the samples have.
    """
    return [*(["question type"] if _types(info, scores) else []), *info.kinds]


def labels(
    kind: str,
    info: BenchmarkInfo,
    tasks: tuple[Sequence[str], NDArray[np.intp]],
    mask: NDArray[np.bool_],
    record: RunRecord,
    column: Column,
    names: Sequence[str],
    score: Score,
) -> Labels:
    """Return what kind each of the samples is of.

    Args:
        kind: One of `kinds`.
        info: The benchmark.
        tasks: Names of the tasks, and (n,) which of them each sample belongs to.
        mask: (n,) which samples are asked for, all of the benchmark; others are of no kind.
        record: The record of the run that says what they are.
        column: Its columns.
        names: Names of its scores.
        score: Its scores.
    """
    if kind == "box size":
        edges = [f"{100 * edge:g}%" for edge in _AREAS]
        all_labels = _binned(_box_share(column), _AREAS, edges, "of the picture")
    elif kind == "page length":
        all_labels = _binned(_lengths(column("target")), _PAGES, [f"{edge:,}" for edge in _PAGES], "characters")
    elif kind in ("expression length", "question length"):
        words = _words(column("question")) - _asked(tasks[0], record)[tasks[1]]
        all_labels = _binned(words, _LENGTHS, list(map(str, _LENGTHS)), "words")
    elif kind == "layout":
        all_labels = _named(column("layout"))
    elif kind == "truth":
        all_labels = _truths(column("target"), mask)
    else:
        all_labels = _typed(_types(info, names), score, len(mask))
    return Labels(all_labels.names, np.where(mask, all_labels.codes, -1))


def _truths(targets: pa.Array, mask: NDArray[np.bool_]) -> Labels:
    return _named(pc.if_else(pa.array(mask), pc.utf8_trim(targets, '"'), pa.scalar(None, pa.string())))


def _named(values: pa.Array) -> Labels:
    encoded = pc.dictionary_encode(values)
    names = [str(name) for name in encoded.dictionary.to_pylist()]
    return Labels(names, pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False))


def _typed(types: Mapping[str, str], score: Score, count: int) -> Labels:
    codes = np.full(count, -1)
    for code, name in enumerate(types.values()):
        codes[~np.isnan(score(name))] = code
    return Labels(list(types), codes)


def _types(info: BenchmarkInfo, scores: Sequence[str]) -> dict[str, str]:
    """The scores that only the questions of one type have, by that type."""
    prefix = f"{info.right.measure}:"
    return {name.removeprefix(prefix): name for name in scores if name.startswith(prefix) and name != NORMALISED}


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


def _asked(tasks: Sequence[str], record: RunRecord) -> NDArray[np.float64]:
    """(tasks,) words of each task's prompt that are not the sample's own."""
    prompts = {result.task: result.prompt or "" for result in record.tasks}
    return np.array([sum("{" not in word for word in prompts.get(name, "").split()) for name in tasks], dtype=float)


def _numbers(values: pa.Array) -> NDArray[np.float64]:
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)
