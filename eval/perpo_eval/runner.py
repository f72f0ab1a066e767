"""Evaluate one model on one suite: rows, answers through lmms-eval, scores, run record."""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo import provenance
from perpo.checkpoints import adapter_digest, public_name, resolve_model
from perpo.errors import PerpoError
from perpo.families import Family
from perpo.files import check_writable
from perpo.records import SCHEMA_VERSION, ModelInfo, RunRecord
from perpo.store import new_run_id, write_run
from perpo.training_record import read_record
from perpo_eval.suites import SUITES, TASKS_FOLDER, TaskData, load_task, select_tasks, suite_sha256

if TYPE_CHECKING:
    from perpo_eval.cli import EvalArguments
    from perpo_eval.lmms_model import PerpoModel


def evaluate(args: EvalArguments) -> Path:
    """Evaluate a model and store the run record. Leaves nothing behind in the process but imports.

    Args:
        args: What `perpo-eval` was given.

    Returns:
        The run's folder.

    Raises:
        PerpoError: Bad input, found before the model is loaded where it can be.
    """
    began, clock = datetime.now(UTC), time.perf_counter()
    names = check(args)
    data = [load_task(name, args.data) for name in names]
    from perpo_eval import convert
    from perpo_eval.lmms_model import PerpoModel

    model = PerpoModel(args.model, args.adapter, args.batch_size, args.dtype, args.device)
    circumstances = _circumstances(args, model, began)
    frame = model.loaded.family.box_format.frame
    output = _run_lmms_eval(model, data, args.limit)
    tasks, rows = [], []
    for task in data:
        of_task = convert.sample_rows(task, output["samples"][task.task], model.responses, frame)
        tasks.append(convert.task_result(task, str(output["versions"][task.task]), of_task, frame))
        rows += of_task
    record = RunRecord(
        **circumstances,
        duration_s=round(time.perf_counter() - clock, 3),
        generation={
            **output["configs"][names[0]]["generation_kwargs"],
            "batch_size": args.batch_size,
            "limit": args.limit,
            "prompt": model.loaded.family.grounding_prompt,
        },
        tasks=tasks,
        average=convert.metrics(rows),
        judge=None,
        samples=None,
        source="measured",
    )
    return write_run(Path(args.output), record, convert.samples_table(rows)).path


def _circumstances(args: EvalArguments, model: PerpoModel, began: datetime) -> dict[str, Any]:
    """What a record says of a run beside its results."""
    info = _model_info(args, model)
    name = args.name or "+".join(filter(None, (info.id, info.adapter)))
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": new_run_id(name, args.suite, began),
        "name": name,
        "status": "complete",
        "created_utc": began.isoformat(timespec="seconds"),
        "command": _command(args),
        "code": provenance.code_version(),
        "packages": provenance.package_versions(),
        "hardware": provenance.hardware(str(model.device)),
        "model": info,
        "training_run": read_record(args.adapter) if args.adapter else None,
        "suite": {"name": args.suite, "version": SUITES[args.suite], "sha256": suite_sha256()},
    }


def check(args: EvalArguments) -> list[str]:
    """Everything that can be refused at once; returns the tasks' names.

    Raises:
        PerpoError: A number out of its range, or data, a model, an adapter or an output that cannot be used.
    """
    for name in ("batch_size", "limit"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise PerpoError(f"--{name} is {value}; expected at least 1", "leave it out for the default")
    if importlib.util.find_spec("lmms_eval") is None:
        raise PerpoError("lmms-eval, which evaluates, is not installed", "pip install 'perpo[eval]'")
    names = select_tasks(args.data, args.tasks)
    resolve_model(args.model)
    if args.adapter is not None:
        adapter_digest(args.adapter)
        read_record(args.adapter)
    check_writable(Path(args.output))
    return names


def _run_lmms_eval(model: PerpoModel, data: Sequence[TaskData], limit: int | None) -> dict[str, Any]:
    with _lmms_eval() as (simple_evaluate, manager):
        output = simple_evaluate(
            model=model,
            tasks=[_task_config(task, model.loaded.family) for task in data],
            task_manager=manager,
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
            # The random state is the caller's, and an Accelerator would stay for the process's life.
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
            fewshot_random_seed=None,
            distributed_executor_backend="torchrun",
        )
    if output is None:
        raise PerpoError("lmms-eval returned no results", "run perpo-eval as one process")
    return output


def _task_config(data: TaskData, family: Family) -> dict[str, Any]:
    """The task file's settings with the rows that were read before, and the family's prompt and boxes."""
    from perpo_eval.tasks.grounding import rows

    return {
        "task": data.task,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"rows": str(TASKS_FOLDER / "grounding" / "tiny_world.json")}},
        "test_split": "rows",
        # A closure, for lmms-eval copies what a partial holds.
        "process_docs": lambda _: data.docs,
        "doc_to_text": partial(rows.doc_to_text, prompt=family.grounding_prompt),
        "process_results": partial(rows.process_results, box_format=family.box_format),
    }


@contextlib.contextmanager
def _lmms_eval() -> Iterator[tuple[Callable[..., dict[str, Any] | None], Any]]:
    """lmms-eval's `simple_evaluate` and a manager of our tasks; no bars, no log, no prints on stdout."""
    from tenacity import RetryError

    with contextlib.redirect_stdout(sys.stderr):
        from loguru import logger

        logger.disable("lmms_eval")
        import lmms_eval.api.task
        import lmms_eval.evaluator
        from lmms_eval.tasks import TaskManager

        modules: tuple[Any, ...] = (lmms_eval.api.task, lmms_eval.evaluator)
        bars = [module.tqdm for module in modules]
        try:
            for module, bar in zip(modules, bars, strict=True):
                module.tqdm = _silent(bar)
            manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False)
            yield lmms_eval.evaluator.simple_evaluate, manager
        except RetryError as error:
            # lmms-eval tries loading and scoring five times and hides what went wrong.
            raise error.last_attempt.exception() or error from error
        finally:
            for module, bar in zip(modules, bars, strict=True):
                module.tqdm = bar


def _silent(bar: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *words, **settings: bar(*words, **settings | {"disable": True})


def _model_info(args: EvalArguments, model: PerpoModel) -> ModelInfo:
    loaded = model.loaded
    return ModelInfo(
        id=public_name(args.model),
        revision=None,
        weights_sha256=loaded.weights_sha256,
        adapter=None if args.adapter is None else public_name(args.adapter),
        adapter_sha256=loaded.adapter_sha256,
        dtype=args.dtype,
        attention=loaded.model.config._attn_implementation,
    )


def _command(args: EvalArguments) -> str:
    words = ["perpo-eval"]
    for field in fields(args):
        value = getattr(args, field.name)
        if value is True:
            words.append(f"--{field.name}")
        elif value not in (None, False, []):
            words += [f"--{field.name}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)
