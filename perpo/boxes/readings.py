"""Read the same answers in every way: a table of all, and a warning of another way than is declared. No torch.

What boxes mean is declared, and nothing here changes how they are read or scored. But a run whose boxes were written in
another scale, order or frame gets scores near 0 that look like a bad model's. So the same numbers are read in every
other way as well, and where one of them fits the truths far better, it is named. `every_reading` gives them all.
Neither decides anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perpo.boxes.formats import PARTS, BoxFormat, Frame, ImageSize, Order, Scale
from perpo.boxes.frames import iou, numbers_to_original, original_to_frame, parse_box

_MOST = 2000
"""So many answers are looked at, spread evenly over all."""
_FEWEST = 5
"""Fewer answers say nothing, and a reading has to turn so many misses into hits to be named."""
_HIT = 0.5
"""The IoU of an answer that is right."""
_OUTSIDE = 0.1
"""A run is warned of whose share of boxes outside of the declared scale is larger than this."""
_BEYOND = 0.05
"""How far a box may reach beyond the frame, as a share of its side, before it counts as outside of the scale: models
overshoot, and another scale lies far beyond."""
_MANY = 0.2
"""The least share of hits of a reading that is named. It also has at least twice as many as the declared one."""
_PART = 0.05
"""What a reading that changes one part more has to gain in mean IoU over one that changes fewer."""


@dataclass(frozen=True)
class Answered:
    """An answer that is to hold a box.

    Attributes:
        text: What was said.
        truth: The true box, x1 y1 x2 y2 in pixels of the original image.
        image_size: (width, height) of the original image in pixels.
    """

    text: str
    truth: ArrayLike
    image_size: ImageSize


@dataclass(frozen=True)
class ReadAs:
    """The answers in one reading.

    Attributes:
        boxes: The reading.
        overlaps: (n,) the IoU of each answer's first box with the truth; 0 where there is no box.
        readable: How many answers hold a box.
        inside: How many of these lie within the frame, but for a twentieth of its sides.
    """

    boxes: BoxFormat
    overlaps: NDArray[np.float64]
    readable: int
    inside: int

    @property
    def hits(self) -> int:
        """Return the number of answers that have an IoU of 0.5 or more."""
        return int((self.overlaps >= _HIT).sum())


def every_reading(answers: Sequence[Answered], boxes: BoxFormat) -> list[ReadAs]:
    """Return what each way to read the answers gives: the declared one first.

    Args:
        answers: The answers.
        boxes: How they are declared to be written. Pixels of a resized picture are a reading where it has the size.
    """
    numbers = {bins: _numbers(answers, bins=bins) for bins in (False, True)}
    places = _places(answers)
    readings = []
    for form in (boxes, *_forms(boxes)):
        read = _read(numbers[form.scale == "bins"], form, places)
        pairs = [(box, each) for box, each in zip(read, answers, strict=True) if not np.isnan(box).any()]
        outside = sum(_is_outside(box, each, form) for box, each in pairs)
        readings.append(ReadAs(form, _overlaps(read, answers), len(pairs), len(pairs) - outside))
    return readings


def other_reading(answers: Sequence[Answered], boxes: BoxFormat) -> str | None:
    """Return what is to be said of answers that do not seem to be written as declared.

    Counted are boxes that reach beyond the declared scale (by more than a twentieth of a side). Where fewer than half
    of the answers have an IoU of 0.5 or more, every other scale, order and frame is tried on the same numbers, and one
    is named if it has at least twice as many such answers, five more, and a fifth of all.

    Args:
        answers: The answers; 2,000 of them are looked at, spread evenly. They should be about different questions.
        boxes: How they are declared to be written.

    Returns:
        A sentence or two that name the flags; None where there is nothing to say, or fewer than five answers.
    """
    step = max(1, -(-len(answers) // _MOST))
    looked_at = answers[::step]
    if len(looked_at) < _FEWEST:
        return None
    first_boxes = [parse_box(each.text, boxes, each.image_size) for each in looked_at]
    outside = sum(
        _is_outside(box, each, boxes) for box, each in zip(first_boxes, looked_at, strict=True) if box is not None
    )
    readable = sum(box is not None for box in first_boxes)
    hits = int(
        (_overlaps(np.array([_NOTHING if box is None else box for box in first_boxes]), looked_at) >= _HIT).sum()
    )
    sentences = []
    if readable >= _FEWEST and outside > _OUTSIDE * readable:
        sentences.append(f"{outside} of {readable} boxes lie outside the declared scale {boxes.scale}")
    better = _better(looked_at, boxes, hits) if hits < len(looked_at) / 2 else None
    if better is not None:
        form, theirs = better
        flags = " ".join(f"--box_{part} {getattr(form, part)}" for part in _changed(form, boxes))
        sentences.append(
            f"{theirs} of {len(looked_at)} answers would have an IoU of {_HIT} or more if they were read with "
            f"{flags}, but only {hits} have it as declared"
        )
    return "; ".join([*sentences, "all boxes were read as declared"]) if sentences else None


_NOTHING = np.full(4, np.nan)


def _is_outside(box: NDArray, answer: Answered, boxes: BoxFormat) -> bool:
    shares = original_to_frame(box, boxes.frame, answer.image_size)
    return bool(shares.min() < -_BEYOND or shares.max() > 1 + _BEYOND)


def _overlaps(boxes: NDArray, answers: Sequence[Answered]) -> NDArray[np.float64]:
    return iou(boxes, np.array([each.truth for each in answers]))


def _better(answers: Sequence[Answered], boxes: BoxFormat, hits: int) -> tuple[BoxFormat, int] | None:
    """Of the readings that give many more hits than the declared one, that with the best mean IoU, and its hits."""
    numbers = {bins: _numbers(answers, bins=bins) for bins in (False, True)}
    places = _places(answers)
    best: tuple[float, BoxFormat, int] | None = None
    for form in _forms(boxes):
        overlaps = _overlaps(_read(numbers[form.scale == "bins"], form, places), answers)
        theirs = int((overlaps >= _HIT).sum())
        worth = float(overlaps.mean()) - _PART * len(_changed(form, boxes))
        if theirs >= max(2 * hits, hits + _FEWEST, _MANY * len(answers)) and (best is None or worth > best[0]):
            best = worth, form, theirs
    return best and best[1:]


def _places(answers: Sequence[Answered]) -> dict[ImageSize, list[int]]:
    """Which answers are about pictures of each size."""
    places: dict[ImageSize, list[int]] = {}
    for place, each in enumerate(answers):
        places.setdefault(each.image_size, []).append(place)
    return places


def _numbers(answers: Sequence[Answered], *, bins: bool) -> NDArray[np.float64]:
    """(n, 4) the numbers of each answer's first box as they are written; not a number where there is none."""
    form, whole = (BoxFormat("bins"), 1024.0) if bins else (BoxFormat("percent"), 100.0)
    first_boxes = [parse_box(each.text, form) for each in answers]
    return np.array([_NOTHING if box is None else box * whole for box in first_boxes])


def _read(numbers: NDArray, form: BoxFormat, places: Mapping[ImageSize, list[int]]) -> NDArray[np.float64]:
    boxes = np.empty_like(numbers)
    for size, mine in places.items():
        boxes[mine] = numbers_to_original(numbers[mine], form, size)
    return boxes


def _forms(boxes: BoxFormat) -> Iterator[BoxFormat]:
    """Every other way to write boxes, the more usual ones first."""
    for scale, order, frame in product(get_args(Scale), get_args(Order), get_args(Frame)):
        # Shares of a resized picture are those of the original.
        if frame == "resized" and (scale != "pixels" or boxes.resize is None):
            frame = boxes.frame if boxes.frame == "resized" and scale != "pixels" else None
        if frame is not None and (scale, order, frame) != (boxes.scale, boxes.order, boxes.frame):
            yield replace(boxes, scale=scale, order=order, frame=frame)


def _changed(form: BoxFormat, boxes: BoxFormat) -> list[str]:
    return [part for part in PARTS if getattr(form, part) != getattr(boxes, part)]
