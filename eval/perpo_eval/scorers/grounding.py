"""Scores of one answer to "where is this?": a box against the true box. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from perpo.boxes import Box, BoxFormat, Frame, ImageSize, iou, parse_box

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)

SCORES = (*(f"acc@{threshold}" for threshold in THRESHOLDS), "iou", "center_acc", "parse_fail")
"""The scores of every answer, each in [0, 1]; `perpo.benchmarks.metrics` says which way is better."""

SIZES: dict[str, float] = {"small": 32.0**2, "medium": 96.0**2, "large": float("inf")}
"""The areas, in pixels of the original image, below which an object is of a size: COCO's limits.

COCO counts an object with exactly the area of a limit twice; here it is of the larger size alone.
(`areaRng` in pycocotools' cocoeval.py; there the area is the segment's, here the box's.)
"""


@dataclass(frozen=True)
class BoxScore:
    """The score of one answer.

    Attributes:
        prediction: The box as read, xyxy in pixels of the original image; None if none could be read.
        scores: A number in [0, 1] for each key of `SCORES` and for `acc@0.5:<frame>` of each
            frame asked for; for `acc@0.5:<size>` (`SIZES`) a number at the true box's size, and None
            at the two sizes that it has not.
    """

    prediction: list[float] | None
    scores: dict[str, float | None]


def score_box(
    response: str, target: list[float], image_size: ImageSize, box_format: BoxFormat, frames: Sequence[Frame] = ()
) -> BoxScore:
    """Score an answer.

    An answer is right at threshold t if IoU >= t (the referring-expression papers use 0.5). One that
    holds no box is wrong at every threshold, has IoU 0, and counts as a parse failure. Of several
    boxes the first counts, whatever the others would have scored. `center_acc` is 1 if the centre of
    the box lies within the true one, its edge included; an empty or inverted box has no centre.

    Args:
        response: What the model said.
        target: The true box, xyxy in pixels of the original image.
        image_size: (width, height) of the original image.
        box_format: How the model's family writes boxes.
        frames: Frames in which the same numbers are read as well, for `acc@0.5:<frame>`: a model that
            means another frame than the declared one scores better there. For scales that count
            shares of the sides, `resized` equals `original`.

    Raises:
        PerpoError: Pixels of the resized frame, whose size is not known, or a frame that is none.
    """
    box = parse_box(response, box_format, image_size)
    overlap = _overlap(box, target)
    right = float(overlap >= 0.5)
    scores: dict[str, float | None] = {f"acc@{threshold}": float(overlap >= threshold) for threshold in THRESHOLDS}
    scores |= {"iou": overlap, "center_acc": _centre_within(box, target), "parse_fail": float(box is None)}
    size = _size(target)
    scores |= {f"acc@0.5:{name}": right if name == size else None for name in SIZES}
    for frame in frames:
        other = parse_box(response, replace(box_format, frame=frame), image_size)
        scores[f"acc@0.5:{frame}"] = float(_overlap(other, target) >= 0.5)
    return BoxScore(None if box is None else [float(value) for value in box], scores)


def _overlap(box: Box | None, target: list[float]) -> float:
    return 0.0 if box is None else float(iou(box, target))


def _centre_within(box: Box | None, target: list[float]) -> float:
    if box is None or not (box[2:] > box[:2]).all():
        return 0.0
    centre = (box[:2] + box[2:]) / 2
    true = np.asarray(target, dtype=np.float64)
    return float((true[:2] <= centre).all() and (centre <= true[2:]).all())


def _size(box: list[float]) -> str:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return next(name for name, limit in SIZES.items() if area < limit)
