"""perpo.boxes: IoU, reading and writing, frames."""

from __future__ import annotations

import json
import time
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from perpo.boxes import (
    BoxFormat,
    Frame,
    ImageSize,
    Order,
    Resize,
    Scale,
    declared,
    format_box,
    frame_to_original,
    iou,
    original_to_frame,
    parse_box,
    parse_boxes,
    same_box,
    stored_box,
)
from perpo.errors import PerpoError

FRAMES = get_args(Frame)
LLAVA = BoxFormat("0-1")

coordinates = st.floats(-1000, 1000)
boxes = st.tuples(coordinates, coordinates, coordinates, coordinates)
grid_boxes = st.tuples(*[st.integers(0, 12)] * 4)
sizes = st.tuples(st.integers(1, 2000), st.integers(1, 2000))


def cells(box: tuple[int, int, int, int]) -> np.ndarray:
    """The unit cells that a box on a 12 x 12 grid covers."""
    grid = np.zeros((12, 12), dtype=bool)
    x1, y1, x2, y2 = box
    grid[y1:y2, x1:x2] = True
    return grid


@given(grid_boxes, grid_boxes)
def test_iou_counts_cells(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> None:
    union = (cells(a) | cells(b)).sum()
    expected = (cells(a) & cells(b)).sum() / union if union else 0.0
    assert iou(a, b) == pytest.approx(expected, abs=1e-15)


def test_iou_equals_pycocotools() -> None:
    mask = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0)
    a, b = (np.sort(random.uniform(0, 100, (2, 40, 2)), axis=0).transpose(1, 0, 2).reshape(40, 4) for _ in range(2))
    xywh = [np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], axis=1) for box in (a, b)]
    expected = mask.iou(*xywh, [0] * 40)
    np.testing.assert_allclose(iou(a[:, None], b[None]), expected, atol=1e-12)


@given(boxes, boxes)
def test_iou_is_symmetric_and_in_range(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    value = iou(a, b)
    assert 0.0 <= value <= 1.0
    assert value == iou(b, a)


@given(boxes)
def test_iou_of_a_box_with_itself(box: tuple[float, ...]) -> None:
    x1, y1, x2, y2 = box
    is_empty = max(x2 - x1, 0) * max(y2 - y1, 0) == 0  # inverted, or too thin for a float
    assert iou(box, box) == (0.0 if is_empty else 1.0)


@given(grid_boxes, grid_boxes, st.floats(0.5, 3), st.floats(0.5, 3), st.floats(-5, 5), st.floats(-5, 5))
def test_iou_does_not_change_when_both_are_moved_and_stretched(
    a: tuple[int, ...], b: tuple[int, ...], sx: float, sy: float, dx: float, dy: float
) -> None:
    # this is why a reward needs no image size
    move = lambda box: np.array(box) * [sx, sy, sx, sy] + [dx, dy, dx, dy]  # noqa: E731
    assert iou(move(a), move(b)) == pytest.approx(iou(a, b), abs=1e-9)


@pytest.mark.parametrize(
    "bad",
    [(5, 0, 1, 1), (0, 0, 0, 1), (np.nan, 0, 1, 1), (0, 0, np.inf, 1), (-np.inf, -np.inf, np.inf, np.inf)],
)
def test_iou_of_what_is_no_box_is_0(bad: tuple[float, ...]) -> None:
    assert iou(bad, (0, 0, 1, 1)) == 0.0
    assert iou(bad, bad) == 0.0


@pytest.mark.filterwarnings("error")
def test_iou_of_huge_and_minute_boxes_is_finite() -> None:
    huge, minute = (-1e300, -1e300, 1e300, 1e300), (0, 0, 1e-300, 1e-300)
    assert np.isfinite(iou([huge, minute, huge], [huge, minute, minute])).all()


def test_iou_broadcasts() -> None:
    one = np.array([0, 0, 2, 1])
    assert iou(np.tile(one, (3, 1, 1)), np.tile(one, (5, 1))).shape == (3, 5)
    assert iou(one, one).shape == ()
    assert iou(np.zeros((0, 4)), one).shape == (0,)


@pytest.mark.parametrize(
    "text",
    [
        "[0.61, 0.10, 0.77, 0.54]",
        "The box is [0.61,0.10,0.77,0.54].",
        "(0.61, 0.10, 0.77, 0.54)",
        "[.61, 1e-1, 7.7e-1, +.54]",
        "[0.61,\n 0.10,\n 0.77,\n 0.54]",
        "0.61 0.10 0.77 0.54",
        "0.61, 0.10, 0.77, 0.54.",
        "0.61\n0.10\n0.77\n0.54\n",
        "[0.61 0.10 0.77 0.54]",
        "[0.61; 0.10; 0.77; 0.54]",
        "(0.61, 0.10), (0.77, 0.54)",
        "[[0.61, 0.10], [0.77, 0.54]]",
        "[[0.61, 0.10, 0.77, 0.54]]",
        "<box>(0.61,0.10),(0.77,0.54)</box>",
        "<|box_start|>(0.61,0.10),(0.77,0.54)<|box_end|>",
        '```json\n[{"bbox_2d": [0.61, 0.10, 0.77, 0.54], "label": "cup 1"}]\n```',
        "坐标为[0.61，0.10，0.77，0.54]。",
        "坐标为0.61、0.10、0.77、0.54。",
        "Object 1 of 3: [0.61, 0.10, 0.77, 0.54]",
        "[0.61, 0.10, 0.77] is wrong; it is [0.61, 0.10, 0.77, 0.54]",
        "[0.61, 0.10, 0.77, 0.54], or perhaps [0.1, 0.2, 0.3, 0.4]",
    ],
)
def test_one_box_in_many_spellings(text: str) -> None:
    np.testing.assert_allclose(parse_box(text, LLAVA), [0.61, 0.10, 0.77, 0.54])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I see no such thing.",
        "[0.61, 0.10, 0.77]",
        "[0.61, 0.10, 0.77, 0.54, 0.99]",
        "[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]",
        "0.1 0.2 0.3 0.4 0.5",
        "(0.61, 0.10) and (0.77, 0.54)",
        "(0.61, 0.10, 0.77), (0.54)",
        "[61%, 10%, 77%, 54%]",
        "x1 y1 x2 y2",
        "1.2.3.4",
        "2024-01-02-03",
        "[1e999, 0, 1, 1]",
        "[nan, 0, 1, 1]",
    ],
)
def test_what_is_no_box(text: str) -> None:
    assert parse_box(text, LLAVA) is None


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2, 3, 4] [5, 6, 7, 8]",
        "(1,2),(3,4),(5,6),(7,8)",
        "1 2 3 4\n5 6 7 8",
        "a [1,2,3,4] b 9 c (5,6),(7,8)",
    ],
)
def test_several_boxes_come_in_order(text: str) -> None:
    found = parse_boxes(text, scale="pixels")
    np.testing.assert_array_equal(found, [[1, 2, 3, 4], [5, 6, 7, 8]])


def test_the_scale_is_never_guessed_and_a_box_never_mended() -> None:
    np.testing.assert_array_equal(parse_box("[61, 10, 77, 54]", LLAVA), [61, 10, 77, 54])
    np.testing.assert_array_equal(parse_box("[0.9, 0.9, 0.1, 0.1]", LLAVA), [0.9, 0.9, 0.1, 0.1])


@pytest.mark.parametrize(
    ("scale", "text", "unit"),
    [
        ("0-1", "[0.25, 0.5, 0.75, 1.0]", (0.25, 0.5, 0.75, 1.0)),
        ("0-1000", "[250, 500, 750, 1000]", (0.25, 0.5, 0.75, 1.0)),
        ("0-999", "[0, 333, 666, 999]", (0, 1 / 3, 2 / 3, 1.0)),
        ("percent", "[25, 50, 75.5, 100]", (0.25, 0.5, 0.755, 1.0)),
        ("bins", "<loc0256><loc0512><loc0768><loc1023> cup 1", (0.25, 0.5, 0.75, 1023 / 1024)),
    ],
)
def test_scales(scale: Scale, text: str, unit: tuple[float, ...]) -> None:
    np.testing.assert_allclose(parse_box(text, BoxFormat(scale)), unit)
    np.testing.assert_allclose(parse_box(text, BoxFormat(scale), (200, 100)), np.array(unit) * [200, 100, 200, 100])


def test_pixels_and_order() -> None:
    np.testing.assert_array_equal(parse_box("[1, 2, 3, 4]", BoxFormat("pixels", "yxyx"), (9, 9)), [2, 1, 4, 3])
    # 90 x 30 is padded by 30 above and below
    padded = BoxFormat("pixels", frame="padded")
    np.testing.assert_array_equal(parse_box("[10, 40, 20, 50]", padded, (90, 30)), [10, 10, 20, 20])
    np.testing.assert_array_equal(parse_box("[10, 40, 20, 50]", padded), [10, 40, 20, 50])


def test_a_corner_with_width_and_height() -> None:
    # Of 90 x 30 padded by 30 above and below, the corner moves with the frame and the sides do not.
    padded = BoxFormat("pixels", "xywh", "padded")
    np.testing.assert_array_equal(parse_box("[10, 40, 20, 5]", padded, (90, 30)), [10, 10, 30, 15])
    np.testing.assert_allclose(
        parse_box("[0.1, 0.2, 0.3, 0.4]", BoxFormat("0-1", "xywh"), (100, 200)), [10, 40, 40, 120]
    )
    # The width of 0.212 becomes 0.22, which leads to the corner that two corners name.
    assert format_box([12.5, 20, 33.7, 40], BoxFormat("0-1", "xywh"), (100, 100)) == "[0.12, 0.20, 0.22, 0.20]"
    assert format_box([12.5, 20, 33.7, 40], BoxFormat("0-1"), (100, 100)) == "[0.12, 0.20, 0.34, 0.40]"


def test_a_declared_part_takes_its_place_alone() -> None:
    form = BoxFormat("bins", "yxyx", "resized")
    assert declared(form) == form
    assert declared(form, scale="0-1000") == BoxFormat("0-1000", "yxyx", "resized")
    assert declared(form, scale="pixels", order="xywh", frame="original") == BoxFormat("pixels", "xywh", "original")
    with pytest.raises(PerpoError, match="pixels of a resized image need the size of that image"):
        declared(form, scale="pixels")
    with pytest.raises(PerpoError, match="no box order 'xyhw'"):
        declared(form, order="xyhw")  # type: ignore[arg-type]


def test_where_nothing_is_known_the_scale_has_to_be_declared() -> None:
    assert declared(None) is None
    assert declared(None, scale="percent") == BoxFormat("percent", "xyxy", "original")
    assert declared(None, scale="0-1", order="xywh", frame="padded") == BoxFormat("0-1", "xywh", "padded")
    with pytest.raises(PerpoError, match="not known"):
        declared(None, frame="original")


def test_a_box_is_written_again_only_in_another_format() -> None:
    thousandths = BoxFormat("0-1000", "yxyx")
    assert same_box("it is [0.1,0.2, 0.3,0.4]", LLAVA, LLAVA, (100, 200)) == "it is [0.1,0.2, 0.3,0.4]"
    assert same_box("it is [0.1,0.2, 0.3,0.4]", LLAVA, thousandths, (100, 200)) == "[200, 100, 400, 300]"


# The bounds of checkpoints that people use: (factor, smallest area, largest area).
BOUNDS = [(28, 3136, 12845056), *((28, low * 784, high * 784) for low, high in [(256, 1280), (64, 576), (100, 1024)])]
BOUNDS += [(32, 65536, 16777216)]


def libraries_size(size: ImageSize, bounds: tuple[int, int, int]) -> ImageSize:
    height, width = smart_resize(size[1], size[0], *bounds)
    return width, height


def test_a_picture_that_is_enlarged_gets_the_librarys_size() -> None:
    assert Resize(28, 256 * 784, 1280 * 784).size((225, 225)) == (448, 448)


@pytest.mark.parametrize("bounds", BOUNDS)
def test_every_shape_gets_the_librarys_size(bounds: tuple[int, int, int]) -> None:
    resize = Resize(*bounds)
    for side in range(1, 4097, 5):
        for ratio in (1, 1.01, 4 / 3, 1.5, 16 / 9, 2, 3, 4):
            size = side, min(4096, round(side * ratio))
            assert resize.size(size) == libraries_size(size, bounds)
            assert resize.size(size[::-1]) == libraries_size(size[::-1], bounds)


@given(st.integers(1, 5000), st.floats(1, 200), st.booleans(), st.sampled_from(BOUNDS))
def test_any_picture_gets_the_librarys_size(side: int, ratio: float, tall: bool, bounds: tuple[int, int, int]) -> None:
    size = (side, int(side * ratio))[:: -1 if tall else 1]
    assert Resize(*bounds).size(size) == libraries_size(size, bounds)


@pytest.mark.parametrize("size", [(1, 201), (4020, 20), (5000, 1)])
def test_a_shape_that_the_library_refuses_has_no_size(size: ImageSize) -> None:
    with pytest.raises(ValueError, match="aspect ratio"):
        libraries_size(size, BOUNDS[0])
    with pytest.raises(PerpoError, match=f"{size[0]} x {size[1]} pixels"):
        Resize(*BOUNDS[0]).size(size)


def test_bins_take_only_whole_fours() -> None:
    fmt = BoxFormat("bins", "yxyx")
    assert parse_box("<loc0001><loc0002><loc0003>", fmt) is None
    assert parse_box("[1, 2, 3, 4]", fmt) is None
    np.testing.assert_allclose(parse_box("<loc0001><loc0002><loc0003><loc0004>", fmt), np.array([2, 1, 4, 3]) / 1024)


def test_bad_formats_are_refused_by_name() -> None:
    with pytest.raises(PerpoError, match="no box scale '0-100'") as caught:
        BoxFormat("0-100")  # type: ignore[arg-type]
    assert "0-1000" in caught.value.hint
    with pytest.raises(PerpoError, match="no box frame 'pad'"):
        BoxFormat("0-1", frame="pad")  # type: ignore[arg-type]
    with pytest.raises(PerpoError, match="resized"):
        BoxFormat("pixels", frame="resized")


@pytest.mark.parametrize("text", ["1" * 20_000 + "x", "1 " * 20_000 + "x", "[1," * 7_000, "1\n" + " " * 20_000 + "x"])
def test_a_long_degenerate_answer_is_read_in_no_time(text: str) -> None:
    start = time.process_time()
    parse_boxes(text, scale="0-1")
    assert time.process_time() - start < 2.0


@given(st.text())
def test_any_text_gives_whole_finite_boxes_or_none(text: str) -> None:
    assert all(box.shape == (4,) and np.isfinite(box).all() for box in parse_boxes(text, scale="0-1"))


def test_written_as_llava_does() -> None:
    assert format_box([61.4, 20.2, 77, 108], LLAVA, (100, 200)) == "[0.61, 0.10, 0.77, 0.54]"


def test_what_lies_outside_the_frame_is_cut() -> None:
    # of 300 x 100, the centred 100 x 100 is seen: x from 100 to 200
    assert format_box([50, 20, 150, 80], BoxFormat("0-1", frame="cropped"), (300, 100)) == "[0.00, 0.20, 0.50, 0.80]"


@given(
    st.tuples(*[st.integers(0, 100)] * 4),
    sizes,
    st.sampled_from([scale for scale in get_args(Scale) if scale != "pixels"]),
    st.sampled_from(get_args(Order)),
    st.sampled_from(FRAMES),
)
def test_writing_and_reading_differ_by_the_rounding_only(
    hundredths: tuple[int, ...], size: ImageSize, scale: Scale, order: str, frame: Frame
) -> None:
    fmt = BoxFormat(scale, order, frame)  # type: ignore[arg-type]
    if order == "xywh":  # no bin is below zero, as the width of an inverted box would be
        hundredths = (min(hundredths[::2]), min(hundredths[1::2]), max(hundredths[::2]), max(hundredths[1::2]))
    box = frame_to_original(np.array(hundredths) / 100, frame, size)
    again = parse_box(format_box(box, fmt, size), fmt, size)
    assert again is not None
    step = {"0-1": 0.005, "percent": 0.005, "0-1000": 0.0005, "0-999": 0.5 / 999, "bins": 1 / 1024}[scale]
    difference = original_to_frame(again, frame, size) - original_to_frame(box, frame, size)
    assert np.abs(difference).max() <= step + 1e-9


@given(st.data(), sizes, st.sampled_from(["original", "padded"]), st.sampled_from(get_args(Order)))
def test_whole_pixels_come_back_exactly(data: st.DataObject, size: ImageSize, frame: Frame, order: str) -> None:
    width, height = size
    x, y = st.integers(0, width), st.integers(0, height)
    box = data.draw(st.tuples(x, y, x, y))
    fmt = BoxFormat("pixels", order, frame)  # type: ignore[arg-type]
    np.testing.assert_array_equal(parse_box(format_box(box, fmt, size), fmt, size), box)


@given(boxes, sizes, st.sampled_from(FRAMES))
def test_frames_convert_both_ways(box: tuple[float, ...], size: ImageSize, frame: Frame) -> None:
    there = original_to_frame(box, frame, size)
    np.testing.assert_allclose(frame_to_original(there, frame, size), box, atol=1e-8)


def drawn(size: ImageSize, box: tuple[int, int, int, int]) -> Image.Image:
    image = Image.new("L", size)
    image.paste(255, box)
    return image


@pytest.mark.parametrize("size", [(90, 31), (31, 90), (40, 40)])
def test_padded_is_where_llava_pastes_the_image(size: ImageSize) -> None:
    box = (3, 5, 21, 25)
    side = max(size)
    square = Image.new("L", (side, side))
    # LLaVA's expand2square: the margin is (difference // 2)
    square.paste(drawn(size, box), ((side - size[0]) // 2, (side - size[1]) // 2))
    np.testing.assert_allclose(original_to_frame(box, "padded", size) * side, square.getbbox())


@pytest.mark.parametrize("size", [(90, 30), (30, 90), (50, 50)])
def test_cropped_is_what_the_centre_crop_leaves(size: ImageSize) -> None:
    box = (size[0] // 2 - 6, size[1] // 2 - 9, size[0] // 2 + 12, size[1] // 2 + 3)
    large = drawn(size, box).resize((size[0] * 4, size[1] * 4), Image.Resampling.NEAREST)
    side = min(large.size)
    left, top = (large.width - side) // 2, (large.height - side) // 2
    seen = large.crop((left, top, left + side, top + side))
    np.testing.assert_allclose(original_to_frame(box, "cropped", size) * side, seen.getbbox())


def test_resized_is_stretched() -> None:
    seen = drawn((80, 20), (8, 5, 40, 15)).resize((100, 100), Image.Resampling.NEAREST)
    np.testing.assert_allclose(original_to_frame((8, 5, 40, 15), "resized", (80, 20)) * 100, seen.getbbox())


@pytest.mark.parametrize(
    "text",
    [
        None, "", "null", "no JSON", '"1234"', "[1, 2, 3]", "[1, 2, 3, 4, 5]", '["1", "2", "3", "4"]',
        "[true, 0, 1, 1]",
        "[NaN, 0, 1, 1]", "[1e999, 0, 1, 1]", f"[{'9' * 400}, 0, 1, 1]", "[[1, 2], [3, 4]]", '{"reference": "x"}',
    ],
)  # fmt: skip
def test_what_a_record_holds_is_no_box(text: str | None) -> None:
    assert stored_box(text) is None


def test_the_box_that_a_record_holds_is_read_as_it_is() -> None:
    assert stored_box(json.dumps([10.5, -2, 7, 3e3])) == (10.5, -2.0, 7.0, 3000.0)
