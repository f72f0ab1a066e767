"""perpo.data.truths: how rows say that their boxes are written, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perpo.boxes import BoxFormat, Resize
from perpo.data import Question
from perpo.data.truths import check_bounds, check_formats, format_fields, other_format, row_format, says_format
from perpo.errors import PerpoError
from perpo.models.families import FAMILIES

USUAL = BoxFormat("0-1", frame="padded")
TABLE = Resize(28, 3136, 12845056)
OTHER = Resize(28, 200704, 1003520)
QWEN = FAMILIES["qwen2_5_vl"].box_format
NOTHING: dict[str, str | None] = {"scale": None, "order": None, "frame": None}


def question(**fields: object) -> Question:
    return Question(image_path="a", question="?", answer="[1, 2, 3, 4]", image_id=1, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [family.box_format for family in FAMILIES.values()])
def test_what_a_format_writes_down_is_read_as_it(form: BoxFormat) -> None:
    fields = format_fields(form)
    assert says_format(fields)
    assert row_format(fields, replace(USUAL, resize=form.resize)) == form
    assert (fields["box_resize"] is not None) == (form.scale == "pixels" and form.frame == "resized")


def test_what_a_row_does_not_say_is_as_usual() -> None:
    assert format_fields(None) == dict.fromkeys(("box_scale", "box_order", "box_frame", "box_resize"))
    assert row_format({}, USUAL) == USUAL
    assert row_format({"box_frame": "original", "box_scale": None}, USUAL) == BoxFormat("0-1", frame="original")
    assert not says_format({"box_frame": "original"})
    with pytest.raises(PerpoError, match="there is no box scale '0-100'"):
        row_format({"box_scale": "0-100"}, USUAL)
    for bad in ({"factor": 28}, {"factor": 0, "min_pixels": 1, "max_pixels": 2}, {"factor": "28"}, [28, 1, 2]):
        with pytest.raises(PerpoError, match="expected factor, min_pixels, max_pixels as `box_resize`"):
            row_format({"box_resize": bad}, USUAL)


def test_records_in_another_format_than_the_familys_are_spoken_of() -> None:
    same = [question(), question(box_scale="0-1", box_frame="padded"), question(box_frame="original")]
    assert other_format(same, USUAL) is None
    assert other_format([question(box_scale="pixels")], None) is None
    said = other_format([*same, question(box_scale="pixels", box_frame="original")], USUAL)
    assert said is not None
    assert said.startswith(
        "1 of 4 records write boxes as scale pixels, order xyxy, frame original, but the model's family "
        "writes scale 0-1, order xyxy, frame padded. The model will learn the way of the records"
    )


def test_a_row_and_the_user_say_the_same_or_are_refused() -> None:
    rows = [question(), question(box_scale="pixels", box_frame="original")]
    check_formats(rows, USUAL, NOTHING, None)
    check_formats(rows, USUAL, NOTHING | {"scale": "pixels"}, None)
    with pytest.raises(PerpoError, match="question 2 says that the scale of its box is pixels, but the flag says 0-1"):
        check_formats(rows, USUAL, NOTHING | {"scale": "0-1"}, None)


def test_pixels_of_resized_pictures_need_their_bounds_where_the_model_has_others() -> None:
    own = replace(QWEN, resize=OTHER)
    check_formats([question()], QWEN, NOTHING, TABLE)  # a checkpoint like those on the hub
    check_formats([question()], own, NOTHING | {"frame": "resized"}, TABLE)  # the user knows
    check_formats([question(**format_fields(QWEN)), question(**format_fields(own))], own, NOTHING, TABLE)
    check_formats([question(box_scale="0-1000"), question(box_frame="original")], own, NOTHING, TABLE)
    with pytest.raises(PerpoError, match=r"question 2 does not say for which bounds .* \(200704 to 1003520 pixels"):
        check_formats([question(**format_fields(QWEN)), question()], own, NOTHING, TABLE)


def test_pixels_of_pictures_of_another_size_are_not_learnt() -> None:
    rows = [question(), question(**format_fields(QWEN))]
    check_bounds(rows, TABLE)
    for resize in (OTHER, None):
        with pytest.raises(PerpoError, match="record 2 counts pixels of pictures with 3136 to 12845056 pixels"):
            check_bounds(rows, resize)
