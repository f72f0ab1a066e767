"""perpo_eval.metrics.grounding against pycocotools' IoU and the rule of the papers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask

from perpo.boxes import BoxFormat
from perpo_eval.metrics.grounding import HIGHER_IS_BETTER, score_box

UNIT = BoxFormat("0-1")
corner, side = st.integers(0, 99), st.integers(1, 100)
grid_box = st.tuples(corner, corner, side, side)


@settings(max_examples=200, deadline=None)
@given(grid_box, grid_box)
def test_accuracy_is_iou_at_least_the_threshold(said: tuple[int, ...], true: tuple[int, ...]) -> None:
    """Boxes on a grid of 1/100 of a 200 x 100 picture, read from text, against pycocotools on xywh."""
    (x, y, w, h), (tx, ty, tw, th) = said, true
    text = f"[{x / 100:.2f}, {y / 100:.2f}, {(x + w) / 100:.2f}, {(y + h) / 100:.2f}]"
    target = [2.0 * tx, 1.0 * ty, 2.0 * (tx + tw), 1.0 * (ty + th)]
    scored = score_box(text, target, (200, 100), UNIT)
    expected = float(
        mask.iou(np.array([[2 * x, y, 2 * w, h]], float), np.array([[2 * tx, ty, 2 * tw, th]], float), [0])[0, 0]
    )
    assert scored.scores["iou"] == pytest.approx(expected, abs=1e-9)
    for threshold in (0.3, 0.5, 0.7, 0.9):
        if abs(expected - threshold) > 1e-9:
            assert scored.scores[f"acc@{threshold}"] == float(expected >= threshold)
    assert scored.prediction == pytest.approx([2 * x, y, 2 * (x + w), y + h])


def test_the_threshold_itself_counts() -> None:
    assert score_box("[0, 0, 0.5, 1]", [0.0, 0.0, 100.0, 100.0], (100, 100), UNIT).scores["acc@0.5"] == 1.0


@pytest.mark.parametrize("text", ["", "I cannot see it.", "[0.1, 0.2, 0.3]", "left"])
def test_an_answer_without_a_box_is_wrong_and_counted(text: str) -> None:
    scored = score_box(text, [0.0, 0.0, 10.0, 10.0], (100, 100), UNIT)
    assert scored.prediction is None
    assert scored.scores == dict.fromkeys(HIGHER_IS_BETTER, 0.0) | {"parse_fail": 1.0}


def test_an_inverted_box_at_the_origin_is_wrong_but_read() -> None:
    scored = score_box("[0.5, 0.5, 0, 0]", [0.0, 0.0, 50.0, 50.0], (100, 100), UNIT)
    assert (scored.scores["iou"], scored.scores["parse_fail"]) == (0.0, 0.0)


def test_the_declared_frame_is_used() -> None:
    """The padded square of a 200 x 100 picture reaches 50 pixels above and below it."""
    padded = BoxFormat("0-1", frame="padded")
    scored = score_box("[0.00, 0.25, 1.00, 0.75]", [0.0, 0.0, 200.0, 100.0], (200, 100), padded)
    assert scored.scores["iou"] == pytest.approx(1.0)
