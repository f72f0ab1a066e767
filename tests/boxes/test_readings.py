"""perpo.boxes.readings: what is said of boxes that were written in another way than declared, and what is not."""

from __future__ import annotations

import numpy as np
import pytest

from perpo.boxes import BoxFormat, format_box, iou, parse_box
from perpo.boxes.readings import Answered, every_reading, other_reading
from perpo.models.families import FAMILIES

LISTED = [(name, family.box_format) for name, family in FAMILIES.items()]


def truths(count: int, seed: int = 0) -> list[tuple[tuple[int, int], list[float]]]:
    """Pictures of all shapes, each with a box of 0.2 to 0.6 of its sides, somewhere."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        width, height = (int(side) for side in rng.integers(200, 900, 2))
        sides = rng.uniform(0.2, 0.6, 2)
        x, y = rng.uniform(0, 1 - sides)
        found.append(((width, height), [x * width, y * height, (x + sides[0]) * width, (y + sides[1]) * height]))
    return found


def written(form: BoxFormat, count: int = 20, noise: float = 0.0) -> list[Answered]:
    """Answers in a format, right but for a share of them that name another place."""
    rows, others = truths(count), truths(count, seed=1)
    wrong = int(noise * count)
    return [
        Answered(format_box(np.array(other if place < wrong else box), form, size), box, size)
        for place, ((size, box), (_, other)) in enumerate(zip(rows, others, strict=True))
    ]


@pytest.mark.parametrize(("name", "form"), LISTED)
def test_a_model_that_writes_as_declared_is_never_warned_of(name: str, form: BoxFormat) -> None:
    for count in (5, 20, 200):
        assert other_reading(written(form, count), form) is None
    assert other_reading(written(form, 200, noise=0.9), form) is None  # nor is a bad one


@pytest.mark.parametrize(
    ("form", "declared", "flags"),
    [
        (BoxFormat("0-1000"), "llava_next", "--box_scale 0-1000,"),
        (BoxFormat("pixels"), "llava_next", "--box_scale pixels,"),
        (BoxFormat("percent"), "llava_next", "--box_scale percent,"),
        (BoxFormat("0-1", "yxyx"), "llava_next", "--box_order yxyx,"),
        (BoxFormat("0-1", "xywh"), "llava_next", "--box_order xywh,"),
        (BoxFormat("bins", "yxyx"), "llava_next", "--box_scale bins --box_order yxyx,"),
        (BoxFormat("pixels"), "llava", "--box_scale pixels --box_frame original,"),
        (BoxFormat("0-1000", "yxyx"), "llava", "--box_scale 0-1000 --box_order yxyx --box_frame original,"),
        (BoxFormat("0-1"), "qwen3_vl", "--box_scale 0-1,"),
        (BoxFormat("pixels"), "qwen3_vl", "--box_scale pixels,"),
        (BoxFormat("0-1000", "yxyx"), "qwen3_vl", "--box_order yxyx,"),
        (BoxFormat("pixels", "xywh"), "qwen2_5_vl", "--box_order xywh"),
        (BoxFormat("0-1000"), "qwen2_5_vl", "--box_scale 0-1000,"),
        (BoxFormat("0-1"), "paligemma", "--box_scale 0-1 --box_order xyxy,"),
    ],
)
@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_another_reading_that_fits_is_named_by_its_flags(
    form: BoxFormat, declared: str, flags: str, noise: float
) -> None:
    said = other_reading(written(form, 40, noise), FAMILIES[declared].box_format)
    assert said is not None
    assert f"if they were read with {flags}" in said
    assert said.endswith("all boxes were read as declared")


def test_boxes_outside_of_the_scale_are_counted_even_if_no_reading_fits() -> None:
    answers = [Answered("[400, 400, 500, 500]", [0, 0, 10, 10], (100, 100))] * 2
    answers += [Answered("[0.4, 0.4, 0.5, 0.5]", [0, 0, 10, 10], (100, 100))] * 6 + [
        Answered("there", [0, 0, 1, 1], (9, 9))
    ]
    said = other_reading(answers, BoxFormat("0-1"))
    assert said == ("2 of 8 boxes lie outside the declared scale 0-1; all boxes were read as declared")
    # One in eleven, or a little too far, is what models do.
    assert other_reading(answers[:1] + answers[2:3] * 10, BoxFormat("0-1")) is None
    assert other_reading([Answered("[0.4, 0.4, 1.04, 1.04]", [0, 0, 1, 1], (9, 9))] * 9, BoxFormat("0-1")) is None


def test_few_answers_say_nothing() -> None:
    assert other_reading([], BoxFormat("0-1")) is None
    assert other_reading(written(BoxFormat("0-1000"), 4), BoxFormat("0-1")) is None
    assert other_reading(written(BoxFormat("0-1000"), 5), BoxFormat("0-1")) is not None


def test_answers_without_boxes_say_nothing() -> None:
    assert other_reading([Answered("I can't see it", [0, 0, 9, 9], (10, 10))] * 50, BoxFormat("0-1")) is None


def test_of_many_answers_some_are_looked_at_evenly() -> None:
    every_third = [Answered("[100, 100, 500, 500]", [10, 10, 50, 50], (100, 100))] * 6000
    for place in range(6000):
        if place % 3:
            every_third[place] = Answered("?", [0, 0, 1, 1], (100, 100))
    said = other_reading(every_third, BoxFormat("0-1"))
    assert said is not None
    assert "2000 of 2000 answers would have" in said


@pytest.mark.parametrize(("name", "form"), LISTED)
def test_every_reading_is_scored_as_it_would_be_if_it_were_declared(name: str, form: BoxFormat) -> None:
    answers = written(form, 40, noise=0.25)
    readings = every_reading([*answers, Answered("nothing", [0, 0, 9, 9], (10, 10))], BoxFormat("percent"))
    assert readings[0].boxes == BoxFormat("percent")
    assert len({each.boxes for each in readings}) == len(readings)
    for each in readings:
        read = [parse_box(answer.text, each.boxes, answer.image_size) for answer in answers]
        overlaps = [
            0.0 if box is None else float(iou(box, answer.truth)) for box, answer in zip(read, answers, strict=True)
        ]
        np.testing.assert_allclose(each.overlaps, [*overlaps, 0.0], atol=1e-9)
        assert each.hits == sum(overlap >= 0.5 for overlap in overlaps)
        assert each.readable == sum(box is not None for box in read)
    if form.resize is None:
        best = max(readings, key=lambda each: each.overlaps.mean())
        assert best.hits >= 30
        assert (best.boxes.order, best.boxes.scale[:3]) == (form.order, form.scale[:3])  # 0-1000 or 0-999
