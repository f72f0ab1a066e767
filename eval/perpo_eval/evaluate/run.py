"""Evaluate one model on one suite: rows, answers, scores, run record."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.common.files import atomic_write_text
from perpo.data.images import listing, short_name
from perpo.errors import PerpoError
from perpo.models.checkpoints import model_config, resolve_model
from perpo.models.families import family_of
from perpo.records import provenance
from perpo.records.run_record import sample_key
from perpo.records.training_record import read_record
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.engines.base import family_from
from perpo_eval.engines.choice import load_engine
from perpo_eval.engines.responses import ResponseJournal, read_responses
from perpo_eval.evaluate.checks import check, check_family, judge_meant, templates_of
from perpo_eval.evaluate.rescoring import rescored, score_responses
from perpo_eval.evaluate.storing import RunWriter
from perpo_eval.evaluate.token_limits import token_limits
from perpo_eval.rows.loading import TaskData, load_task

if TYPE_CHECKING:
    from perpo_eval.arguments import EvalArguments


def evaluate(args: EvalArguments) -> Path | None:
    """Evaluate a model and store the run record. Leaves nothing behind in the process but imports.

    Args:
        args: What `perpo-eval` was given.

    Returns:
        The run's folder; None in all but the first of several processes.

    Raises:
        PerpoError: Bad input, found before the model is loaded where it can be.
    """
    if args.rescore is not None:
        return rescored(args)
    specs = check(args)
    judge = judge_meant(args)
    began, clock = datetime.now(UTC), time.perf_counter()
    training = read_record(args.adapter) if args.adapter else None
    answers = read_responses(args.responses) if args.responses is not None else None
    data = [load_task(spec, args.data) for spec in specs]
    if answers is not None:
        return score_responses(args, data, answers, judge, began, clock)
    from perpo_eval.evaluate.answering import World, answer_all

    _check_shapes(args, data)
    engine = load_engine(args)
    check_family(engine.family, specs)
    templates = templates_of(args, specs, engine.family)
    # What is behind a server has no device here, whatever its client says.
    device = None if "served" in engine.identity else getattr(engine.model, "device", None)
    settings = {task: _settings(args, limit) for task, limit in token_limits(args, specs).items()}
    hardware = provenance.hardware(None if device is None else str(device))
    run = RunWriter(args, engine.info, engine.family, training, hardware, began, clock, judge)
    world = World()
    with closing(ResponseJournal(Path(args.output), engine.identity, world.rank)) as journal:
        done = answer_all(engine, data, templates, settings, args.limit, journal, world)
        if done is None:
            return None
        found, keys = done
        limits = [response.batch_limit for response in found.values() if response.batch_limit is not None]
        if limits and min(limits) < engine.model.batch_size:
            run = replace(run, more={"smallest_batch_limit": min(limits)})  # memory had no room for more
        path = run.store(data, templates, lambda task: lambda number, key: found[task, number])
        if not any(response.error for response in found.values()):
            journal.forget(keys)  # else the same command asks again for those that failed
    return path


def write_questions(args: EvalArguments) -> int:
    """Write what would be asked as JSON lines: sample_key, task, question, image; returns how many.

    Raises:
        PerpoError: As `evaluate`.
    """
    specs = check(args)
    family = family_of(args.family) if args.family else None
    if family is None and any(BENCHMARKS[spec.benchmark].has_boxes for spec in specs):
        family = family_from(args, model_config(resolve_model(args.model or "tiny")))
    check_family(family, specs)
    templates = templates_of(args, specs, family)
    lines = []
    for spec in specs:
        data, benchmark = load_task(spec, args.data), BENCHMARKS[spec.benchmark]
        docs = data.docs if args.limit is None else data.docs.select(range(min(args.limit, len(data.docs))))
        for doc in docs:
            key = sample_key(data.dataset, data.revision, spec.split, doc["source_id"], doc["query"])
            question = benchmark.asked(doc, templates[spec.name])
            row = {"sample_key": key, "task": spec.name, "source_id": doc["source_id"], "question": question}
            lines.append(json.dumps(row | {"image": doc["image_file"]}, ensure_ascii=False))
    assert args.questions is not None
    atomic_write_text(args.questions, "".join(f"{line}\n" for line in lines))
    return len(lines)


def _check_shapes(args: EvalArguments, data: Sequence[TaskData]) -> None:
    """Refuse pictures whose shape the family's processor refuses, where the family is known.

    Raises:
        PerpoError: There are some: all are counted and ten are named.
    """
    family = family_from(args, model_config(resolve_model(args.model or "tiny")) if args.engine == "perpo" else None)
    if family is None or family.most_aspect is None:
        return
    shown = {
        (doc["image_sha256"], doc["image_path"], doc["width"], doc["height"])
        for task in data
        for doc in task.docs.select(range(min(args.limit or len(task.docs), len(task.docs))))
    }
    found = [(name, family.refuses((width, height))) for _, name, width, height in sorted(shown)]
    if bad := [f"{short_name(name)}: {problem}" for name, problem in found if problem is not None]:
        raise PerpoError(f"{len(bad)} of {len(shown)} images can't be used:\n  {listing(bad)}", "leave their rows out")


def _settings(args: EvalArguments, limit: int) -> dict[str, Any]:
    """lmms-eval's generation_kwargs of a task whose answers are cut at a limit."""
    settings: dict[str, Any] = {"max_new_tokens": limit, "do_sample": False}
    if args.temperature > 0:
        drawn = {"temperature": args.temperature, "top_p": args.top_p, "seed": args.seed}
        settings |= {"do_sample": True, **drawn}
    return settings | {"until": []}
