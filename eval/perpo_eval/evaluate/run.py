"""Evaluate one model on one suite: rows, answers, scores, run record.

This is the head of the job: here the flags are taken apart, and each step is given its own part.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.benchmarks.declared import TASKS_SUITE
from perpo.common.files import atomic_write_text, check_writable
from perpo.common.numbers import check_numbers
from perpo.common.processes import Processes
from perpo.data.images import listing, short_name
from perpo.engines.server_flags import check_servers
from perpo.engines.vllm_flags import check_vllm
from perpo.errors import PerpoError
from perpo.models.families import Family, family_of
from perpo.records import provenance
from perpo.records.run_record import sample_key
from perpo.records.training_record import read_record
from perpo_eval.arguments import BOX_FLAGS, check_foreign, check_unused
from perpo_eval.benchmarks.table import BENCHMARKS, has_boxes
from perpo_eval.engines.base import config_of, family_from
from perpo_eval.engines.choice import load_engine
from perpo_eval.engines.responses import ResponseJournal, read_responses
from perpo_eval.evaluate.checks import (
    check_answering,
    check_family,
    check_questions,
    judge_meant,
    note_missing,
    templates_of,
)
from perpo_eval.evaluate.harnessed import prompt_of, read_data, settings_of
from perpo_eval.evaluate.rescoring import check_responses, model_elsewhere, rescored
from perpo_eval.evaluate.storing import RunWriter, generation_of
from perpo_eval.evaluate.token_limits import token_limits
from perpo_eval.harness.loading import HarnessData, HarnessSpec
from perpo_eval.rows.label_review import LabelReview, read_reviews
from perpo_eval.rows.loading import TaskData, load_task
from perpo_eval.rows.suites import TaskSpec
from perpo_eval.wanted import DecodingWanted, RowsWanted

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
        check_unused(args, ("name", "output", "family", *BOX_FLAGS, "json", "reviewed_labels"))
        return rescored(args.rescore, args.run_wanted, args.reading, args.reviewed_labels)
    specs = check(args)
    reviews = read_reviews(args.reviewed_labels, specs)
    if args.responses is not None:
        return _score_responses(args, specs, args.responses, reviews)
    return _ask_and_score(args, specs, reviews)


_NOT_OF_SERVERS = ("adapter", "dtype", "device", "stop_on_repetition")


def _rows(args: EvalArguments, specs: Sequence[TaskSpec]) -> RowsWanted:
    """Which questions are asked; tasks of lmms-eval's are a suite of their own."""
    foreign = any(isinstance(spec, HarnessSpec) for spec in specs)
    return replace(args.rows_wanted, suite=TASKS_SUITE) if foreign else args.rows_wanted


def check(args: EvalArguments) -> Sequence[TaskSpec]:
    """Refuse what can be refused at once; returns the tasks.

    Raises:
        PerpoError: A number out of its range, or data, a model, an adapter or an output that cannot be used.
    """
    check_numbers(args)
    engine, rows, decoding, reading = args.engine_wanted, args.rows_wanted, args.decoding_wanted, args.reading
    judge = args.judge_wanted
    if args.questions is None:
        judge_meant(judge, args.judge, rows.suite, args.output)
    specs = check_questions(rows, reading, judge)
    if _rows(args, specs).suite == TASKS_SUITE:
        check_foreign(args)
    token_limits(decoding.max_new_tokens, specs, embedded=engine.embedded)
    note_missing(_rows(args, specs), specs)
    asked = ("suite", "data", "tasks", "include_path", "limit", "prompt_style", "family")
    if args.questions is not None:
        check_unused(args, (*asked, "model"))
    elif args.responses is None:
        unused = {name: getattr(args, name) or None for name in _NOT_OF_SERVERS}
        check_servers(args.engine, args, unused)
        check_vllm(args.engine, args, unused)
        check_answering(engine, reading, specs, decoding)
    else:
        check_unused(args, (*asked, "name", "output", "json", *BOX_FLAGS, "judge", *judge.given, "reviewed_labels"))
        check_family(family_from(reading, None), specs)
    check_writable(Path(args.output))
    return specs


def write_questions(args: EvalArguments) -> int:
    """Write what would be asked as JSON lines: sample_key, task, question, image; returns how many.

    Raises:
        PerpoError: As `evaluate`.
    """
    specs = check(args)
    rows, reading = _rows(args, specs), args.reading
    family = family_of(reading.family) if reading.family else None
    if family is None and any(has_boxes(spec.benchmark) for spec in specs):
        family = family_from(reading, config_of(args.engine_wanted))
    check_family(family, specs)
    templates = templates_of(reading.prompt_style, specs, family)
    lines = []
    for data in read_data(specs, rows, None, load_task):
        spec = data.spec
        for doc in data.first(rows.limit):
            key = sample_key(data.dataset, data.revision, spec.split, doc["source_id"], doc["query"])
            known = BENCHMARKS.get(spec.benchmark)
            question = doc["query"] if known is None else known.asked(doc, templates[spec.name])
            row = {"sample_key": key, "task": spec.name, "source_id": doc["source_id"], "question": question}
            lines.append(json.dumps(row | {"image": doc["image_file"]}, ensure_ascii=False))
    assert args.questions is not None
    atomic_write_text(args.questions, "".join(f"{line}\n" for line in lines))
    return len(lines)


def _score_responses(
    args: EvalArguments, specs: Sequence[TaskSpec], file: Path, reviews: Mapping[str, LabelReview]
) -> Path:
    """Score answers that were made elsewhere."""
    began, clock = datetime.now(UTC), time.perf_counter()
    rows, reading, wanted = _rows(args, specs), args.reading, args.run_wanted
    judge = judge_meant(args.judge_wanted, args.judge, rows.suite, wanted.output)
    answers = read_responses(file)
    data = read_data(specs, rows, None, load_task)
    check_responses(answers, data, rows.limit)
    family = family_from(reading, None)
    run = RunWriter(
        wanted=wanted,
        rows=rows,
        generation=generation_of(rows, reading, family, None),
        model=model_elsewhere(wanted.name or file.stem, reading.family),
        family=family,
        training=None,
        hardware={},
        began=began,
        clock=clock,
        judge=judge,
        reviews=reviews,
    )
    templates = templates_of(reading.prompt_style, specs, family) | _asked_by_harness(data)
    return run.store(data, templates, lambda task: lambda number, key: answers[key])


def _ask_and_score(args: EvalArguments, specs: Sequence[TaskSpec], reviews: Mapping[str, LabelReview]) -> Path | None:
    """Ask the model for answers and score them."""
    from perpo_eval.evaluate.answering import answer_all

    began, clock = datetime.now(UTC), time.perf_counter()
    rows, reading, decoding, wanted = _rows(args, specs), args.reading, args.decoding_wanted, args.engine_wanted
    training = read_record(wanted.adapter) if wanted.adapter else None
    data = read_data(specs, rows, wanted, load_task)
    _check_shapes(family_from(reading, config_of(wanted)), data, rows.limit)
    engine = load_engine(wanted, reading)
    if wanted.own:
        engine.model.engine.info.check_stopping(wanted=decoding.stop_on_repetition)
    check_family(engine.family, specs)
    templates = templates_of(reading.prompt_style, specs, engine.family) | _asked_by_harness(data)
    limits = token_limits(decoding.max_new_tokens, specs, embedded=wanted.embedded)
    settings = _settings_of(data, decoding, limits)
    # What is behind a server has no device here, whatever its client says.
    own = engine.model.engine.info.device if wanted.own else getattr(engine.model, "device", None)
    device = own if wanted.own or "served" not in engine.identity else None
    run = RunWriter(
        wanted=args.run_wanted,
        rows=rows,
        generation=generation_of(rows, reading, engine.family, (wanted, decoding, limits)),
        model=engine.info,
        family=engine.family,
        training=training,
        hardware=provenance.hardware(None if device is None else str(device)),
        began=began,
        clock=clock,
        judge=judge_meant(args.judge_wanted, args.judge, rows.suite, args.output),
        reviews=reviews,
        settings=settings,
    )
    processes = Processes()
    with closing(ResponseJournal(Path(args.output), engine.identity, processes.rank)) as journal:
        done = answer_all(engine, data, templates, settings, rows.limit, journal, processes)
        if done is None:
            return None
        answers, keys = done
        least = [response.batch_limit for response in answers.values() if response.batch_limit is not None]
        if least and min(least) < engine.model.batch_size:  # memory had no room for more
            run = replace(run, generation={**run.generation, "smallest_batch_limit": min(least)})
        path = run.store(data, templates, lambda task: lambda number, key: answers[task, number])
        if not any(response.error for response in answers.values()):
            journal.forget(keys)  # else the same command asks again for those that failed
    return path


def _check_shapes(family: Family | None, data: Sequence[TaskData], limit: int | None) -> None:
    """Refuse pictures whose shape the family's processor refuses, where the family is known.

    Raises:
        PerpoError: There are some: all are counted and ten are named.
    """
    if family is None or family.most_aspect is None:
        return
    shown = {
        (doc["image_sha256"], doc["image_path"], doc["width"], doc["height"])
        for task in data
        for doc in task.first(limit)
        if doc["image_file"] is not None
    }
    problems = [(name, family.refuses((width, height))) for _, name, width, height in sorted(shown)]
    if bad := [f"{short_name(name)}: {problem}" for name, problem in problems if problem is not None]:
        raise PerpoError(
            f"{len(bad)} of {len(shown)} images cannot be used:\n  {listing(bad)}", "remove their rows from the data"
        )


def _asked_by_harness(data: Sequence[TaskData]) -> dict[str, str]:
    """What is asked in tasks of lmms-eval's, by their names."""
    return {task.spec.name: prompt_of(task) for task in data if isinstance(task, HarnessData)}


def _settings_of(
    data: Sequence[TaskData], decoding: DecodingWanted, limits: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """lmms-eval's generation_kwargs of each task."""
    settings = {}
    for task in data:
        name = task.spec.name
        if isinstance(task, HarnessData):
            settings[name] = settings_of(task, decoding, limits[name])
        else:
            settings[name] = _settings(decoding, limits[name])
    return settings


def _settings(decoding: DecodingWanted, limit: int) -> dict[str, Any]:
    """lmms-eval's generation_kwargs of a task whose answers are cut at a limit."""
    settings: dict[str, Any] = {"max_new_tokens": limit, "do_sample": False}
    if decoding.drawn:
        drawn = {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": decoding.seed}
        settings |= {"do_sample": True, **drawn}
    settings |= decoding.stopping
    return settings | {"until": []}
