"""The first step of an evaluation: every question of the tasks gets its answer, once.

Requests are made by lmms-eval from our task files. Each process of a run (torchrun, accelerate launch)
answers its share and journals it; the first one collects all answers when the others are done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from perpo.common.processes import Processes
from perpo.common.progress import progress
from perpo_eval.engines.base import EvalEngine
from perpo_eval.engines.responses import Response, ResponseJournal, response_key
from perpo_eval.evaluate.harnessed import harness_requests
from perpo_eval.harness.loading import HarnessData
from perpo_eval.harness.quiet import quiet_lmms_eval
from perpo_eval.rows.loading import TaskData
from perpo_eval.rows.suites import TASKS_FOLDER

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance

Answers = dict[tuple[str, int], Response]
"""By task and document number."""


def answer_all(
    engine: EvalEngine,
    data: Sequence[TaskData],
    templates: dict[str, str],
    settings: dict[str, dict[str, Any]],
    limit: int | None,
    journal: ResponseJournal,
    processes: Processes,
) -> tuple[Answers, set[str]] | None:
    """Answer every question that has no answer in the journal yet.

    Args:
        engine: What answers.
        data: The tasks with their documents.
        templates: The prompt of each task, with {query} in it.
        settings: lmms-eval's generation_kwargs of each task.
        limit: Only the first so many documents of each task.
        journal: This process's.
        processes: This process among the others.

    Returns:
        The answers, and their keys in the journal; None in all processes but the first.

    Raises:
        PerpoError: What the engine raises.
    """
    requests = make_requests(engine, data, templates, settings, limit)
    keys = {id(request): _key(engine, request) for request in requests}
    if engine.by_batch:
        keys = _with_batches(keys, f"{engine.model.batch_size} {processes.size}")
    known = {key: response for key, response in journal.answers().items() if response.error is None}
    first = {keys[id(request)]: request for request in reversed(requests)}
    mine = _share(first, processes)
    there = {id(request): known[key] for key, request in mine.items() if key in known}
    before = sum(key in known for key in first)
    if before and processes.size == 1:  # of several, the others may have begun already
        print(f"continuing: {before:,} of {len(first):,} questions were answered before", file=sys.stderr)
    shown = progress(len(mine) - len(there), "answering") if processes.rank == 0 else contextlib.nullcontext(_silence)
    with shown as advance:
        for batch in engine.stream(list(mine.values()), there):
            journal.append({keys[id(request)]: response for request, response in batch})
            advance(sum(id(request) not in there for request, _ in batch))
    # Closed before anybody goes on: whoever forgets the answers opens it again.
    journal.close()
    processes.wait()
    if processes.rank > 0:
        return None
    responses = journal.answers()
    answers = {(str(r.task_name), int(r.doc_id)): responses[keys[id(r)]] for r in requests}
    _warn_of_failures(engine, answers)
    return answers, set(first)


def _silence(count: int) -> None:
    """What the later processes do of progress: the first one's bar stands for all."""


def _with_batches(keys: dict[int, str], batches: str) -> dict[int, str]:
    """The keys of answers that depend on their batch: on how large it may be, and on all that is asked in the run."""
    asked = hashlib.sha256("\x1f".join([batches, *sorted(set(keys.values()))]).encode()).hexdigest()
    return {request: hashlib.sha256(f"{key}\x1f{asked}".encode()).hexdigest() for request, key in keys.items()}


def _share(requests: dict[str, Instance], processes: Processes) -> dict[str, Instance]:
    """This process's part: questions about one image stay together."""
    places: dict[str, int] = {}
    part = {}
    for key, request in requests.items():
        *_, doc_id, task, _ = request.args
        image = request.metadata.get("image", f"{task}/{doc_id}")
        if places.setdefault(image, len(places)) % processes.size == processes.rank:
            part[key] = request
    return part


def _key(engine: EvalEngine, request: Instance) -> str:
    from perpo_eval.engines.lmms_model import image_key

    chat = not engine.model.is_simple
    kwargs = request.args[2] if chat else request.args[1]
    image = image_key(engine.model, request)
    request.metadata["image"] = image
    return response_key(request.args[0], image, json.dumps(kwargs, sort_keys=True))


def make_requests(
    engine: EvalEngine,
    data: Sequence[TaskData],
    templates: dict[str, str],
    settings: dict[str, dict[str, Any]],
    limit: int | None,
) -> list[Instance]:
    """Make lmms-eval's requests for all tasks; the arguments are those of `answer_all`."""
    with _own_errors() as module:
        # Its task manager makes every configured task a simple one, and loses the names of those without a file.
        kind = module.ConfigurableTask if engine.model.is_simple else module.ConfigurableMessagesTask
        requests: list[Instance] = []
        for part in data:
            name = part.spec.name
            if isinstance(part, HarnessData):
                requests += harness_requests(engine, part, settings[name])
                continue
            task = kind(config=_task_config(part, templates[name], settings[name]))
            engine.model.task_dict[name] = task.dataset
            task.set_config(key="num_fewshot", value=0)
            task.build_all_requests(limit=limit)
            requests += task.instances
    return requests


def _task_config(data: TaskData, template: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The task file's settings with the rows that were read before, and the family's prompt."""
    from perpo_eval.benchmarks.table import BENCHMARKS
    from perpo_eval.tasks.functions import doc_to_visual

    benchmark = BENCHMARKS[data.spec.benchmark]
    return {
        "task": data.spec.name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"rows": str(TASKS_FOLDER / "rows_are_made_elsewhere.json")}},
        "test_split": "rows",
        "output_type": "generate_until",
        # A closure, for lmms-eval copies what a partial holds.
        "process_docs": lambda _: data.docs,
        "doc_to_visual": doc_to_visual,
        "doc_to_text": partial(_doc_to_text, benchmark.asked, template),
        "doc_to_target": "target",
        "generation_kwargs": settings,
        "metric_list": [{"metric": "bypass"}],
    }


def _doc_to_text(asked: Any, template: str, doc: dict[str, Any]) -> str:
    return asked(doc, template)


@contextlib.contextmanager
def _own_errors() -> Iterator[Any]:
    """The module of lmms-eval's tasks, quiet, with the errors that it hides."""
    from tenacity import RetryError

    with quiet_lmms_eval() as module:
        try:
            yield module
        except RetryError as error:
            # lmms-eval tries loading five times and hides what went wrong.
            raise error.last_attempt.exception() or error from error


def _warn_of_failures(engine: EvalEngine, answers: Answers) -> None:
    errors = [response.error for response in answers.values() if response.error is not None]
    if errors:
        print(
            f"warning: {len(errors):,} of {len(answers):,} questions got no answer from {engine.info.engine} and "
            f"have no score: {errors[0]}",
            file=sys.stderr,
        )
