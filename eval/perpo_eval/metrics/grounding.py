"""Scores of one answer to "where is this?": a box against the true box. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from perpo.boxes import BoxFormat, ImageSize, iou, parse_box

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)

HIGHER_IS_BETTER: dict[str, bool] = {
    **{f"acc@{threshold}": True for threshold in THRESHOLDS},
    "iou": True,
    "parse_fail": False,
}
"""The scores of `score_box` and which way is better; each lies in [0, 1]."""


@dataclass(frozen=True)
class BoxScore:
    """What became of one answer.

    Attributes:
        prediction: The box as read, xyxy in pixels of the original image; None if none could be read.
        scores: A number in [0, 1] for each key of `HIGHER_IS_BETTER`.
    """

    prediction: list[float] | None
    scores: dict[str, float]


def score_box(response: str, target: list[float], image_size: ImageSize, box_format: BoxFormat) -> BoxScore:
    """Score an answer.

    An answer is right at threshold t if IoU >= t (the referring-expression papers use 0.5). One that
    holds no box is wrong at every threshold, has IoU 0, and counts as a parse failure.

    Args:
        response: What the model said.
        target: The true box, xyxy in pixels of the original image.
        image_size: (width, height) of the original image.
        box_format: How the model's family writes boxes.
    """
    box = parse_box(response, box_format, image_size)
    overlap = 0.0 if box is None else float(iou(box, target))
    scores = {f"acc@{threshold}": float(overlap >= threshold) for threshold in THRESHOLDS}
    scores |= {"iou": overlap, "parse_fail": float(box is None)}
    return BoxScore(None if box is None else [float(value) for value in box], scores)
