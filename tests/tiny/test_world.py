"""The tiny world: deterministic, disjoint splits, unambiguous expressions, RefCOCO's columns."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from perpo.tiny.world import (
    BENCHMARKS,
    LOOSE_SCALE,
    answer_text,
    benchmark_rows,
    loose_box,
    write_parquet,
    write_questions,
)
from perpo.tiny.world.expressions import FLAVOURS, expressions
from perpo.tiny.world.scenes import ROUND_KINDS, SIDE, Scene, Shape, draw, make_scene


def _pixels(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


def test_the_same_scene_is_drawn_every_time():
    assert make_scene("val", 3) == make_scene("val", 3)
    assert _pixels(draw(make_scene("val", 3))) == _pixels(draw(make_scene("val", 3)))


def test_splits_share_no_picture():
    seen = {split: {_pixels(draw(make_scene(split, k))) for k in range(60)} for split in ("train", "val", "test")}
    assert all(len(pictures) == 60 for pictures in seen.values())
    assert not seen["train"] & seen["val"]
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]


def test_no_two_scenes_of_different_splits_have_the_same_layout():
    layouts = [make_scene(split, k).shapes for split in ("train", "val", "test") for k in range(300)]
    assert len(set(layouts)) == len(layouts)


def test_boxes_are_the_extent_of_what_is_drawn():
    # One white shape on a picture drawn with and without it: the pixels that differ span its box.
    for kind in ("circle", "ring", "square", "triangle", "cross"):
        shape = Shape(kind, "white", "large", False, (20.3, 30.6, 50.2, 66.9))
        with_it, without = (draw(Scene("val", 0, shapes)) for shapes in ((shape,), ()))
        changed = np.abs(np.asarray(with_it, dtype=int) - np.asarray(without, dtype=int)).max(axis=2) > 60
        y, x = np.nonzero(changed)
        # A triangle's tip covers less than a third of its first rows.
        slack = 3 if kind == "triangle" else 1.5
        assert np.abs(np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) - shape.box).max() <= slack, kind


def _shape(kind, colour, x, y, size="small"):
    return Shape(kind, colour, size, False, (x - 8.0, y - 8.0, x + 8.0, y + 8.0))


def test_expressions_of_a_scene_done_by_hand():
    left, right, ring = _shape("circle", "red", 20, 50), _shape("circle", "red", 70, 50), _shape("ring", "blue", 70, 20)
    scene = Scene("val", 0, (left, right, ring))
    # Two equal circles: appearance alone cannot tell them apart.
    assert expressions(scene, left, "refshapes+") == []
    assert {"blue thing", "ring", "small blue ring"} <= set(expressions(scene, ring, "refshapes+"))
    assert "left circle" in expressions(scene, left, "refshapes")
    # Both circles are below the ring, the left one generously read, so nobody says "below the ring".
    assert "circle below the ring" not in expressions(scene, right, "refshapes")
    assert "the small blue ring in the upper right of the picture" in expressions(scene, ring, "refshapesg")


def test_a_generous_reading_that_fits_two_rules_an_expression_out():
    # Both circles are left of the ring, one of them only just: "circle left of the ring" is not said.
    ring, far, near = _shape("ring", "blue", 80, 40), _shape("circle", "red", 20, 40), _shape("circle", "red", 78, 80)
    texts = expressions(Scene("val", 0, (ring, far, near)), far, "refshapes")
    assert not any("left of" in text for text in texts)
    assert "left circle" in texts


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_flavours_keep_to_their_words(flavour):
    texts = [
        text
        for k in range(40)
        for s in make_scene("val", k).shapes
        for text in expressions(make_scene("val", k), s, flavour)
    ]
    spatial = {"left", "right", "top", "bottom", "above", "below", "nearest", "upper", "lower"}
    said = [bool(spatial & set(text.split())) for text in texts]
    if flavour == "refshapes+":
        assert not any(said)
    else:
        assert any(said)
    if flavour == "refshapesg":
        assert min(len(text.split()) for text in texts) >= 6


def test_an_expression_names_only_one_shape_of_its_picture():
    # No text may be said of two shapes of the same scene.
    for k in range(80):
        scene = make_scene("test", k)
        for flavour in FLAVOURS:
            said = [text for shape in scene.shapes for text in expressions(scene, shape, flavour)]
            assert len(said) == len(set(said))


def test_rows_have_the_columns_of_refcoco():
    for benchmark, splits in BENCHMARKS.items():
        for split in splits:
            for row in benchmark_rows(benchmark, split, images=12):
                assert {
                    "question_id",
                    "image",
                    "question",
                    "answer",
                    "segmentation",
                    "bbox",
                    "iscrowd",
                    "file_name",
                } <= set(row)
                assert row["image"].size == (SIDE, SIDE)
                assert 1 <= len(row["answer"]) <= 2
                shape = make_scene(row["question_id"].split("_")[0], row["image_id"]).shapes[row["object_id"]]
                x, y, w, h = row["bbox"]
                assert (x, y, x + w, y + h) == pytest.approx(shape.box)
                if split in ("testA", "testB"):
                    assert (shape.kind in ROUND_KINDS) == (split == "testA")


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="no split 'testC'"):
        next(benchmark_rows("refshapes", "testC"))
    with pytest.raises(ValueError, match="flavour"):
        expressions(make_scene("val", 0), make_scene("val", 0).shapes[0], "refcoco")


def test_loose_boxes_are_inflated_about_their_middle_for_the_declared_share():
    grown, all_of_them = 0, 0
    for k in range(300):
        scene = make_scene("train", k)
        for number, shape in enumerate(scene.shapes):
            box = loose_box(scene, number, 0.6)
            all_of_them += 1
            grown += box != shape.box
            x1, y1, x2, y2 = shape.box
            middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
            inflated = (
                middle_x - LOOSE_SCALE * (x2 - x1) / 2, middle_y - LOOSE_SCALE * (y2 - y1) / 2,
                middle_x + LOOSE_SCALE * (x2 - x1) / 2, middle_y + LOOSE_SCALE * (y2 - y1) / 2,
            )  # fmt: skip
            assert box == shape.box or box == pytest.approx(np.clip(inflated, 0, SIDE))
            assert loose_box(scene, number, 0.0) == shape.box
    # Binomial with p = 0.6: five standard errors.
    assert abs(grown / all_of_them - 0.6) < 5 * (0.24 / all_of_them) ** 0.5


def test_answers_are_written_as_llava_writes_them():
    assert answer_text((0.61 * SIDE, 0.1 * SIDE, 0.77 * SIDE, SIDE)) == "[0.61, 0.10, 0.77, 1.00]"


def test_questions_are_the_same_for_a_seed_and_differ_between_seeds(tmp_path):
    first, again, other = (
        write_questions(tmp_path / name, images=5, seed=seed).read_text()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert not {json.loads(x)["image_path"] for x in first.splitlines()} & {
        json.loads(x)["image_path"] for x in other.splitlines()
    }
    for line in map(json.loads, first.splitlines()):
        with Image.open(tmp_path / "a" / line["image_path"]) as image:
            assert image.size == (SIDE, SIDE)


def test_loose_and_exact_questions_differ_in_their_answers_only(tmp_path):
    exact, loose = (
        [json.loads(x) for x in write_questions(tmp_path / str(share), images=20, loose=share).read_text().splitlines()]
        for share in (0.0, 1.0)
    )
    assert [row["question"] for row in exact] == [row["question"] for row in loose]
    assert all(a["answer"] != b["answer"] for a, b in zip(exact, loose, strict=True))


def test_parquet_holds_the_rows_with_their_pictures(tmp_path):
    import io

    import pyarrow.parquet as pq

    file = write_parquet(benchmark_rows("refshapesg", "val"), tmp_path / "x" / "val.parquet")
    table = pq.read_table(file).to_pylist()
    row, expected = table[0], next(benchmark_rows("refshapesg", "val"))
    assert row["answer"] == expected["answer"]
    assert Image.open(io.BytesIO(row["image"]["bytes"])).tobytes() == expected["image"].tobytes()
    assert len(table) > 400
