"""The third step of an evaluation: from a run's rows to its numbers, and to what became of it. No model, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from perpo.benchmarks.metrics import JUDGED, metrics_of
from perpo.records.run_record import CUT, GroupResult, Metric, TaskResult
from perpo.texts.repetition import ends_in_loop
from perpo_eval.judge import verdicts
from perpo_eval.judge.readings import readings
from perpo_eval.rows.suites import TaskSpec, spec_of

if TYPE_CHECKING:
    import pyarrow as pa


def status(
    tables: Sequence[pa.Table], specs: Sequence[TaskSpec], most_errors: float
) -> Literal["complete", "partial", "failed", "awaiting judge"]:
    """Return what became of a run: see `perpo.records.run_record.RunRecord.status`.

    Args:
        tables: The rows of each task.
        specs: The tasks.
        most_errors: The share of the questions that may have no answer.
    """
    asked = sum(table.num_rows for table in tables)
    failed = sum(table["response"].null_count for table in tables)
    if asked and failed == asked:
        return "failed"
    return "partial" if failed > most_errors * asked else _judging_status(tables, specs)


def _judging_status(
    tables: Sequence[pa.Table], specs: Sequence[TaskSpec]
) -> Literal["complete", "partial", "awaiting judge"]:
    missing = [_score(table, "missing") for table, spec in zip(tables, specs, strict=True) if spec.benchmark in JUDGED]
    missing_scores = np.concatenate([*missing, []])
    if not len(missing_scores):
        return "complete"
    if np.isnan(missing_scores).any():
        return "awaiting judge"
    return "partial" if missing_scores.mean() > verdicts.MOST_MISSING else "complete"


def task_result(data_of: Mapping[str, Any], samples: pa.Table, measured: list[Metric] | None = None) -> TaskResult:
    """Return the numbers of one task, from its rows.

    Args:
        data_of: The other fields of the result.
        samples: The rows.
        measured: The metrics, where the task itself makes them.
    """
    benchmark = data_of["benchmark"]
    if measured is None:
        measured = metrics(benchmark, [samples], data_of["box_frame"])
    ends: dict[str, Any] = _ends(samples["response"].to_pylist(), samples["finish_reason"].to_pylist())
    return TaskResult(
        **data_of,
        n_scored=samples.num_rows,
        n_parse_fail=samples["parse_ok"].to_pylist().count(False),
        n_error=samples.num_rows - samples["error"].null_count,
        metrics=measured,
        **ends,
    )


ENDS = ("n_truncated", "n_looped", "n_looped_truncated")
"""What is counted of how answers end."""


def _ends(responses: Sequence[str | None], reasons: Sequence[str | None]) -> dict[str, int | None]:
    """How many answers were cut, end in a loop, and both; None where it is known of none how it ended."""
    answered = any(said is not None for said in responses)
    told = any(reason is not None for reason in reasons)
    looped = [said is not None and ends_in_loop(said) for said in responses]
    cut = [reason in CUT for reason in reasons]
    both = sum(one and other for one, other in zip(looped, cut, strict=True))
    numbers = (sum(cut) if told else None, sum(looped) if answered else None, both if told and answered else None)
    return dict(zip(ENDS, numbers, strict=True))


def groups(results: Sequence[TaskResult], tables: Sequence[pa.Table]) -> list[GroupResult]:
    """Return the metrics of every benchmark over its tasks; a task that stands alone is a group of its own."""
    members: dict[str, list[int]] = {}
    for place, result in enumerate(results):
        members.setdefault(result.task if result.declared else spec_of(result.task).group, []).append(place)
    group_results = []
    for name, mine in members.items():
        if results[mine[0]].declared:  # a task of lmms-eval's stands alone
            group_results.append(GroupResult(name, results[mine[0]].benchmark, [name], results[mine[0]].metrics))
            continue
        benchmark, tasks = results[mine[0]].benchmark, [results[place].task for place in mine]
        frame = results[mine[0]].box_frame
        group_results.append(GroupResult(name, benchmark, tasks, metrics(benchmark, [tables[k] for k in mine], frame)))
    return group_results


def metrics(benchmark: str, tables: Sequence[pa.Table], box_frame: str | None = None) -> list[Metric]:
    """Return every metric over the rows of some tasks, which weigh the same, with intervals clustered by image.

    Of the accuracies in several frames, the one in the declared frame comes first.
    """
    names = [field.name for field in tables[0].schema.field("scores").type]
    columns = {name: np.concatenate([_score(table, name) for table in tables]) for name in names}
    clusters = np.concatenate([table["cluster_id"].to_numpy() for table in tables]).astype(str)
    tasks = np.repeat(np.arange(len(tables)), [table.num_rows for table in tables])
    all_metrics = [
        Metric(
            name=metric.name,
            **asdict(metric.estimate(columns, clusters, tasks)),
            higher_is_better=metric.higher_is_better,
            unit=metric.unit,
        )
        for metric in metrics_of(benchmark, names, box_frame)
    ]
    if benchmark in JUDGED:
        judgements = [text for table in tables for text in table["judge"].to_pylist()]
        all_metrics += readings(benchmark, judgements, clusters.tolist())
    return all_metrics


def _score(table: pa.Table, name: str) -> np.ndarray:
    import pyarrow.compute as pc

    column = pc.struct_field(table["scores"], name)
    return np.asarray(column.to_numpy(), dtype=np.float64)
