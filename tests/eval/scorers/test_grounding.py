"""perpo_eval.scorers.grounding against pycocotools' IoU and the rule of the papers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask
from pycocotools.cocoeval import Params

from perpo.boxes import BoxFormat, Frame
from perpo.errors import PerpoError
from perpo_eval.scorers.grounding import SCORES, score_box

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
    sizes = {"acc@0.5:small": 0.0, "acc@0.5:medium": None, "acc@0.5:large": None}
    assert scored.scores == dict.fromkeys(SCORES, 0.0) | {"parse_fail": 1.0} | sizes
    framed = score_box(text, [0.0, 0.0, 10.0, 10.0], (100, 100), UNIT, ["original", "padded"])
    assert (framed.scores["acc@0.5:original"], framed.scores["acc@0.5:padded"]) == (0.0, 0.0)


def test_an_inverted_box_at_the_origin_is_wrong_but_read() -> None:
    scored = score_box("[0.5, 0.5, 0, 0]", [0.0, 0.0, 50.0, 50.0], (100, 100), UNIT)
    assert (scored.scores["iou"], scored.scores["parse_fail"]) == (0.0, 0.0)


def test_the_declared_frame_is_used() -> None:
    """The padded square of a 200 x 100 picture reaches 50 pixels above and below it."""
    padded = BoxFormat("0-1", frame="padded")
    scored = score_box("[0.00, 0.25, 1.00, 0.75]", [0.0, 0.0, 200.0, 100.0], (200, 100), padded)
    assert scored.scores["iou"] == pytest.approx(1.0)


def test_a_centre_at_the_edge_of_the_true_box_counts_and_one_beyond_it_does_not() -> None:
    """The centre of [10, 10, 30, 50] is (20, 30)."""
    text, size = "[0.10, 0.10, 0.30, 0.50]", (100, 100)
    assert score_box(text, [20.0, 30.0, 40.0, 60.0], size, UNIT).scores["center_acc"] == 1.0
    assert score_box(text, [20.1, 30.0, 40.0, 60.0], size, UNIT).scores["center_acc"] == 0.0
    assert score_box(text, [0.0, 0.0, 40.0, 29.9], size, UNIT).scores["center_acc"] == 0.0


@settings(max_examples=100, deadline=None)
@given(grid_box, grid_box)
def test_the_centre_against_pycocotools(said: tuple[int, ...], true: tuple[int, ...]) -> None:
    """A box around the centre that is far smaller than the grid overlaps the true one unless the centre is outside."""
    (x, y, w, h), (tx, ty, tw, th) = said, true
    text = f"[{x / 1000:.3f}, {y / 1000:.3f}, {(x + w) / 1000:.3f}, {(y + h) / 1000:.3f}]"
    found = score_box(text, [tx, ty, tx + tw, ty + th], (1000, 1000), UNIT).scores["center_acc"]
    dot = np.array([[x + w / 2 - 0.1, y + h / 2 - 0.1, 0.2, 0.2]])
    assert found == float(mask.iou(dot, np.array([[tx, ty, tw, th]], float), [0])[0, 0] > 0)


@pytest.mark.parametrize("text", ["[0, 0, 0, 0]", "[0.5, 0.5, 0, 0]", "no box", "[0, 0, 0, 0.5]"])
def test_nothing_at_the_origin_hits_a_true_box_there(text: str) -> None:
    """The places where a fallback to [0, 0, 0, 0], or an inverted box, would have scored."""
    assert score_box(text, [0.0, 0.0, 60.0, 60.0], (100, 100), UNIT).scores["center_acc"] == 0.0


@pytest.mark.parametrize(
    ("sides", "size"),
    [
        ((31.9, 32.0), "small"),
        ((32.0, 32.0), "medium"),
        ((10.0, 102.4), "medium"),
        ((95.9, 96.0), "medium"),
        ((96.0, 96.0), "large"),
        ((500.0, 400.0), "large"),
    ],
)
def test_the_size_is_the_true_boxes_in_pixels_of_the_original(sides: tuple[float, float], size: str) -> None:
    """Sides within a 640 x 480 picture, whatever the scale of the answer; COCO's limits are 32^2 and 96^2."""
    scored = score_box("[0, 0, 1, 1]", [10.0, 10.0, 10.0 + sides[0], 10.0 + sides[1]], (640, 480), UNIT)
    by_size = {name: scored.scores[f"acc@0.5:{name}"] for name in ("small", "medium", "large")}
    assert by_size == dict.fromkeys(by_size) | {size: scored.scores["acc@0.5"]}


def test_the_sizes_between_the_limits_are_cocos_own() -> None:
    """`Params` of pycocotools holds the limits; it admits an area on the limit to both sides."""
    labels, ranges = Params("bbox").areaRngLbl, Params("bbox").areaRng
    for side in (1.0, 31.0, 33.0, 60.0, 95.0, 97.0, 400.0):
        scores = score_box("[0, 0, 1, 1]", [0.0, 0.0, side, side], (500, 500), UNIT).scores
        inside = [n for n, (low, high) in zip(labels, ranges, strict=True) if low <= side**2 <= high and n != "all"]
        assert [name for name in ("small", "medium", "large") if scores[f"acc@0.5:{name}"] is not None] == inside


FRAMES: list[Frame] = ["original", "padded", "cropped", "resized"]


@pytest.mark.parametrize("meant", ["original", "padded", "cropped"])
@pytest.mark.parametrize("declared", ["original", "padded", "cropped"])
def test_a_false_frame_is_visible(meant: Frame, declared: Frame) -> None:
    """A 300 x 100 picture; the box is [110, 20, 140, 60], written by hand in each frame of 0-1."""
    texts = {  # the padded square is 300 wide and begins 100 above; the cropped one is 100 wide and begins at x = 100
        "original": "[0.3667, 0.2000, 0.4667, 0.6000]",
        "padded": "[0.3667, 0.4000, 0.4667, 0.5333]",
        "cropped": "[0.1000, 0.2000, 0.4000, 0.6000]",
    }
    box_format = BoxFormat("0-1", frame=declared)
    scores = score_box(texts[meant], [110.0, 20.0, 140.0, 60.0], (300, 100), box_format, FRAMES).scores
    by_frame = {frame: scores[f"acc@0.5:{frame}"] for frame in FRAMES}
    assert by_frame == {frame: float(frame == meant) for frame in FRAMES} | {"resized": float(meant == "original")}
    assert scores["acc@0.5"] == float(declared == meant)


def test_frames_of_a_square_picture_and_of_pixels() -> None:
    square = score_box("[100, 200, 300, 400]", [10.0, 20.0, 30.0, 40.0], (100, 100), BoxFormat("0-1000"), FRAMES)
    assert [square.scores[f"acc@0.5:{frame}"] for frame in FRAMES] == [1.0] * 4
    pixels = BoxFormat("pixels", frame="padded")  # of a 200 x 100 picture: 50 rows above it
    scores = score_box("[10, 70, 40, 110]", [10.0, 20.0, 40.0, 60.0], (200, 100), pixels, ["original", "padded"]).scores
    assert (scores["acc@0.5:original"], scores["acc@0.5:padded"]) == (0.0, 1.0)


def test_frames_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(PerpoError, match="resized image need the size of that image"):
        score_box("[1, 2, 3, 4]", [1.0, 2.0, 3.0, 4.0], (10, 10), BoxFormat("pixels"), ["resized"])
    with pytest.raises(PerpoError, match="no box frame 'paded'"):
        score_box("[1, 2, 3, 4]", [1.0, 2.0, 3.0, 4.0], (10, 10), UNIT, ["paded"])  # type: ignore[list-item]


def test_of_400_sprayed_boxes_the_first_counts() -> None:
    """One of them is the true box; taking the best of all would score 1 anywhere."""
    cells = [
        f"[{x / 20:.2f}, {y / 20:.2f}, {(x + 1) / 20:.2f}, {(y + 1) / 20:.2f}]" for y in range(20) for x in range(20)
    ]
    text = "It is at " + ", ".join(cells)
    last = score_box(text, [95.0, 95.0, 100.0, 100.0], (100, 100), UNIT, FRAMES).scores
    assert [last[name] for name in ("acc@0.5", "iou", "center_acc", "acc@0.5:original")] == [0.0] * 4
    first = score_box(text, [0.0, 0.0, 5.0, 5.0], (100, 100), UNIT).scores
    assert (first["acc@0.5"], first["center_acc"]) == (1.0, 1.0)
