"""perpo.boxes.text: boxes as models write them."""

from __future__ import annotations

import json
import time
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpo.boxes import BoxFormat, Order, Scale, format_box, parse_boxes
from perpo.boxes.text import numbers_in

BOX = (100, 200, 300, 400)
OTHER = (500, 500, 600, 600)


def boxes(text: str) -> list[tuple[float, ...]]:
    return [found.values for found in numbers_in(text)]


ONE = [
    '```json\n[\n\t{"bbox_2d": [100, 200, 300, 400], "label": "mug"}\n]\n```',
    '```json\n[\n\t{"bbox_2d": [100, 200, 300, 400], "label": "mu',
    '{"bbox_2d": [100, 200, 300, 400], "label": "mug"}\nThere it is.',
    "{'bbox_2d': [100, 200, 300, 400], 'label': 'mug'}",
    '{"bbox_2d": ["100", "200", "300", "400"], "label": "mug"}',
    '{"bbox": "100, 200, 300, 400"}',
    '{"objects": [{"box_2d": [[100, 200], [300, 400]]}]}',
    '{"answer": "The box is (100,200),(300,400)."}',
    '"{\\"bbox_2d\\": [100, 200, 300, 400]}"',
    '{"label": "bus 1, 2, 3, 4", "bbox_2d": [100, 200, 300, 400]}',
    '{"label": "bus 1, 2, 3, 4", "bbox_2d": [100, 200, 300, 400], "sub',
    "{'label': 'bus 1, 2, 3, 4', 'bbox': [100, 200, 300, 400]}",
    '<object label="bus 1, 2, 3, 4" bbox="100,200,300,400">',
    '{"label": "bus 1, 2, 3, 4", "position": [100, 200, 300, 400]}',
    '{"size": [1, 2, 3, 4], "bbox_2d": [100, 200, 300, 400]}',
    '{"x1": 100, "y1": 200, "x2": 300, "y2": 400}',
    '[{"label": "bus 1, 2, 3, 4", "xmin": "100", "ymin": 200, "xmax": 300, "ymax": 400}]',
    '{"label": "7 8 9 10", "left": 100, "top": 200, "right": 300, "bottom": 400',
    '{"x": 100, "y": 200, "width": 200, "height": 200}',
    '{"top_left": [100, 200], "bottom_right": [300, 400]}',
    "x1=100, y1=200, x2=300, y2=400",
    "x_min: 100px\ny_min: 200px\nx_max: 300px\ny_max: 400px",
    "<x1>100</x1><y1>200</y1><x2>300</x2><y2>400</y2>",
    "The picture has width=1000, height=1000. Left: 100, Top: 200, Right: 300, Bottom: 400",
    "top-left (100, 200) and bottom-right (300, 400)",
    "Top left: (100, 200), bottom right corner: (300, 400)",
    "from (100, 200) to (300, 400)",
    "(100,200)-(300,400)",
    "[100, 200] – [300, 400]",
    "from 100, 200 to 300, 400",
    "[(100, 200), (300, 400)]",
    "<ref>player 12, 34, 56, 78</ref><box>[[100, 200, 300, 400]]</box>",
    "<ref>player 12, 34, 56, 78</ref>[[100, 200, 300, 400]]",
    "<|object_ref_start|>1, 2, 3, 4<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>",
    "<|ref|>1, 2, 3, 4<|/ref|><|det|>[[100, 200, 300, 400]]<|/det|>",
    "Of 1, 2, 3, 4: <box>(100,200),(300,400)",
    "{<100><200><300><400>}",
    r"$\left[100, 200, 300, 400\right]$",
    r"\( (100,\, 200,\, 300,\, 400) \)",
    "［１００，２００，３００，４００］",
    "【100, 200, 300, 400】",
    "“100”, “200”, “300”, “400”",
    "[100px, 200px, 300px, 400 pixels]",
    "['100', '200', '300', '400']",
    "1. 100, 200, 300, 400",
    "1) (100,200),(300,400)",
    "<think>[500, 500, 600, 600] does not fit.</think><answer>[100, 200, 300, 400]</answer>",
    "<think>[500, 500, 600, 600]</think>\n```json\n[{\"bbox_2d\": [100, 200, 300, 400]}]\n```",
    "Let me see: [500, 500, 600, 600]?\nFinal answer: [100, 200, 300, 400]",
    r"[500, 500, 600, 600] or \boxed{[100, 200, 300, 400]}",
]  # fmt: skip


@pytest.mark.parametrize("text", ONE)
def test_one_box(text) -> None:
    assert boxes(text) == [BOX]


@pytest.mark.parametrize(
    "text",
    [
        "[[100, 200, 300, 400], [500, 500, 600, 600]]",
        "mugs<box>[[100, 200, 300, 400], [500, 500, 600, 600]]</box>",
        "<box>(100,200),(300,400)</box><box>(500,500),(600,600)</box>",
        "(100,200),(300,400),(500,500),(600,600)",
        '[{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [500, 500, 600, 600]}]',
        '[{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [500, 500, 600, 600]}, {"bbox_2d": [1, ',
        '{"boxes": [[100, 200, 300, 400], [500, 500, 600, 600]], "labels": ["a 1", "b"]}',
        "x1=100, y1=200, x2=300, y2=400; x1=500, y1=500, x2=600, y2=600",
        "1. 100, 200, 300, 400\n2. 500, 500, 600, 600",
        "1. [100, 200, 300, 400]\n2. [500, 500, 600, 600]",
    ],
)
def test_two_boxes(text) -> None:
    assert boxes(text) == [BOX, OTHER]


@pytest.mark.parametrize(
    "text",
    [
        "[[100, 200], [300, 200], [300, 400], [100, 400]]",
        "[(100, 200), (300, 250), (400, 400), (500, 500)]",
        "(100, 200), (300, 200), (300, 400), (100, 400)",
        "top-left (1, 2), top-right (3, 2), bottom-right (3, 4), bottom-left (1, 4)",
        "(100, 200), (300, 200), (200, 400)",
        '{"polygon": [[100, 200], [300, 250], [300, 400], [100, 450]]}',
        '{"bbox_2d": [[100, 200], [300, 250], [300, 400], [100, 450]]}',
        '[{"point_2d": [100, 200], "label": "a"}, {"point_2d": [300, 400], "label": "b"}]',
        '{"bbox_2d": null, "label": "bus 1, 2, 3, 4"}',
        '{"label": "bus 1, 2, 3, 4", "bbox_2d": [100, 200,',
        '{"label": "bus 1, 2, 3, 4"}',
        "<ref>player 12, 34, 56, 78</ref>",
        "<ref>player 12, 34, 56, 78</ref><box></box>",
        "[true, false, 1, 2]",
        "bottom-right (300, 400) and top-left (100, 200)",
        "width: 1000, height: 1000, x: 5, y: 6",
        "The image is 1000 x 1000, the centre (500, 500).",
        "<think>It could be [500, 500, 600, 600], or",
        "[" * 5000,
        "[100, 200, 300, 40",  # the last number may be cut
        "(100,200),(300,40",
        '[{"bbox_2d": [100, 200, 300, 40',
        '{"bbox_2d": ["100", "200", "300", "40',
    ],
)
def test_no_box(text) -> None:
    assert boxes(text) == []


def test_a_minus_of_any_kind() -> None:
    assert boxes("[−10, －20, -30, ﹣40]") == [(-10, -20, -30, -40)]


def test_names_win_over_the_declared_order() -> None:
    text = '{"ymin": 1, "xmin": 2, "ymax": 3, "xmax": 4}'
    for order in get_args(Order):
        np.testing.assert_array_equal(parse_boxes(text, scale="pixels", order=order), [[2, 1, 4, 3]])


def test_percent_signs_are_no_share_of_another_scale() -> None:
    (found,) = numbers_in("[61%, 10%, 77.5%, 54 %]")
    assert (found.values, found.percent) == ((61, 10, 77.5, 54), True)
    (quoted,) = numbers_in('{"bbox": ["61%", "10%", "77%", "54%"]}')
    assert quoted.percent
    as_json = '{"left": "61%", "top": "10%", "right": "77%", "bottom": "54%", "sure": 1}'
    for named in (as_json, "x1: 61%, y1: 10%, x2: 77 %, y2: 54%"):
        (found,) = numbers_in(named)
        assert (found.values, found.named, found.percent) == ((61, 10, 77, 54), True, True)
    (beside,) = numbers_in('{"x1": 61, "y1": 10, "x2": 77, "y2": 54, "sure": "95%"}')
    assert not beside.percent
    assert not any(found.percent for found in numbers_in("[61, 10, 77, 54]"))
    assert parse_boxes("[61%, 10%, 77%, 54%]", scale="0-1000") == []


whole = st.integers(0, 999)
corners = st.tuples(whole, whole, whole, whole).map(lambda c: (min(c[0], c[2]), min(c[1], c[3]), c[0] + 1, c[1] + 1))
WRITTEN = [
    "{}",
    "The box is {}.",
    "<think>Not [5, 6, 7, 8].</think><answer>{}</answer>",
    "<ref>number 7, 8, 9, 10</ref><box>{}</box>",
    '{{"label": "number 7, 8, 9, 10", "bbox_2d": {}}}',
    "```json\n{}\n```",
]


@given(st.lists(corners, min_size=1, max_size=1), st.sampled_from(WRITTEN), st.sampled_from(["0-1000", "0-999", "0-1"]))
def test_what_is_written_is_read_back(found, around, scale: Scale) -> None:
    size = (1000, 1000)
    form = BoxFormat(scale)
    (box,) = found
    written = format_box(box, form, size)
    (read,) = parse_boxes(around.format(written), scale=scale, image_size=size)
    # Two decimals are 10 pixels here, whole numbers one or less.
    np.testing.assert_allclose(read, box, atol=5.01 if scale == "0-1" else 0.51)


PIECES = [
    "[", "]", "(", ")", "{", "}", "<", ">", "1", "2.5", "-", "−", ",", " ", "\n", '"', "'", ":", "=", "x1", "y1", "x2",
    "y2", "bbox", '"bbox_2d":', "label", "to ", "and ", "bottom-right ", "<box>", "</box>", "<ref>", "</ref>", "\\",
    "\\left", "```", "px", "%", "1. ", "null", "１", "<think>", "</think>", "<answer>", "Answer:", "1e5", "<loc0001>",
]  # fmt: skip


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=40).map("".join)), st.booleans())
def test_no_text_makes_it_fail(text, bins) -> None:
    for found in numbers_in(text, bins=bins):
        assert len(found.values) == 4
        assert all(isinstance(number, float) for number in found.values)


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text()), st.lists))
def test_no_json_makes_it_fail(value) -> None:
    numbers_in(json.dumps({"bbox": value}))
    numbers_in(json.dumps(value))


LONG = ["[1,1,1,", "1 1a ", "(1,2)", "x1=1,", '"bbox":[', '{"a":', "\n1. ", '"bbox":"', "1. 2 3 4 5\n"]


@pytest.mark.parametrize("piece", [*PIECES, *LONG])
def test_time_is_in_proportion_to_the_length(piece) -> None:
    began = time.process_time()
    numbers_in(piece * (100_000 // len(piece)))
    # A quadratic reader would take minutes; this takes less than a fifth of a second.
    assert time.process_time() - began < 10
