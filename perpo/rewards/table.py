"""The rewards: all that is known of each one that has a name, a row each. Needs no torch.

A new reward is a row here and the function that it names: of two boxes, of two texts, or of a text and unit tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rapidfuzz.distance import Levenshtein

from perpo.answers import answer_of, text_answer
from perpo.boxes import Box, BoxFormat, iou, parse_box
from perpo.data.truths import row_format
from perpo.texts.unit_tests import read_tests, share_passed

RewardFunction = Callable[[str, str, Mapping[str, Any]], float | None]
"""(prediction, truth, sample) -> a number in [0, 1], or None for an answer that can't be read.

Both texts come whole. The rewards of the table reward the answer alone (`perpo.answers.answer_of`, which a function of
the user's may call too) and cannot read a response whose thought never ends.
`sample` holds the question's fields (`image_path`, `question`, `answer`, `image_id`) and the image's
`image_size`, (width, height) in pixels.
"""
Truth = Literal["box", "text", "tests"]


@dataclass(frozen=True)
class Reward:
    """All that is known of one reward.

    Attributes:
        name: What `--reward`, `--eval_reward` and records call it.
        truth: What it compares. Truths of "box" must be boxes, and the model's way to write them must be known; "text"
            takes truths as they are, and whatever is said of how boxes are written has no meaning for it. "tests" takes
            a JSON list of unit tests of a page (`perpo.texts.unit_tests`), and boxes have no meaning for it either.
        compare: Gives how good an answer is: (said, wanted) -> a number in [0, 1], or None if one of them can't be
            read. Boxes come in pixels of the original image, answers without thoughts and marks, true texts whole, unit
            tests as a list.
        explained: What it is, in a few words for `--help`; "" where its name says it.
        acc_50: Whether a validation tells `acc_50` too, the share of rewards of 0.5 and more.
    """

    name: str
    truth: Truth
    compare: Callable[[Any, Any], float | None]
    explained: str = ""
    acc_50: bool = False

    def function(self, answers: BoxFormat | None, truths: BoxFormat | None) -> RewardFunction:
        """Return the reward as a function of whole responses.

        Args:
            answers: How the model writes boxes; not needed for texts.
            truths: How the truths do whose rows do not say it; likewise.
        """

        def of_texts(prediction: str, truth: str, sample: Mapping[str, Any]) -> float | None:
            said = text_answer(prediction, truth)
            return None if said is None else self.compare(said, truth)

        def of_tests(prediction: str, truth: str, sample: Mapping[str, Any]) -> float | None:
            said = answer_of(prediction, "text")
            try:
                return None if said is None else self.compare(said.strip(), read_tests(truth))
            except ValueError:
                return None

        if self.truth != "box":
            return of_texts if self.truth == "text" else of_tests
        assert answers is not None
        assert truths is not None

        def of_boxes(prediction: str, truth: str, sample: Mapping[str, Any]) -> float | None:
            size = sample["image_size"]
            said, wanted = parse_box(prediction, answers, size), parse_box(truth, row_format(sample, truths), size)
            return None if said is None or wanted is None else self.compare(said, wanted)

        return of_boxes


def _overlap(said: Box, wanted: Box) -> float:
    """IoU of the first boxes of both answers."""
    return float(iou(said, wanted))


def _likeness(said: str, wanted: str) -> float:
    """1 - Levenshtein distance (characters) / length of the longer answer; 1 if both are empty."""
    return Levenshtein.normalized_similarity(said, wanted)


_ROWS = (
    Reward("iou", "box", _overlap, acc_50=True),
    Reward("edit", "text", _likeness, explained="1 - normalised edit distance"),
    Reward("unit_tests", "tests", share_passed, explained="share of unit tests passed"),
)
REWARDS = {row.name: row for row in _ROWS}
"""The rewards by name, in the order of help texts."""


def truth_of(reward: str) -> Truth | None:
    """Return what a reward compares; None for one of the user's, of which nothing is known."""
    return REWARDS[reward].truth if reward in REWARDS else None


def without_boxes(reward: str) -> bool:
    """Return whether a reward is known to compare no boxes; one of the user's may."""
    return truth_of(reward) not in ("box", None)


def named(*, explained: bool = False) -> str:
    """Return what a reward may be given as, in words: "iou, edit or module:function"."""
    words = [f"{row.name} ({row.explained})" if explained and row.explained else row.name for row in _ROWS]
    return f"{', '.join(words)} or module:function"


def box_rewards() -> str:
    """Return the names of the rewards that compare boxes, in words."""
    return " or ".join(row.name for row in _ROWS if row.truth == "box")
