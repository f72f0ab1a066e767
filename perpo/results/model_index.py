"""Measured results as the model-index of a Hugging Face model card. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from perpo.benchmarks.declared import info_in
from perpo.common.files import atomic_write_text
from perpo.errors import PerpoError
from perpo.records.run_record import Metric, RunRecord, TaskResult, metric_of
from perpo.records.store import Run

_TASK = "image-text-to-text"


def update_card(file: Path, run: Run) -> int:
    """Write a run's metrics into a model card, each task's primary one first, in place of earlier ones.

    Args:
        file: README.md of a model; it is made if it is not there. All else in it stays.
        run: A measured run.

    Returns:
        How many results were written.

    Raises:
        PerpoError: A reported run, a run that is not complete or of some of the samples, or a card that cannot be read.
    """
    record = run.record
    if record.source != "measured" or record.status != "complete":
        raise PerpoError(
            f"{run.path} is not a complete measured run",
            "give a complete run of perpo-eval: a model card may hold only measured numbers",
        )
    _check_whole(run)
    card = _read(file, record)
    data: Any = card.data
    new = [result for task in record.tasks for result in _results(record, task)]
    places = {_place(result) for result in new}
    kept = [result for result in data.eval_results or [] if _place(result) not in places]
    data.model_name = data.model_name or record.name
    data.eval_results = [*kept, *new]
    atomic_write_text(file, str(card))
    return len(new)


def _check_whole(run: Run) -> None:
    """Refuse a run with --limit: in a card its numbers would stand for those of the whole benchmark."""
    for task in run.record.tasks:
        if task.n_scored is not None and task.n_total is not None and task.n_scored < task.n_total:
            raise PerpoError(
                f"{run.path} is about {task.n_scored:,} of the {task.n_total:,} samples of {task.task}",
                "evaluate without --limit: readers of a card would take its numbers for those of all samples",
            )


def _read(file: Path, record: RunRecord) -> ModelCard:
    if not file.exists():
        data = ModelCardData(model_name=record.name, pipeline_tag=_TASK, tags=["perpo", "vision-language"])
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {record.name}\n")
    try:
        return ModelCard(file.read_text(encoding="utf-8"), ignore_metadata_errors=False)
    except Exception as error:  # of YAML, of unreadable text, of a model-index that is none
        text = " ".join(str(error).split())
        raise PerpoError(
            f"{file} is not a model card that can be read: {text}",
            "give the README.md of a model, or the name of a new file",
        ) from error


def _place(result: EvalResult) -> tuple[str | None, ...]:
    return (result.dataset_type, result.dataset_name, result.dataset_config, result.dataset_split, result.metric_type)


def _results(record: RunRecord, task: TaskResult) -> list[EvalResult]:
    """The metrics of a task under the names that its benchmark gives them, but for readings that tables do not show."""
    info = info_in([task], task.benchmark)
    named = [name for name in info.by_name if ":" not in name or name in info.shown]
    names = sorted(named, key=lambda name: name != info.primary)
    metrics = [metric for name in names if (metric := metric_of(task.metrics, name)) is not None]
    return [_result(record, task, metric) for metric in metrics if metric.value is not None]


def _result(record: RunRecord, task: TaskResult, metric: Metric) -> EvalResult:
    info = info_in([task], task.benchmark)
    title = info.title(metric.name)
    if record.judge is not None and info.judged:
        title += f", judged by {record.judge['id']}"
    return EvalResult(
        task_type=_TASK,
        dataset_type=task.dataset.partition(":")[2] or task.dataset,
        dataset_name=task.task,
        dataset_split=task.split,
        dataset_revision=task.revision,
        metric_type=metric.name,
        metric_name=title,
        metric_value=metric.value,
        metric_args={"ci_low": metric.ci_low, "ci_high": metric.ci_high, "run": record.run_id},
    )
