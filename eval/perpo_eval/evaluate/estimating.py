"""The cost of an evaluation, told from its rows and the model's small files before anything runs."""

from __future__ import annotations

import json
from typing import Any

from perpo.cli.estimates import adapter_size, cost_table, number_size
from perpo.errors import PerpoError
from perpo.models.costs import gpu_of
from perpo.results.text import Text
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.engines.base import family_from
from perpo_eval.evaluate.checks import check_questions, templates_of
from perpo_eval.evaluate.token_limits import token_limits
from perpo_eval.rows.loading import TaskData, load_task
from perpo_eval.wanted import EngineWanted, JudgeWanted, Reading, RowsWanted

_SOME = 64


def evaluation_estimate(
    wanted: EngineWanted,
    rows: RowsWanted,
    reading: Reading,
    limit: int | str | None,
    judge: JudgeWanted,
    gpu: str,
) -> Text:
    """Return what an evaluation costs, task by task.

    Args:
        wanted: What is to answer.
        rows: Which questions are asked.
        reading: How a model is asked for boxes.
        limit: What --max_new_tokens says.
        judge: Which judge is meant.
        gpu: What hours are told for.

    Raises:
        PerpoError: No such GPU, model or data, or tasks of lmms-eval's, whose rows it fetches itself.
    """
    from perpo.models.checkpoints import model_config, resolve_model
    from perpo.models.estimate import Estimator

    if not wanted.own:
        raise PerpoError("--estimate is for models of perpo's own engines", "leave --engine out")
    specs = check_questions(rows, reading, judge)
    if unknown := [spec.name for spec in specs if spec.benchmark not in BENCHMARKS]:
        raise PerpoError(f"--estimate does not know the rows of {unknown[0]}", "name perpo's own tasks")
    model = Estimator(wanted.checkpoint, gpu_of(gpu))
    limits = token_limits(limit, specs, embedded=wanted.embedded)
    family = family_from(reading, model_config(resolve_model(wanted.checkpoint, weights=False)))
    templates = templates_of(reading.prompt_style, specs, family)
    held = {"size": number_size(wanted.dtype), "adapter": adapter_size(wanted.adapter)}
    costs = {}
    for spec in specs:
        data = load_task(spec, rows.data)
        count = len(data.docs) if rows.limit is None else min(rows.limit, len(data.docs))
        load = model.load(_asked(data, templates[spec.name]), count).cut(limits[spec.name])
        costs[spec.name] = count, model.evaluating(load, wanted.questions_at_once, **held)
    notes = ["Each question is taken to be asked by itself; images that questions share are read once in fact."]
    return cost_table(f"Estimate of evaluating {wanted.checkpoint}", model, costs, notes)


def _asked(data: TaskData, template: str) -> list[Any]:
    from perpo.models.estimate import AskedSize

    benchmark = BENCHMARKS[data.spec.benchmark]
    some = data.docs.select(range(0, len(data.docs), max(1, len(data.docs) // _SOME)))
    return [
        AskedSize(benchmark.asked(doc, template), (doc["width"], doc["height"]), _text(json.loads(doc["target"])))
        for doc in some
    ]


def _text(target: Any) -> str:
    """A true answer as a text about as long as a model would write it."""
    if isinstance(target, dict):
        target = target.get("reference", "")
    return target if isinstance(target, str) else "[0.12, 0.34, 0.56, 0.78]"
