"""Boxes of one's own from JSON lines: every scale and form, in RefCOCO's columns, and what is refused."""

import base64
import json

import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image

from perpo.cli.data import main
from perpo.data.images import open_image
from perpo.prepare import own_rows

SIZE = (200, 100)
COLUMNS = [
    "question_id", "image", "question", "answer", "bbox", "iscrowd", "file_name", "image_id", "ref_id", "category_id",
]  # fmt: skip


@pytest.fixture
def run(tmp_path, noise):
    """Runs perpo-data jsonl --kind grounding on rows about one image of 200 x 100 pixels."""
    image = noise(tmp_path / "images" / "000000000042.png", 1, SIZE)

    def go(rows, *words, kind="grounding"):
        asked = [{} if "expression" in row else {"question": "Where is it?"} for row in rows]
        lines = [{"image": f"images/{image.name}"} | usual | row for usual, row in zip(asked, rows, strict=True)]
        (tmp_path / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        base = ["jsonl", "--file", str(tmp_path / "own.jsonl"), "--kind", kind, "--name", "q"]
        return main([*base, "--output", str(tmp_path / "out"), *words])

    return go


def test_rows_have_refcocos_columns_and_an_expression_or_a_question_each(run, tmp_path, capsys):
    rows = [
        {"answer": [10, 20, 60, 45.5], "expression": " the dog"},
        {"answer": "[0, 0, 200, 100]", "question_id": "x"},
    ]
    assert run(rows) == 0
    table = pq.read_table(tmp_path / "out" / "boxes_q.parquet")
    assert table.column_names == COLUMNS
    first, second = table.to_pylist()
    image = tmp_path / "images" / "000000000042.png"
    assert first.pop("image") == {"bytes": image.read_bytes(), "path": image.name}
    assert first == {
        "question_id": "0",
        "question": "",
        "answer": ["the dog"],
        "bbox": [10, 20, 50, 25.5],
        "iscrowd": None,
        "file_name": "000000000042.png",
        "image_id": 42,
        "ref_id": None,
        "category_id": None,
    }
    assert (second["question_id"], second["bbox"]) == ("x", [0, 0, 200, 100])
    assert (second["question"], second["answer"]) == ("Where is it?", None)
    metadata = json.loads(table.schema.metadata[b"perpo"])
    assert (metadata["kind"], metadata["counts"]) == (
        "grounding",
        {"rows": 2, "images": 1, "questions": 1, "expressions": 1},
    )
    assert "perpo-eval --suite grounding --data " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scale", "whole"), [("pixels", None), ("0-1", 1), ("0-1000", 1000), ("0-999", 999), ("percent", 100)]
)
@pytest.mark.parametrize("form", ["xyxy", "xywh", "yxyx"])
@pytest.mark.parametrize("write", [list, json.dumps, lambda numbers: " ".join(map(str, numbers))])
def test_every_scale_and_form_gives_pixels_of_the_image(run, tmp_path, scale, whole, form, write):
    x, y, width, height = 30.0, 10.0, 80.0, 45.0
    numbers = [x, y, width, height] if form == "xywh" else [x, y, x + width, y + height]
    if whole is not None:
        numbers = [number / side * whole for number, side in zip(numbers, SIZE * 2, strict=True)]
    if form == "yxyx":
        numbers = [numbers[k] for k in (1, 0, 3, 2)]
    words = [
        *(["--box_scale", scale] if scale != "pixels" else []),
        *(["--box_order", form] if form != "xyxy" else []),
    ]
    assert run([{"answer": write(numbers)}], *words) == 0
    (row,) = pq.read_table(tmp_path / "out" / "boxes_q.parquet").to_pylist()
    assert row["bbox"] == pytest.approx([x, y, width, height])


def test_a_box_may_lie_outside_by_a_hundredth_and_stays_as_it_is(run, tmp_path):
    assert run([{"answer": [-2, -1, 202, 101]}]) == 0
    (row,) = pq.read_table(tmp_path / "out" / "boxes_q.parquet").to_pylist()
    assert row["bbox"] == [-2, -1, 204, 102]


@pytest.mark.parametrize(
    ("answer", "words", "said"),
    [
        ([10, 20, 203, 50], [], "lies outside of the image (the image has 200 x 100 pixels)"),
        ([10, -1.1, 20, 50], [], "lies outside of the image"),
        ([150, 20, 60, 10], ["--box_order", "xywh"], "lies outside of the image"),
        ([0.1, 0.1, 1.02, 0.2], ["--box_scale", "0-1"], "lies outside of the image"),
        ([10, 20, 10, 50], [], "is an empty or inverted box"),
        ([10, 50, 20, 20], [], "is an empty or inverted box"),
        ([10, 20, 0, 5], ["--box_order", "xywh"], "is an empty or inverted box"),
        ([0.1, 0.1, 0.5, 0.6], [], "is a box smaller than a pixel"),
        ([1, 2, 3], [], "holds no box"),
        ([], [], "holds no box"),
        ([1, 2, 3, float("nan")], [], "holds no box"),
        ("the left one", [], "holds no box"),
        ("[1, 2, 3, 4] or [5, 6, 7, 8]", [], "holds 2 boxes instead of one"),
        (7, [], "expected text as `answer`, found 7"),
        (" ", [], "`answer` is empty"),
    ],
)
def test_what_is_no_true_box_is_refused_before_anything_is_written(run, tmp_path, capsys, answer, words, said):
    assert (
        run([{"answer": [1, 1, 9, 9] if "0-1" not in words else [0.1, 0.1, 0.2, 0.9]}, {"answer": answer}], *words) == 2
    )
    error = capsys.readouterr().err
    assert "own.jsonl, row 2: " in error
    assert said in error
    assert "hint: " in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"question": " "},
            "has neither of two fields: a question (`question`, asked as it is) and an expression",
        ),
        ({"expression": ""}, "has neither of two fields: a question"),
        ({"question": None}, "has neither of two fields: a question"),
        ({"question": "Where?", "expression": "it"}, "has both of two fields: a question"),
        ({"expression": ["it"]}, "expected text as `expression`, found ['it']"),
    ],
)
def test_a_row_asks_a_question_or_for_an_expression(run, capsys, row, said):
    assert run([{"answer": [1, 1, 9, 9]} | row]) == 2
    assert f"own.jsonl, row 1{': ' if 'expected' in said else ' '}{said}" in capsys.readouterr().err


def test_the_fields_of_question_and_expression_have_names_of_the_users(run, tmp_path, capsys):
    words = ["--question_field", "q", "--expression_field", "what"]
    assert run([{"answer": [1, 1, 9, 9], "q": "Where?"}, {"answer": [1, 1, 9, 9], "what": "it"}], *words) == 0
    table = pq.read_table(tmp_path / "out" / "boxes_q.parquet").to_pylist()
    assert [(row["question"], row["answer"]) for row in table] == [("Where?", None), ("", ["it"])]
    assert run([{"answer": "yes"}], "--expression_field", "what", kind="yesno") == 2
    assert "--expression_field has no effect with --kind yesno" in capsys.readouterr().err
    assert run([{"answer": "yes", "question": " "}], kind="yesno") == 2
    assert "`question` is empty, so the row asks nothing" in capsys.readouterr().err


def test_a_missing_image_is_refused(run, capsys):
    assert run([{"answer": [1, 1, 9, 9], "image": "nowhere.png"}]) == 2
    assert "1 of 1 images cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["yesno", "pages"])
@pytest.mark.parametrize("words", [["--box_scale", "pixels"], ["--box_order", "xyxy"]])
def test_flags_of_boxes_are_of_no_use_for_other_kinds(run, capsys, kind, words):
    assert run([{"answer": "yes"}], *words, kind=kind) == 2
    assert f"{words[0]} has no effect with --kind {kind}" in capsys.readouterr().err


def test_boxes_have_no_language(run, capsys):
    assert run([{"answer": [1, 1, 9, 9]}], "--language", "en") == 2
    assert "--language has no effect with --kind grounding" in capsys.readouterr().err


def test_a_box_can_be_read_alone():
    assert own_rows.read_box("(0.5, 0.5), (1, 1)", "0-1", "xyxy", SIZE) == [100, 50, 100, 50]
    with pytest.raises(ValueError, match="holds no box"):
        own_rows.read_box("", "pixels", "xyxy", SIZE)


@pytest.fixture
def phone(tmp_path):
    """A photograph of 40 x 30 pixels that is stored lying: upright, 30 x 40, a red block is at [3, 10, 10, 18]."""
    upright = Image.new("RGB", (30, 40), "white")
    upright.paste((200, 0, 0), (3, 10, 10, 18))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    # Orientation 6 is turned clockwise by a quarter to be upright.
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "images" / "000000000042.png", exif=exif)
    return tmp_path


def seen_in_box(folder):
    """The colours that the box of the first row holds, as everybody sees its picture."""
    row = pq.read_table(folder / "out" / "boxes_q.parquet").to_pylist()[0]
    x, y, width, height = map(int, row["bbox"])
    picture = open_image(row["image"]["bytes"])
    return picture.size, set(picture.crop((x, y, x + width, y + height)).getdata())


def test_a_box_that_was_drawn_on_the_upright_photograph_holds_what_it_was_drawn_on(run, phone, capsys):
    for size in ({}, {"width": 30, "height": 40}):
        assert run([{"answer": [3, 10, 10, 18]} | size], "--overwrite") == 0
        assert seen_in_box(phone) == ((30, 40), {(200, 0, 0)})
    assert "1 of 1 pictures are stored turned" in capsys.readouterr().err


def test_a_row_that_gives_the_stored_size_speaks_of_the_stored_pixels(run, phone):
    # Turned back by a quarter, x is y and y counts from the right: 30 - 10 to 30 - 3.
    assert run([{"answer": [10, 20, 18, 27], "width": 40, "height": 30}]) == 0
    assert seen_in_box(phone) == ((40, 30), {(200, 0, 0)})


@pytest.mark.parametrize("size", ["40,30", "40.0,30.0"])
def test_a_table_gives_the_stored_size_as_text(run, phone, size):  # run makes the folder of images
    (phone / "own.csv").write_text(
        f'image,question,answer,width,height\nimages/000000000042.png,Where?,"[10, 20, 18, 27]",{size}\n'
    )
    words = ["--file", str(phone / "own.csv"), "--kind", "grounding", "--name", "q", "--output", str(phone / "out")]
    assert main(["jsonl", *words]) == 0
    assert seen_in_box(phone) == ((40, 30), {(200, 0, 0)})


def test_a_row_that_gives_a_size_of_no_such_picture_is_refused(run, phone, capsys):
    assert run([{"answer": [3, 10, 10, 18], "width": 300, "height": 400}]) == 2
    assert "`width` and `height` are 300 x 400, but " in (said := capsys.readouterr().err)
    assert "000000000042.png has 30 x 40 pixels" in said


def test_a_picture_in_a_text_is_unpacked_and_a_damaged_one_refused_in_a_sentence(run, phone, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(phone / "cache"))
    data = base64.b64encode((phone / "images" / "000000000042.png").read_bytes()).decode()
    for text in (data, f"data:image/png;base64,{data}"):
        assert run([{"answer": [3, 10, 10, 18], "image": text}], "--overwrite") == 0
        assert seen_in_box(phone) == ((30, 40), {(200, 0, 0)})
    capsys.readouterr()
    assert run([{"answer": [1, 1, 9, 9], "image": f"data:image/png;base64,{data[:-3]}"}], "--overwrite") == 2
    assert "row 1: its image cannot be read: damaged or incomplete base64" in (said := capsys.readouterr().err)
    assert len(said) < 400


@pytest.mark.parametrize("identity", ["x" * 1001, "a\0b", True, [1], {"a": 1}, 1.5])
def test_a_question_id_that_no_table_takes_is_refused_in_a_sentence(run, phone, capsys, identity):
    assert run([{"answer": [1, 1, 9, 9], "question_id": identity}]) == 2
    said = capsys.readouterr().err
    assert "row 1: expected a number or a name of at most 1000 characters as `question_id`, found " in said
    assert len(said) < 400


def test_a_nul_character_is_refused(run, phone, capsys):
    assert run([{"answer": "[1, 1, 9, 9]\0"}]) == 2
    assert "row 1: `answer` holds a NUL character" in capsys.readouterr().err


def test_a_box_may_be_an_object_with_named_corners(run, tmp_path):
    assert run([{"answer": {"x1": 30, "y1": 10, "x2": 110, "y2": 55}}]) == 0
    (row,) = pq.read_table(tmp_path / "out" / "boxes_q.parquet").to_pylist()
    assert row["bbox"] == [30, 10, 80, 45]
