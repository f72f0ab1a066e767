"""Score an answer as its task of lmms-eval does: by its own process_results, as lmms-eval calls it."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perpo.errors import PerpoError
from perpo_eval.harness.loading import HarnessData

Payloads = dict[str, Any]
"""What process_results gives for one answer, by metric."""

_SCORE_LIKE = ("score", "acc", "correct", "hit", "match", "em", "iou", "exact_match", "accuracy")
_THOUGHTS = [["<think>", "</think>"], ["<analysis>", "</analysis>"]]
"""What lmms-eval's command line takes out of answers, unless a task says otherwise."""


@dataclass(frozen=True)
class ScoreLimits:
    """The scores of a task for answers that are known to be right, and for empty ones.

    Attributes:
        right: For each document, what the truth itself gets; None where the task cannot score it.
        empty: What an empty answer gets.
    """

    right: list[Payloads | None]
    empty: list[Payloads | None]


def process(data: HarnessData, number: int, text: str) -> Payloads:
    """Return what a task makes of an answer.

    Raises:
        PerpoError: Its process_results fails for it.
    """
    task = data.task
    # lmms-eval's own wrapper tries five times, and hides what went wrong.
    function = getattr(type(task).process_results, "__wrapped__", type(task).process_results)
    doc = task.eval_docs_no_media[number]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            given = function(task, doc, [_filtered(task, text)])
    except Exception as error:  # any code of the task's
        raise PerpoError(
            f"{data.spec.name}, row {number}: process_results fails: {type(error).__name__}: "
            f"{' '.join(str(error).split()):.200}",
            "mend the task file, or leave the row out; answers that were given are kept",
        ) from error
    if not isinstance(given, Mapping):
        raise PerpoError(
            f"{data.spec.name}, row {number}: process_results gives {given!r:.60}, which is no dict",
            "see its task file",
        )
    metrics = task.aggregation()
    return {name: value for name, value in given.items() if name in metrics}


def _filtered(task: Any, text: str) -> Any:
    """An answer through the task's filters, without thoughts: as lmms-eval hands it to process_results."""
    from lmms_eval.api.instance import Instance
    from lmms_eval.api.reasoning import parse_reasoning_tags_config, strip_reasoning_tags

    request = Instance(
        request_type="generate_until", arguments=(), idx=0, metadata={"task": "", "doc_id": 0, "repeats": 1}
    )
    request.resps = [text]
    for each in task._filters:
        each.apply([request], None)
    said = next(iter(request.filtered_resps.values()))
    tags = parse_reasoning_tags_config(cli_value=None, task_value=task.config.reasoning_tags or _THOUGHTS)
    return strip_reasoning_tags(said, tags) if isinstance(said, str) and tags else said


def number_of(payload: Any, score_key: str = "score") -> float | None:
    """Return the number that a payload is, or that it holds as its score; None where it holds none, or several."""
    if isinstance(payload, Mapping):
        if _is_number(payload.get(score_key)):
            return number_of(payload[score_key])
        held = [name for name, value in payload.items() if _is_number(value) and _is_score(str(name))]
        return number_of(payload[held[0]]) if len(held) == 1 else None
    if not _is_number(payload):
        return None
    number = float(payload)
    return number if math.isfinite(number) else None


def _is_score(name: str) -> bool:
    return any(part in _SCORE_LIKE for part in name.lower().split("_"))


def _is_number(value: Any) -> bool:
    if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
        value = value.item()
    return isinstance(value, int | float)


def limits_of(data: HarnessData) -> ScoreLimits:
    """Return what the truths and empty answers get, before anything is asked; refuse a task that gives no score.

    Raises:
        PerpoError: No metric of the task gives a number for a sample, or process_results fails for both answers.
    """
    right: list[Payloads | None] = []
    empty: list[Payloads | None] = []
    for number in range(len(data.docs)):
        truth = _truth(data.task.doc_to_target(data.task.eval_docs_no_media[number]))
        given: list[Payloads | None] = []
        error: PerpoError | None = None
        for text in (truth, ""):
            try:
                given.append(None if text is None else process(data, number, text))
            except PerpoError as failed:
                given.append(None)
                error = failed
        if given == [None, None] and error is not None:
            raise error
        right.append(given[0])
        empty.append(given[1])
    if not metric_names(data, [*right, *empty]):
        raise PerpoError(
            f"lmms-eval's task '{data.spec.name}' gives no score for a sample ({', '.join(data.task.aggregation())})",
            "it is made for a submission file, a judge, or its aggregation alone: run it with lmms-eval",
        )
    return ScoreLimits(right, empty)


def _truth(target: Any) -> str | None:
    if isinstance(target, Sequence) and not isinstance(target, str):
        target = next(iter(target), None)
    return None if target is None else str(target)


def metric_names(data: HarnessData, payloads: Sequence[Payloads | None]) -> list[str]:
    """Return the task's metrics that give a number for some samples, in the order of its file."""
    key = data.task.config.score_key
    held = {name for each in payloads if each for name, payload in each.items() if number_of(payload, key) is not None}
    return [name for name in data.task.aggregation() if name in held]
