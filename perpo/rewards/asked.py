"""Questions with truths, read and checked once: for sampling and for validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpo.boxes import BoxFormat, ImageSize, declared
from perpo.data import Question, check_images, data_sha256
from perpo.data.images import image_size
from perpo.data.truths import check_formats, says_format
from perpo.models.answer_format import answer_format, usual_resize
from perpo.models.checkpoints import refused_pictures
from perpo.rewards.functions import check_truths, load_reward
from perpo.rewards.table import RewardFunction, truth_of, without_boxes


@dataclass(frozen=True)
class Asked:
    """A question that is asked, and what is known of its image."""

    question: Question
    image_size: ImageSize
    image_sha256: str

    @property
    def sample(self) -> dict[str, Any]:
        """Return what a reward function is given."""
        return vars(self.question) | {"image_size": self.image_size}


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """The questions of a file, checked, and what rewards their answers.

    Attributes:
        asked: The questions that are asked.
        image_root: Folder that their image paths start from.
        reward: What their answers are rewarded with.
        reward_name: Its name.
        of_file: All questions of the file.
        answer_format: How the model writes boxes; None where that is not known, and none are asked for.
        truth_format: How truths do whose row does not say it; None where truths are no boxes.
    """

    asked: list[Asked]
    image_root: Path
    reward: RewardFunction
    reward_name: str
    of_file: list[Question]
    answer_format: BoxFormat | None = None
    truth_format: BoxFormat | None = None

    @property
    def questions(self) -> list[Question]:
        """The questions that are asked, without what is known of their images."""
        return [each.question for each in self.asked]


def read_asked(
    model: str,
    reward_name: str,
    read: Callable[[], tuple[list[Question], Path]],
    *,
    answer_parts: Mapping[str, Any],
    truth_parts: Mapping[str, Any],
    limit: int | None = None,
) -> QuestionSet:
    """Read and check questions, their images, their truths and their reward; the model's weights are not touched.

    Truths are boxes if the reward compares boxes, if the user says how they are written, or if every row does; for a
    reward that compares texts the rows do not count.

    Args:
        model: As the user named it.
        reward_name: What answers are rewarded with.
        read: Gives all questions and their image root; called when model and reward are known to be right.
        answer_parts: What is declared of how answers write boxes, by part: scale, order, frame; None is nothing.
        truth_parts: The same of truths.
        limit: Ask the first so many questions only.

    Raises:
        PerpoError: The questions, their images or truths, or the reward cannot be used.
    """
    are_boxes = truth_of(reward_name) == "box" or any(truth_parts.values())
    answers = answer_format(model, **answer_parts, are_boxes=are_boxes)
    truths = declared(answers, **truth_parts)
    reward = load_reward(reward_name, answers, truths)
    questions, image_root = read()
    if not without_boxes(reward_name) and answers is not None:
        are_boxes = are_boxes or all(says_format(vars(question)) for question in questions)
    wanted = questions[:limit]
    if truths is not None and are_boxes:
        check_formats(wanted, truths, truth_parts, usual_resize(model))
    check_images(wanted, image_root, refused_pictures(model))
    asked = _asked_of(wanted, image_root)
    truths = truths if are_boxes else None
    check_truths(reward, (each.sample for each in asked), truths, answers)
    return QuestionSet(
        asked=asked,
        image_root=image_root,
        reward=reward,
        reward_name=reward_name,
        of_file=questions,
        answer_format=answers,
        truth_format=truths,
    )


def _asked_of(questions: Sequence[Question], image_root: Path) -> list[Asked]:
    """The questions with what is to be known of their images."""
    images: dict[str, tuple[ImageSize, str]] = {}
    for name in {question.image_path for question in questions}:
        path = image_root / name
        images[name] = image_size(path), data_sha256(path)
    return [Asked(question, *images[question.image_path]) for question in questions]
