"""From sampled answers to preference records: reward them, filter them, write each question's record."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perpo.boxes import box_problem, parse_box, same_box
from perpo.boxes.readings import Answered, other_reading
from perpo.data import PreferenceRecord
from perpo.data.truths import format_fields, row_format
from perpo.errors import PerpoError
from perpo.rewards import score
from perpo.rewards.asked import Asked, QuestionSet
from perpo.rewards.table import without_boxes
from perpo.sample.candidates import AnswerSet

if TYPE_CHECKING:
    from perpo.sample.arguments import SampleArguments


def rewarded(questions: QuestionSet, row: dict[str, Any]) -> AnswerSet:
    """Return a row of the journal with its rewards."""
    sample = questions.asked[row["id"]].sample
    scored = [score(questions.reward, row["opened"] + answer, sample["answer"], sample) for answer in row["answers"]]
    return AnswerSet(
        id=row["id"],
        answers=row["answers"],
        rewards=[s.reward for s in scored],
        readable=[s.readable for s in scored],
        truncated=row["truncated"],
        looped=row["looped"],
        reference_logps=row["reference_logps"],
    )


def filtered(sets: Sequence[AnswerSet], args: SampleArguments) -> list[AnswerSet]:
    """Return the answers that become records.

    Raises:
        PerpoError: None do.
    """
    kept = [answers for answers in sets if answers.margin() >= args.min_margin]
    if not kept:
        best = max(answers.margin() for answers in sets)
        raise PerpoError(
            f"no question has a margin of {args.min_margin} between the rewards of its best and worst finished "
            f"answers; the largest is {best:.3f}",
            "run the same command with a smaller --min_margin; the answers so far are kept",
        )
    return [answers.distinct() for answers in kept] if args.duplicates == "drop" else kept


def misread(questions: QuestionSet, rows: Sequence[dict[str, Any]]) -> str | None:
    """Return what the first answer to each question says of how boxes are written; see
    `perpo.boxes.readings`.
    """
    if questions.answer_format is None or questions.truth_format is None:
        return None
    first_answers = []
    for row in rows:
        asked = questions.asked[row["id"]]
        written = row_format(vars(asked.question), questions.truth_format)
        truth = parse_box(asked.question.answer, written, asked.image_size)
        if truth is not None:
            first_answers.append(Answered(row["opened"] + row["answers"][0], truth, asked.image_size))
    return other_reading(first_answers, questions.answer_format)


def _is_text(questions: QuestionSet, asked: Asked) -> bool:
    """Whether a truth that nobody declares to be a box is none: a reward of the user's may be about texts."""
    if questions.answer_format is None or questions.truth_format is not None:
        return False
    return box_problem(asked.question.answer, questions.answer_format, asked.image_size) is not None


def record_of(questions: QuestionSet, answers: AnswerSet, provenance: dict[str, Any]) -> PreferenceRecord:
    """Return the record of one question's answers, its truth written as the model writes boxes."""
    asked = questions.asked[answers.id]
    question, size = asked.question, asked.image_size
    # A record speaks of one way to write boxes, which is the model's.
    said = format_fields(questions.answer_format)
    if questions.truth_format is not None and questions.answer_format is not None:
        written = row_format(vars(question), questions.truth_format)
        truth = same_box(question.answer, written, questions.answer_format, size)
        question = dataclasses.replace(question, answer=truth)
    if without_boxes(questions.reward_name) or _is_text(questions, asked):
        said = {name: value if name == "box_frame" else None for name, value in said.items()}
    return PreferenceRecord(
        **vars(question) | said,
        answers_gen=answers.answers,
        rewards=answers.rewards,
        reward_name=questions.reward_name,
        truncated=answers.truncated,
        looped=answers.looped,
        reference_logps=answers.reference_logps,
        sampling=provenance,
    )
