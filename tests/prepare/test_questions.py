"""Questions to sample answers to, from training rows: asked and answered as the model's family does."""

import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from perpo.boxes import iou, parse_box
from perpo.cli.data import main
from perpo.common.arguments import parse_arguments
from perpo.data import check_images, read_questions
from perpo.data.images import open_image
from perpo.models.families import FAMILIES
from perpo.prepare.overlap.images import coco_number
from perpo.sample.arguments import SampleArguments


@pytest.fixture
def rows(refer, tmp_path):
    """refcoco_train.parquet of the small set."""
    words = ["refer", "--root", refer.root, "--images", refer.images, "--output", tmp_path, "--allow_other_counts"]
    assert main([str(word) for word in [*words, "--datasets", "refcoco", "--splits", "train"]]) == 0
    return tmp_path / "refcoco_train.parquet"


def _run(rows, images, output, *more):
    family = [] if "--family" in more else ["--family", "llava"]
    words = ["questions", "--rows", rows, "--images", images, *family, "--output", output, *more]
    return main([str(word) for word in words])


def test_every_expression_of_a_training_row_is_a_question(rows, refer, tmp_path, capsys):
    output = tmp_path / "train.jsonl"
    assert _run(rows, refer.images, output) == 0
    table = pq.read_table(rows).to_pylist()
    wanted = [(row, expression) for row in table for expression in row["answer"]]
    questions = read_questions(output)
    check_images(questions, refer.images)
    family = FAMILIES["llava"]
    for question, (row, expression) in zip(questions, wanted, strict=True):
        assert question.question == family.grounding_prompt.format(expression=expression)
        assert (question.image_path, question.image_id) == (row["file_name"], row["image_id"])
        # Two decimals of a side of 24 pixels: every edge is within half of 0.24 pixels.
        x, y, width, height = row["bbox"]
        box = parse_box(question.answer, family.box_format, (24, 16))
        assert box is not None
        np.testing.assert_allclose(box, [x, y, x + width, y + height], atol=0.1201)
        assert iou(box, [x, y, x + width, y + height]) > 0.85
    out, err = capsys.readouterr()
    assert f"{len(wanted)} questions about" in out
    program, *words = shlex.split(err.splitlines()[-1].removeprefix("perpo-data: sample with "))
    args = parse_arguments(SampleArguments, words, prog=program, description="")
    assert (Path(program).name, args.questions, args.image_root) == ("perpo-sample", str(output), str(refer.images))
    assert args.model == family.example


def test_what_cannot_be_asked_is_left_out_and_counted(rows, refer, tmp_path, capsys):
    table = pq.read_table(rows).to_pylist()
    table[0] |= {"answer": ["", "thing"]}
    table[1] |= {"bbox": [1.0, 1.0, 0.01, 0.01], "answer": ["speck"]}
    pq.write_table(pa.Table.from_pylist(table), rows)
    assert _run(rows, refer.images, tmp_path / "train.jsonl") == 0
    error = capsys.readouterr().err
    assert "1 left out: empty expressions" in error
    assert "1 left out: boxes that become empty when written as the family writes them" in error
    assert len(read_questions(tmp_path / "train.jsonl")) == sum(len(row["answer"]) for row in table) - 2


def test_a_question_of_ones_own_stays_as_it_is(rows, refer, tmp_path):
    table = pq.read_table(rows).to_pylist()[:2]
    table[0] |= {"answer": None, "question": "Where is the bench?"}
    table[1] |= {"answer": None, "question": " "}
    pq.write_table(pa.Table.from_pylist([*table, pq.read_table(rows).to_pylist()[2]]), rows)
    assert _run(rows, refer.images, tmp_path / "train.jsonl") == 0
    assert read_questions(tmp_path / "train.jsonl")[0].question == "Where is the bench?"
    assert not any(question.question.endswith(" ") for question in read_questions(tmp_path / "train.jsonl"))


def test_boxes_in_pixels_of_resized_pictures_say_their_bounds(rows, refer, tmp_path, capsys):
    """Of the family those of the hub's checkpoints, of a model its own; the pictures are 24 x 16 pixels large."""
    model = tmp_path / "qwen"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    (model / "model.safetensors").touch()
    processor = {"patch_size": 14, "merge_size": 2, "size": {"shortest_edge": 200704, "longest_edge": 1003520}}
    (model / "preprocessor_config.json").write_text(json.dumps(processor))
    base = ["questions", "--rows", str(rows), "--images", str(refer.images), "--output"]
    found = {}
    for flag, value in (("family", "qwen2_5_vl"), ("model", str(model))):
        assert main([*base, str(tmp_path / f"{flag}.jsonl"), f"--{flag}", value]) == 0
        found[flag] = read_questions(tmp_path / f"{flag}.jsonl")
        assert ("--model " + (value if flag == "model" else "Qwen/")) in capsys.readouterr().err  # who is asked next
    size = pq.read_table(rows).to_pylist()[0]["bbox"]
    for flag, bounds in (("family", (28, 3136, 12845056)), ("model", (28, 200704, 1003520))):
        first = found[flag][0]
        assert (first.box_scale, first.box_order, first.box_frame) == ("pixels", "xyxy", "resized")
        assert tuple(first.box_resize.values()) == bounds
        height, width = smart_resize(16, 24, *bounds)
        x, y, w, h = size
        scaled = np.array([x, y, x + w, y + h]) * ([width / 24, height / 16] * 2)
        np.testing.assert_allclose(json.loads(first.answer), scaled, atol=0.51)
    capsys.readouterr()
    for words in ([], ["--family", "llava", "--model", str(model)]):
        assert main([*base, str(tmp_path / "none.jsonl"), *words]) == 2
        assert "expected either --family or --model" in capsys.readouterr().err


def test_bad_input_is_refused_before_anything_is_written(rows, refer, tmp_path, capsys):
    output, other = tmp_path / "train.jsonl", tmp_path / "other.parquet"
    pq.write_table(pa.table({"question": ["?"]}), other)
    for arguments, message in [
        ((tmp_path / "none.parquet", refer.images, output), "there are no rows at"),
        ((other, refer.images, output), "has no column answer"),
        ((rows, tmp_path / "nowhere", output), "images cannot be used"),
        ((rows, refer.images, output, "--family", "lava"), "'lava' is not in the table of families"),
    ]:
        assert _run(*arguments) == 2
        assert message in capsys.readouterr().err
        assert not output.exists()
    assert _run(rows, refer.images, output) == 0
    assert _run(rows, refer.images, output) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("declared", [True, False])
def test_a_picture_of_coco_that_is_stored_turned_is_seen_as_it_is_stored(rows, refer, tmp_path, declared):
    table = pq.read_table(rows)
    name = table["file_name"][0].as_py()
    with Image.open(refer.images / name) as image:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        image.save(refer.images / name, exif=exif, quality=95)
    with Image.open(refer.images / name) as image:
        stored = np.asarray(image)
    if not declared:  # by an earlier version: what they are of says it
        said = json.loads(table.schema.metadata[b"perpo"])
        assert said.pop("orientation") == "stored"
        pq.write_table(table.replace_schema_metadata({b"perpo": json.dumps(said)}), rows)
    output = tmp_path / "train.jsonl"
    assert _run(rows, refer.images, output) == 0
    question = read_questions(output)[0]
    np.testing.assert_array_equal(np.asarray(open_image(refer.images / question.image_path)), stored)
    assert coco_number(question.image_path) == table["image_id"][0].as_py()
    x, y, width, height = table["bbox"][0].as_py()
    box = parse_box(question.answer, FAMILIES["llava"].box_format, (24, 16))
    np.testing.assert_allclose(box, [x, y, x + width, y + height], atol=0.1201)


@pytest.mark.parametrize("stored", [False, True])
def test_a_row_of_ones_own_about_stored_pixels_is_asked_about_them(tmp_path, stored):
    """A photograph of 40 x 30 pixels that is upright as 30 x 40; each box holds the red block in its own picture."""
    upright = Image.new("RGB", (30, 40), "white")
    upright.paste((200, 0, 0), (3, 10, 9, 18))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    row = {"image": "a.png", "question": "Where?", "answer": [3, 10, 9, 18]}
    row |= {"answer": [10, 21, 18, 27], "width": 40, "height": 30} if stored else {}
    (tmp_path / "own.jsonl").write_text(json.dumps(row))
    words = ["--file", str(tmp_path / "own.jsonl"), "--kind", "grounding", "--name", "q", "--output", str(tmp_path)]
    assert main(["jsonl", *words]) == 0
    assert _run(tmp_path / "boxes_q.parquet", tmp_path, tmp_path / "q.jsonl") == 0
    (question,) = read_questions(tmp_path / "q.jsonl")
    picture = open_image(tmp_path / question.image_path)
    assert picture.size == ((40, 30) if stored else (30, 40))
    box = parse_box(question.answer, FAMILIES["llava"].box_format, picture.size)
    assert set(picture.crop(tuple(box.round().astype(int))).getdata()) == {(200, 0, 0)}
