"""perpo.results.box_readings: a run's boxes in every reading, and what has none."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from perpo.boxes import Resize
from perpo.errors import PerpoError
from perpo.results.box_readings import readings_table

USUAL = Resize(28, 56 * 56, 28 * 28 * 16384)


def run_of(responses: list[str | None], box_scale: str | None = "0-1") -> Any:
    """A run about a picture of 400 x 200 pixels, whose true box is [40, 20, 200, 120]."""
    task = SimpleNamespace(
        task="refcoco_val", benchmark="grounding", box_scale=box_scale, box_order="xyxy", box_frame="original"
    )
    rows = [
        {
            "task": "refcoco_val",
            "prompt": None,
            "response": response,
            "target": json.dumps([40, 20, 200, 120]),
            "image": {"width": 400, "height": 200},
        }
        for response in responses
    ]
    record = SimpleNamespace(name="mine", tasks=[task], generation={})
    return SimpleNamespace(record=record, samples=lambda columns: pa.Table.from_pylist(rows).select(columns))


def test_the_reading_that_fits_stands_first_and_the_declared_one_is_marked() -> None:
    table = readings_table(
        run_of(["[100, 100, 500, 600]", "[100, 100, 500, 100]", "no box", None]), USUAL, "qwen2_5_vl"
    )
    assert table.title == "mine: 3 answers, read in every way"
    # Thousandths of 400 x 200: the first answer is the true box, the second is empty, the third is none.
    assert table.rows[0] == ["", "0-1000", "xyxy", "original", "0.333", "33.3", "2", "2"]
    # Frames that give the same stand in one row, the declared one first.
    (declared,) = [row for row in table.rows if row[0] == "declared"]
    assert declared == ["declared", "0-1", "xyxy", "original, padded, cropped", "0.000", "0.0", "2", "0"]
    assert "3 answers are few: two readings may lie close together by chance." in table.notes


def test_a_run_without_boxes_or_without_a_word_of_how_they_were_read_is_refused() -> None:
    with pytest.raises(PerpoError, match="mine holds no answers about boxes"):
        readings_table(run_of([None]), USUAL, "qwen2_5_vl")
    with pytest.raises(PerpoError, match="does not say how its boxes were read") as caught:
        readings_table(run_of(["[1, 2, 3, 4]"], box_scale=None), USUAL, "qwen2_5_vl")
    assert "--rescore" in caught.value.hint
