"""The samples that a prediction may be about, by what its file says of it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from perpo.errors import PerpoError
from perpo_eval.imports.files import Prediction, task_named
from perpo_eval.imports.samples import Sample, asks_same, image_names, words_of

Way = Literal["sample_key", "id", "number", "image", "question", "truth", "position"]

WAYS: dict[Way, str] = {
    "sample_key": "sample key",
    "id": "the data set's id",
    "number": "the place in the task (doc_id)",
    "image": "image and question",
    "question": "question, and truth where several ask the same",
    "truth": "truth",
    "position": "position in the file",
}
"""What predictions are matched by, in words."""


def asking(candidates: Iterable[Sample], question: str) -> list[Sample]:
    """Return candidates whose query is in the question, and in no longer query that is in it too."""
    fitting = [sample for sample in candidates if asks_same(sample, question)]
    asked = words_of(question)
    exact = [sample for sample in fitting if asked in (words_of(sample.query), words_of(sample.asked))]
    return exact or _longest(fitting)


def _longest(fitting: list[Sample]) -> list[Sample]:
    queries = {words_of(sample.query) for sample in fitting}
    within = {one for one in queries for other in queries if one != other and f" {one} " in f" {other} "}
    return [sample for sample in fitting if words_of(sample.query) not in within]


def tasks_of(predictions: Sequence[Prediction], samples: Sequence[Sample]) -> list[set[str] | None]:
    """Return for each prediction the tasks that it may be about; None for all.

    A column of splits counts only where it names splits, and a file's name only where it names a task.
    """
    known: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        known[sample.task].add(sample.task)
        known[sample.split].add(sample.task)
    by_split = any(each.split in known for each in predictions)
    named = {each.file: task_named(each.file) for each in predictions}
    limits: list[set[str] | None] = []
    for each in predictions:
        task = named[each.file]
        if by_split:
            limits.append(known.get(each.split or "", set()))
        else:
            limits.append({task} if task in known else None)
    return limits


def finder(
    predictions: Sequence[Prediction], samples: Sequence[Sample], way: Way
) -> Callable[[Prediction], list[Sample]]:
    """Return what finds the samples that a prediction may be about."""
    if way == "position":
        return _in_order(predictions, samples)
    if way == "question":
        return _by_question(samples)
    index: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        for name in _NAMES[way](sample):
            index[name].append(sample)
    if way == "image":
        return lambda each: _of_picture(each, index)
    if way == "truth":
        return lambda each: index[" ".join(str(each.truth).split())]
    return lambda each: index[str(getattr(each, way))]


_NAMES: dict[str, Callable[[Sample], list[str]]] = {
    "sample_key": lambda sample: [sample.key],
    "id": lambda sample: sample.ids,
    "number": lambda sample: [str(sample.number)],
    "image": lambda sample: [sample.image_sha256, *image_names(sample.image)],
    "truth": lambda sample: [" ".join(str(json.loads(sample.target)).split())],
}


def _of_picture(each: Prediction, index: Mapping[str, list[Sample]]) -> list[Sample]:
    name = next((name for name in image_names(each.image or "") if index.get(name)), None)
    shown = [] if name is None else index[name]
    if each.question is None or not any(sample.query for sample in shown):
        return shown
    return asking(shown, each.question)


def _by_question(samples: Sequence[Sample]) -> Callable[[Prediction], list[Sample]]:
    """By the question's words: exactly, else by the longest query that stands within it."""
    index: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        for words in {words_of(sample.query), words_of(sample.asked)} if sample.query else ():
            index[words].append(sample)
    most = max((len(words.split()) for words in index), default=0)

    def find(each: Prediction) -> list[Sample]:
        asked = words_of(each.question or "")
        if asked in index:
            return index[asked]
        words = asked.split()
        spans = (" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, min(i + most, len(words)) + 1))
        return _longest(list({sample.key: sample for span in spans for sample in index.get(span, ())}.values()))

    return find


def _in_order(predictions: Sequence[Prediction], samples: Sequence[Sample]) -> Callable[[Prediction], list[Sample]]:
    """By position: within a task where the file says which, else over all tasks, whose rows must be as many."""
    limits = tasks_of(predictions, samples)
    by_task: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_task[sample.task].append(sample)
    one = next(iter(by_task)) if len(by_task) == 1 else None
    queues: dict[str, list[Prediction]] = defaultdict(list)
    for each, allowed in zip(predictions, limits, strict=True):
        task = next(iter(allowed)) if allowed is not None and len(allowed) == 1 else one
        queues[task or ""].append(each)
    unplaced = queues.get("", [])
    if unplaced and (len(queues) > 1 or len(unplaced) != len(samples)):
        raise PerpoError(
            f"{len(predictions):,} rows can't be matched by position with the {len(samples):,} of {len(by_task)} tasks",
            "give one task as --tasks, or a column that names the task or split: --columns split=COLUMN",
        )
    places = {}
    for task, mine in queues.items():
        for place, each in enumerate(mine):
            places[id(each)] = (by_task[task] if task else list(samples))[place : place + 1]
    return lambda each: places[id(each)]
