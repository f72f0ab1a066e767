"""From what a task made of its answers to the numbers of a record, and to what the record declares of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpo.benchmarks.base import Definition
from perpo.benchmarks.declared import OWN_FUNCTION
from perpo.records.run_record import Metric
from perpo.stats import OWN_DRAWS, drawn_estimate
from perpo_eval.harness.aggregates import Aggregation, drawn, is_mean
from perpo_eval.harness.loading import HarnessData
from perpo_eval.harness.scoring import Payloads, ScoreLimits, metric_names, number_of

SAMPLE_SCORE = "sample_score"
"""The score of a sample by whichever of the task's metrics it has, where no metric is of all samples."""


@dataclass(frozen=True)
class Measured:
    """The numbers of a task.

    Attributes:
        scores: For each sample, a number by metric; None where it has none.
        metrics: The metrics with their intervals.
        declared: What `perpo.benchmarks.declared` reads.
        note: What could not be computed, or None.
    """

    scores: list[dict[str, float | None]]
    metrics: list[Metric]
    declared: dict[str, Any]
    note: str | None


@dataclass(frozen=True)
class _Column:
    """One metric over the samples that have it.

    Attributes:
        name: The metric's.
        held: (m,) which samples those are.
        payloads: (m,) what they have for it.
        numbers: (m,) their numbers.
        others: (m,) what the truth and an empty answer have for it, where that is known.
        rights: What the truths have for it, of those samples where that is known.
        empties: What empty answers have for it, likewise.
    """

    name: str
    held: NDArray[np.intp]
    payloads: list[Any]
    numbers: NDArray[np.float64]
    others: list[list[Any]]
    rights: list[Any]
    empties: list[Any]


def measure(
    data: HarnessData, payloads: Sequence[Payloads | None], limits: ScoreLimits, settings: dict[str, Any]
) -> Measured:
    """Return the numbers of a task.

    Args:
        data: The task with its documents.
        payloads: What it made of each answer; None of one that failed.
        limits: What it makes of the truths, and of empty answers.
        settings: lmms-eval's generation_kwargs that were used.
    """
    names = metric_names(data, [*limits.right, *limits.empty, *payloads])
    number = partial(number_of, score_key=data.task.config.score_key)
    columns = [_column(name, payloads, limits, number) for name in names]
    clusters = np.array(data.docs["image_sha256"], dtype=str)
    metrics, said, notes = [], [], []
    for column in columns:
        metric, about, failed = _measured(data, column, clusters, number)
        metrics.append(metric)
        said.append(about)
        notes += [] if failed is None else [f"{column.name}: {failed}"]
    if left := [name for name in data.task.aggregation() if name not in names]:
        print(f"note: {data.spec.name}: {', '.join(left)} gives no score for a sample and is left out", file=sys.stderr)
    scores = [_scores(names, each, number) for each in payloads]
    sample = names[0]
    if any(each is not None and each[sample] is None for each in scores):
        sample = SAMPLE_SCORE
        for each in scores:
            each[sample] = next((value for value in each.values() if value is not None), None)
    first = said[0]
    decide = columns if sample == SAMPLE_SCORE else columns[:1]
    rights = [value for column in decide for each in column.rights if (value := number(each)) is not None]
    seen = [value for each in scores if (value := each[sample]) is not None]
    declared = {
        "primary": names[0],
        "sample": sample,
        "right": _right(rights, first["higher_is_better"]),
        "span": [min(0.0, *rights, *seen), max(1.0, *rights, *seen)],
        "max_new_tokens": data.spec.max_new_tokens,
        "metrics": said,
        "lmms_eval": version("lmms_eval"),
        "task_file": {"name": data.spec.file.path.name, "sha256": data.spec.file.sha256},
        "generation_kwargs": settings,
    }
    return Measured(scores, metrics, declared, "; ".join(notes) or None)


def _column(name: str, payloads: Sequence[Payloads | None], limits: ScoreLimits, number: Any) -> _Column:
    held = [place for place, each in enumerate(payloads) if each is not None and name in each]
    own = [(payloads[place] or {})[name] for place in held]
    known = [(limits.right[place] or {}, limits.empty[place] or {}) for place in held]
    others = [[each[name] for each in pair if name in each] for pair in known]
    rights, empties = ([pair[side][name] for pair in known if name in pair[side]] for side in (0, 1))
    numbers = np.array([np.nan if (value := number(each)) is None else value for each in own], dtype=np.float64)
    return _Column(name, np.array(held, dtype=int), own, numbers, others, rights, empties)


def _measured(
    data: HarnessData, column: _Column, clusters: NDArray[np.str_], number: Any
) -> tuple[Metric, dict[str, Any], str | None]:
    """A metric, what the record declares of it, and why it could not be computed."""
    aggregation = Aggregation(data.task.aggregation()[column.name])
    better = data.task.higher_is_better().get(column.name)
    own_clusters = clusters[column.held]
    choices = [[own, *rest] for own, rest in zip(column.payloads, column.others, strict=True)]
    mean = bool(choices) and not np.isnan(column.numbers).any() and is_mean(aggregation, choices, number)
    known = [value for each in column.others for payload in each if (value := number(payload)) is not None]
    seen = column.numbers[~np.isnan(column.numbers)].tolist()
    bounds = (min(0.0, *known, *seen), max(1.0, *known, *seen))
    value = aggregation(column.payloads) if column.payloads else None
    failed = aggregation.failed
    about: dict[str, Any] = {"name": column.name, "higher_is_better": better, "bounds": list(bounds)}
    if mean:
        unit, scale = _unit(known)
        definition = Definition(column.name, column.name, better, unit=unit, scale=scale, bounds=bounds)
        columns, one = {column.name: column.numbers}, np.zeros(len(column.numbers))
        estimate = definition.estimate(columns, own_clusters, one)
        about |= {"aggregate": "mean"}
    else:
        draws = drawn(aggregation, column.payloads, own_clusters, OWN_DRAWS) if value is not None else None
        values = draws["values"] if draws else []
        if values and all(each is None for each in values):
            failed = f"no interval, for drawn clusters fail: {aggregation.failed}"
        whole = [given for given in (column.rights, column.empties) if given and len(given) == len(column.payloads)]
        unit, scale = _unit([reached for given in whole if (reached := aggregation(given)) is not None])
        estimate = drawn_estimate(value, values, len(column.payloads), len(np.unique(own_clusters)))
        about |= {"aggregate": f"{OWN_FUNCTION}{aggregation.name}", "draws": draws}
    metric = Metric(column.name, **asdict(estimate), higher_is_better=better, unit=unit)
    return metric, about | {"unit": unit, "scale": scale}, failed


def _unit(known: Sequence[float]) -> tuple[str, float]:
    """What a metric counts in, and what a hundred points of it are.

    What truths and empty answers reach decides, which no model changes: 1 is a fraction, 2000 are points of 2000. An
    error that can be larger than 1 stays a fraction of what an empty answer errs. Where none of them reaches anything,
    the scale is not known: 1 is the strictest that is usual.
    """
    most = max(known, default=0.0)
    if most > 1 + 1e-9:
        return f"points of {most:g}", most
    return ("fraction" if most > 0 else "points"), 1.0


def _right(rights: Sequence[float], higher_is_better: bool | None) -> float | None:
    """The score of a right answer, where truths of all samples get the same; None where they do not."""
    if not rights or higher_is_better is None or min(rights) != max(rights):
        return None
    return rights[0]


def _scores(names: Sequence[str], payloads: Payloads | None, number: Any) -> dict[str, float | None]:
    return {name: None if payloads is None else number(payloads.get(name)) for name in names}
