"""Rewards: how good an answer is, in [0, 1], given the truth."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpo.boxes import BoxFormat, ImageSize, box_problem, parse_box, same_box
from perpo.common.hints import did_you_mean
from perpo.data.truths import row_format
from perpo.errors import PerpoError
from perpo.rewards.table import REWARDS, RewardFunction


@dataclass(frozen=True)
class Rewarded:
    """A reward in [0, 1], and whether the answer could be read (if not, the reward is 0)."""

    reward: float
    readable: bool


def load_reward(spec: str, answers: BoxFormat | None, truths: BoxFormat | None) -> RewardFunction:
    """Find a reward function by name.

    Args:
        spec: A name of `perpo.rewards.table`, or `module:function` for a function of the user's, which may be in
            the current folder.
        answers: How the model writes boxes; without it there are no rewards of boxes.
        truths: How the truths do whose rows do not say it.

    Raises:
        PerpoError: There is no such reward, or its module can't be imported.
    """
    usable = [row.name for row in REWARDS.values() if row.truth != "box" or (answers and truths)]
    if spec in usable:
        return REWARDS[spec].function(answers, truths)
    module, colon, function = spec.partition(":")
    if not (module and colon and function):
        raise PerpoError(f"there is no reward '{spec}'", did_you_mean(spec, [*usable, "module:function"]))
    return _checked(_imported(module, function), spec)


def score(reward: RewardFunction, prediction: str, truth: str, sample: Mapping[str, Any]) -> Rewarded:
    """Reward one answer; one that can't be read gets 0 and is marked."""
    value = reward(prediction, truth, sample)
    return Rewarded(0.0, readable=False) if value is None else Rewarded(value, readable=True)


def check_truths(
    reward: RewardFunction,
    samples: Iterable[Mapping[str, Any]],
    boxes: BoxFormat | None,
    answers: BoxFormat | None = None,
) -> None:
    """Reward every truth against itself, so that bad data or a broken function shows at once.

    Args:
        reward: The reward.
        samples: What the reward is given as `sample`, for each question.
        boxes: How the truths write boxes whose rows do not say it, if they must be boxes.
        answers: How the model would write them; None for as the truths do.

    Raises:
        PerpoError: A truth that the reward can't read or that is no box, or whatever the function raises.
    """
    for number, sample in enumerate(samples, start=1):
        truth = said = sample["answer"]
        problem = boxes and _truth_problem(truth, row_format(sample, boxes), sample["image_size"])
        if boxes and answers and not problem:
            said = same_box(truth, row_format(sample, boxes), answers, sample["image_size"])
        if not problem and reward(said, truth, sample) is None:
            problem = "cannot be read by this reward"
        if problem:
            raise PerpoError(
                f"question {number}: its truth {truth!r} {problem}",
                "correct the true answer, or choose a --reward that suits this data",
            )


def _truth_problem(truth: str, boxes: BoxFormat, size: ImageSize) -> str | None:
    """What keeps a truth from being a box; one of no pixel's size is one that was written in another scale."""
    if problem := box_problem(truth, boxes, size):
        return problem
    box = parse_box(truth, boxes, size)
    if box is not None and (box[2:] - box[:2] < 1).all():
        return f"holds a box that is smaller than a pixel in the scale {boxes.scale}"
    return None


def _imported(module: str, function: str) -> Callable[..., Any]:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that a file here can't shadow a library
    try:
        loaded = importlib.import_module(module)
    except Exception as error:
        raise PerpoError(
            f"the module '{module}' of the reward cannot be imported: {type(error).__name__}: {error}",
            f"run `python -c 'import {module}'` in this folder to see why",
        ) from error
    reward = getattr(loaded, function, None)
    if not callable(reward):
        names = [name for name in dir(loaded) if not name.startswith("_")]
        raise PerpoError(f"'{module}' has no function '{function}'", did_you_mean(function, names))
    return reward


def _checked(function: Callable[..., Any], spec: str) -> RewardFunction:
    """The user's function, with what it returns checked."""

    def reward(prediction: str, truth: str, sample: Mapping[str, Any]) -> float | None:
        try:
            value = function(prediction, truth, sample)
            number = None if value is None else float(value)
        except Exception as error:
            raise PerpoError(
                f"the reward function {spec} failed: {type(error).__name__}: {error}",
                "the function is called with (prediction, truth, sample) and must return a float in [0, 1] or None",
            ) from error
        if number is not None and not (math.isfinite(number) and 0.0 <= number <= 1.0):
            raise PerpoError(
                f"the reward function {spec} returned {number} for {prediction!r}",
                "a reward must be a finite number from 0 (worst) to 1 (best)",
            )
        return number

    return reward
