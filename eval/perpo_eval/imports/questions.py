"""The question file that answers belong to, where these have only its numbers or its order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from perpo.data.images import listing
from perpo.data.rows import read_rows
from perpo.errors import PerpoError
from perpo_eval.imports.files import Prediction
from perpo_eval.imports.samples import words_of

_TEXTS = ("text", "question")
_SPLITS = ("category", "split")


def with_questions(predictions: Sequence[Prediction], path: Path) -> list[Prediction]:
    """Return predictions with the picture, the question and the split of the question that they answer.

    It is the one of their number; of predictions without numbers the one in their place.

    Args:
        predictions: All rows of the files.
        path: The questions: question_id, image, text (or question), and category (or split) where there is one.

    Raises:
        PerpoError: A file that is none, a number that it does not have, or another question than the answer's.
    """
    questions = list(read_rows(path))
    for number, row in enumerate(questions, start=1):
        if not isinstance(row, dict) or "image" not in row or _first(row, _TEXTS) is None:
            raise PerpoError(f"{path}, row {number} has no image or no text", "give question_id, image and text")
    numbered = all(each.id is not None for each in predictions)
    if numbered:
        by_id = {str(row.get("question_id")): row for row in questions}
        if len(by_id) < len(questions):
            raise PerpoError(f"{path} has a question_id twice, or none", "give each question its own")
        if strange := [f"{each.place} (id {each.id!r})" for each in predictions if each.id not in by_id]:
            raise PerpoError(
                f"{len(strange):,} predictions have an id that {path.name} lacks:\n  {listing(strange)}",
                "give the questions that were asked",
            )
        mine = [by_id[str(each.id)] for each in predictions]
    elif len(questions) != len(predictions):
        raise PerpoError(
            f"{path.name} has {len(questions):,} questions, and the files {len(predictions):,} rows without an id",
            "give the questions that were asked, in their order",
        )
    else:
        mine = questions
    other = [
        f"{each.place}: {each.question!r:.80}, not {_first(row, _TEXTS)!r:.80}"
        for each, row in zip(predictions, mine, strict=True)
        if each.question is not None and f" {words_of(str(_first(row, _TEXTS)))} " not in f" {words_of(each.question)} "
    ]
    if other:
        raise PerpoError(
            f"{len(other):,} predictions have another question than {path.name}:\n  {listing(other)}",
            "give the questions that were asked, in their order",
        )
    return [_joined(each, row) for each, row in zip(predictions, mine, strict=True)]


def _joined(each: Prediction, row: dict[str, Any]) -> Prediction:
    split = each.split if each.split is not None else _first(row, _SPLITS)
    # The numbers are those of the question file, and need not be the data set's.
    return replace(
        each,
        id=None,
        image=str(row["image"]),
        question=each.question if each.question is not None else str(_first(row, _TEXTS)),
        split=None if split is None else str(split),
        lent=each.question is None,
    )


def _first(row: dict[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
