"""Predictions meet samples: each is matched with the one that it is about, or with none, and never with a wrong one."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from perpo.data.images import listing, short_name
from perpo.errors import PerpoError
from perpo_eval.imports.files import Prediction, task_named
from perpo_eval.imports.samples import Sample, asks_same, image_names, numbered_by_llava, true_same, words_of

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


@dataclass
class Matched:
    """What became of predictions.

    Attributes:
        way: What they were matched by.
        answers: The prediction for each sample, by its key.
        unmatched: Predictions without a sample.
        beyond: How many are about samples that a limit leaves out.
        duplicates: Predictions that say again what another one says of the same sample.
        missing: Samples without a prediction.
        null: Predictions that hold no answer.
        verified: How many questions and truths agree with the benchmark's.
    """

    way: Way
    answers: dict[str, Prediction] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    beyond: int = 0
    duplicates: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    null: list[str] = field(default_factory=list)
    verified: Counter[str] = field(default_factory=Counter)


def choose_way(predictions: Sequence[Prediction], asked: Way | None, tasks: set[str]) -> Way:
    """Return what predictions are matched by: what was asked for, else the surest that all of them have.

    Args:
        predictions: All rows of the files.
        asked: What --match says; None for the surest.
        tasks: The tasks that they may be about. A place in a task says nothing where it is not known in which.

    Raises:
        PerpoError: They do not have what was asked for, or nothing that tells samples apart.
    """
    names = ("sample_key", "id", "number", "image", "question", "truth")
    have = {name for name in names if all(getattr(each, name) is not None for each in predictions)}
    if asked is not None:
        if asked not in have and asked != "position":
            raise PerpoError(f"not all rows have what --match {asked} needs", f"they have {', '.join(sorted(have))}")
        return asked
    placed = len(tasks) == 1 or all(task_named(each.file) in tasks for each in predictions)
    # Where several tasks count from 0, a data set's own id says more than a place in one of them.
    ways: list[Way] = ["sample_key", *(["number"] if placed else []), "image", "id", "number", "question", "truth"]  # type: ignore[list-item]
    for way in ways:
        if way in have and (way != "image" or "question" in have or "id" not in have):
            return way
    raise PerpoError(
        "the rows do not say which samples they are",
        "name a column: --columns id=COLUMN, or image=COLUMN question=COLUMN; or --match position",
    )


def match(
    predictions: Sequence[Prediction], samples: Sequence[Sample], way: Way, wanted: set[str], hint: str = ""
) -> Matched:
    """Match predictions with samples.

    Args:
        predictions: All rows of the files.
        samples: All samples of the tasks.
        way: What to match by.
        wanted: The keys of the samples that are asked for; a limit leaves out the others.
        hint: What to do where rows do not say which samples they are.

    Returns:
        What became of them. Samples and predictions may be left over.

    Raises:
        PerpoError: A prediction fits several samples, two predictions differ about one, or a question or a truth is
            not that of the matched sample.
    """
    found = Matched(way)
    groups: dict[tuple[str, ...], list[Prediction]] = defaultdict(list)
    candidates_of = _finder(predictions, samples, way)
    by_key = {sample.key: sample for sample in samples}
    for each, allowed in zip(predictions, _tasks_of(predictions, samples), strict=True):
        candidates = [sample for sample in candidates_of(each) if allowed is None or sample.task in allowed]
        groups[tuple(sample.key for sample in _narrowed(candidates, each))].append(each)
    found.unmatched = [_told(each) for each in groups.pop((), [])]
    ambiguous: list[str] = []
    for keys, mine in groups.items():
        _assign([by_key[key] for key in keys], mine, found, ambiguous)
    if ambiguous:
        _refuse(f"{len(ambiguous):,} predictions fit several samples each", ambiguous, hint or _SEVERAL)
    _verify(found, by_key, hint)
    for key in list(found.answers):
        if key not in wanted:
            del found.answers[key]
            found.beyond += 1
    found.missing = [str(sample) for sample in samples if sample.key in wanted and sample.key not in found.answers]
    found.null = [str(by_key[key]) for key, each in found.answers.items() if each.answer is None]
    return found


_SEVERAL = (
    "name what tells them apart: --columns with image=, question=, truth= or split=; import one task at a time "
    "(--tasks); or --match position where rows are in the data set's order"
)


def _assign(candidates: list[Sample], mine: list[Prediction], found: Matched, ambiguous: list[str]) -> None:
    """Give predictions to the samples that they all fit."""
    answers = {each.answer for each in mine}
    tasks = {sample.task for sample in candidates}
    alike = len({sample.same for sample in candidates}) == 1
    if not alike or (len(tasks) > 1 and (len(answers) > 1 or len(mine) != len(candidates))):
        names = ", ".join(map(str, candidates[:3])) + (" ..." if len(candidates) > 3 else "")
        ambiguous += [f"{_told(each)}: {names}" for each in mine]
        return
    if len(mine) > len(candidates):
        if len(answers) > 1:
            told = [f"{each.place}: {each.answer!r:.60}" for each in mine]
            _refuse(f"{len(mine):,} predictions differ about {candidates[0]}", told, "keep the one that is meant")
        found.duplicates += [_told(each) for each in mine[len(candidates) :]]
    # Samples of one task that ask the same of one picture: one prediction is the answer to all of them.
    mine = mine * len(candidates) if len(mine) == 1 else mine
    found.answers |= {sample.key: each for sample, each in zip(candidates, mine, strict=False)}


def _verify(found: Matched, by_key: Mapping[str, Sample], hint: str) -> None:
    """Hold questions and truths against the benchmark's."""
    wrong: dict[str, list[str]] = {"question": [], "truth": []}
    for key, each in found.answers.items():
        sample = by_key[key]
        checks = {
            "question": None if each.question is None else asks_same(sample, each.question),
            "truth": None if each.truth is None else true_same(sample, each.truth),
        }
        found.verified.update(name for name, agrees in checks.items() if agrees)
        theirs = {"question": each.question, "truth": each.truth}
        ours = {"question": sample.query, "truth": sample.target}
        for name, agrees in checks.items():
            if agrees is False:
                told = f"{each.place} is matched with {sample}: the file has {theirs[name]!r:.80}, the benchmark"
                wrong[name].append(f"{told} {ours[name]!r:.80}")
    for name, those in wrong.items():
        if those:
            advice = "the rows are shifted, or of another version or split of the data"
            _refuse(
                f"{len(those):,} of {len(found.answers):,} predictions have another {name} than the sample that they "
                f"are matched with (by {WAYS[found.way]})",
                those,
                f"{advice}; or {hint}" if hint and found.way != "position" else advice,
            )


def _refuse(sentence: str, told: Sequence[str], hint: str) -> NoReturn:
    raise PerpoError(f"{sentence}:\n  {listing(told)}", hint)


def _told(each: Prediction) -> str:
    named = [
        f"{name} {short_name(str(value))!r}"
        for name in ("sample_key", "id", "number", "image", "question")
        if (value := getattr(each, name)) is not None
    ]
    return f"{each.place} ({', '.join(named) or 'names nothing'})"


def _narrowed(candidates: list[Sample], each: Prediction) -> list[Sample]:
    """Of several candidates those with the prediction's id, question and truth; all of them where none has these."""
    if len(candidates) > 1 and each.id is not None:
        candidates = [sample for sample in candidates if each.id in sample.ids] or candidates
    if len(candidates) > 1 and each.question is not None:
        candidates = _asking(candidates, each.question) or candidates
    if len(candidates) > 1 and each.truth is not None:
        candidates = [sample for sample in candidates if true_same(sample, each.truth)] or candidates
    return candidates


def _asking(candidates: Iterable[Sample], question: str) -> list[Sample]:
    """Candidates whose query is in the question, and in no longer query that is in it too."""
    fitting = [sample for sample in candidates if asks_same(sample, question)]
    asked = words_of(question)
    exact = [sample for sample in fitting if asked in (words_of(sample.query), words_of(sample.asked))]
    return exact or _longest(fitting)


def _longest(fitting: list[Sample]) -> list[Sample]:
    queries = {words_of(sample.query) for sample in fitting}
    within = {one for one in queries for other in queries if one != other and f" {one} " in f" {other} "}
    return [sample for sample in fitting if words_of(sample.query) not in within]


def _tasks_of(predictions: Sequence[Prediction], samples: Sequence[Sample]) -> list[set[str] | None]:
    """For each prediction the tasks that it may be about; None for all.

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


def _finder(
    predictions: Sequence[Prediction], samples: Sequence[Sample], way: Way
) -> Callable[[Prediction], list[Sample]]:
    """Return what finds the samples that a prediction may be about."""
    if way == "position":
        return _in_order(predictions, samples)
    if way == "question":
        return _by_question(samples)
    index: dict[str, list[Sample]] = defaultdict(list)
    names_of = _NAMES[way]
    if way == "id" and numbered_by_llava(each.id for each in predictions):
        names_of = _NAMES["llava id"]
    for sample in samples:
        for name in names_of(sample):
            index[name].append(sample)
    if way == "image":
        return lambda each: _of_picture(each, index)
    if way == "truth":
        return lambda each: index[" ".join(str(each.truth).split())]
    return lambda each: index[str(getattr(each, way))]


_NAMES: dict[str, Callable[[Sample], list[str]]] = {
    "sample_key": lambda sample: [sample.key],
    "id": lambda sample: sample.ids,
    "llava id": lambda sample: sample.llava_ids,
    "number": lambda sample: [str(sample.number)],
    "image": lambda sample: [sample.image_sha256, *image_names(sample.image)],
    "truth": lambda sample: [" ".join(str(json.loads(sample.target)).split())],
}


def _of_picture(each: Prediction, index: Mapping[str, list[Sample]]) -> list[Sample]:
    name = next((name for name in image_names(each.image or "") if index.get(name)), None)
    shown = [] if name is None else index[name]
    if each.question is None or not any(sample.query for sample in shown):
        return shown
    return _asking(shown, each.question)


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
    limits = _tasks_of(predictions, samples)
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
