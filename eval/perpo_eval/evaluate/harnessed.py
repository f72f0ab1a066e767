"""Tasks of lmms-eval's among the steps of an evaluation: read, asked, scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from perpo_eval.benchmarks.base import TaskSpec
from perpo_eval.engines.responses import Response
from perpo_eval.evaluate import scoring
from perpo_eval.harness.loading import HarnessData, HarnessSpec, check_pictures, load_harness
from perpo_eval.harness.numbers import Measured, measure
from perpo_eval.harness.quiet import quiet_lmms_eval
from perpo_eval.harness.scoring import limits_of, process
from perpo_eval.rows.loading import TaskData
from perpo_eval.wanted import DecodingWanted, EngineWanted, RowsWanted

if TYPE_CHECKING:
    import pyarrow as pa
    from lmms_eval.api.instance import Instance

    from perpo_eval.engines.base import EvalEngine


def read_harness(spec: HarnessSpec, rows: RowsWanted, engine: EngineWanted | None) -> HarnessData:
    """Read a task's rows, and find out what it makes of right answers, before any model is loaded.

    Args:
        spec: The task.
        rows: Which rows.
        engine: What is to answer; None where the answers are there.

    Raises:
        PerpoError: Rows that cannot be read or asked, or a task that gives no scores.
    """
    name = "" if engine is None or engine.own else engine.engine.partition(":")[2]
    data = load_harness(spec, rows, name)
    if engine is not None and engine.own:
        check_pictures(data)
    return replace(data, limits=limits_of(data))


def prompt_of(data: HarnessData) -> str:
    """Return what is asked, with {query} for what the row says: the texts that the task file puts around it."""
    around = data.task.lmms_eval_specific_kwargs or {}
    before, behind = (around.get(name) for name in ("pre_prompt", "post_prompt"))
    return f"{before if isinstance(before, str) else ''}{{query}}{behind if isinstance(behind, str) else ''}"


def settings_of(data: HarnessData, decoding: DecodingWanted, limit: int) -> dict[str, Any]:
    """Return a task's generation_kwargs, with what the user says instead."""
    settings: dict[str, Any] = (
        dict(data.task.config.generation_kwargs or {}) | {"max_new_tokens": limit} | decoding.stopping
    )
    if decoding.drawn:
        return settings | {
            "do_sample": True, "temperature": decoding.temperature, "top_p": decoding.top_p, "seed": decoding.seed,
        }  # fmt: skip
    # As models of lmms-eval's take it.
    return settings | {"do_sample": bool(settings.get("do_sample", float(settings.get("temperature") or 0) > 0))}


def harness_requests(engine: EvalEngine, data: HarnessData, settings: dict[str, Any]) -> list[Instance]:
    """Return lmms-eval's requests for a task's documents."""
    with quiet_lmms_eval() as module:
        kind = module.ConfigurableTask if engine.model.is_simple else module.ConfigurableMessagesTask
        config = data.config | {"generation_kwargs": dict(settings), "model_specific_generation_kwargs": None}
        task = kind(config=config, model_name=data.task.model_name)
        engine.model.task_dict[data.spec.name] = task.dataset
        task.set_config(key="num_fewshot", value=data.task.config.num_fewshot or 0)
        task.build_all_requests(limit=len(data.docs))
        for request in task.instances:
            request.metadata["image"] = data.shown[int(request.doc_id)]
        return list(task.instances)


def scored(
    data: HarnessData, response_of: Callable[[int, str], Response], settings: Mapping[str, Any]
) -> tuple[pa.Table, Measured]:
    """Let a task score the answers to its documents; returns its rows and its numbers.

    Args:
        data: The task.
        response_of: The answer by document number and sample key.
        settings: lmms-eval's generation_kwargs that were used; empty where nobody knows.

    Raises:
        PerpoError: Its process_results fails for one.
    """
    responses = [response_of(number, key) for number, key in enumerate(scoring.sample_keys(data))]
    payloads = [
        None if response.error is not None else process(data, number, response.text)
        for number, response in enumerate(responses)
    ]
    measured = measure(data, payloads, data.limits, dict(settings))
    return scoring.harness_table(data, responses, measured.scores), measured


def read_data(
    specs: Sequence[TaskSpec],
    rows: RowsWanted,
    engine: EngineWanted | None,
    load: Callable[[TaskSpec, str], TaskData],
) -> list[TaskData]:
    """Return the tasks with their documents."""
    return [
        read_harness(spec, rows, engine) if isinstance(spec, HarnessSpec) else load(spec, rows.data) for spec in specs
    ]
