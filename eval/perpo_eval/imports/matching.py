"""Predictions meet samples: each is matched with the one that it is about, or with none, and never with a wrong one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from perpo.data.images import listing, short_name
from perpo.errors import PerpoError
from perpo_eval.imports.files import Prediction, task_named
from perpo_eval.imports.finding import WAYS, Way, asking, finder, tasks_of
from perpo_eval.imports.samples import Sample, asks_same, true_same


@dataclass
class Matched:
    """Predictions, and what became of each.

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
    matched = Matched(way)
    groups: dict[tuple[str, ...], list[Prediction]] = defaultdict(list)
    candidates_of = finder(predictions, samples, way)
    by_key = {sample.key: sample for sample in samples}
    for each, allowed in zip(predictions, tasks_of(predictions, samples), strict=True):
        candidates = [sample for sample in candidates_of(each) if allowed is None or sample.task in allowed]
        groups[tuple(sample.key for sample in _narrowed(candidates, each))].append(each)
    matched.unmatched = [_told(each) for each in groups.pop((), [])]
    ambiguous: list[str] = []
    for keys, mine in groups.items():
        _assign([by_key[key] for key in keys], mine, matched, ambiguous)
    if ambiguous:
        _refuse(f"{len(ambiguous):,} predictions fit several samples each", ambiguous, hint or _SEVERAL)
    _verify(matched, by_key, hint)
    for key in list(matched.answers):
        if key not in wanted:
            del matched.answers[key]
            matched.beyond += 1
    matched.missing = [str(sample) for sample in samples if sample.key in wanted and sample.key not in matched.answers]
    matched.null = [str(by_key[key]) for key, each in matched.answers.items() if each.answer is None]
    return matched


_SEVERAL = (
    "name what tells them apart: --columns with image=, question=, truth= or split=; import one task at a time "
    "(--tasks); or --match position where rows are in the data set's order"
)


def _assign(candidates: list[Sample], mine: list[Prediction], matched: Matched, ambiguous: list[str]) -> None:
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
        matched.duplicates += [_told(each) for each in mine[len(candidates) :]]
    # Samples of one task that ask the same of one picture: one prediction is the answer to all of them.
    mine = mine * len(candidates) if len(mine) == 1 else mine
    matched.answers |= {sample.key: each for sample, each in zip(candidates, mine, strict=False)}


def _verify(matched: Matched, by_key: Mapping[str, Sample], hint: str) -> None:
    """Hold questions and truths against the benchmark's."""
    wrong: dict[str, list[str]] = {"question": [], "truth": []}
    for key, each in matched.answers.items():
        sample = by_key[key]
        checks = {
            "question": None if each.question is None else asks_same(sample, each.question),
            "truth": None if each.truth is None else true_same(sample, each.truth),
        }
        shown = ("truth",) if each.lent else ("question", "truth")
        matched.verified.update(name for name in shown if checks[name])
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
                f"{len(those):,} of {len(matched.answers):,} predictions have another {name} than the sample that they "
                f"are matched with (by {WAYS[matched.way]})",
                those,
                f"{advice}; or {hint}" if hint and matched.way != "position" else advice,
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
        candidates = asking(candidates, each.question) or candidates
    if len(candidates) > 1 and each.truth is not None:
        candidates = [sample for sample in candidates if true_same(sample, each.truth)] or candidates
    return candidates
