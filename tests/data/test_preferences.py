"""perpo.data, perpo.data.rows and perpo.data.images: what is read is checked, and what is bad is named."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from perpo.data import (
    PreferenceRecord,
    Question,
    check_images,
    data_sha256,
    read_preferences,
    read_questions,
    to_json,
    write_jsonl,
)
from perpo.data.placeholders import without_image
from perpo.errors import PerpoError
from perpo.models.families import FAMILIES

# The shape of the records that the method's authors published.
PUBLISHED = {
    "image_id": 1,
    "image_path": "COCO/train2014/1.jpg",
    "question": "<image>\nWhere is the glass?",
    "answer": "[0.61, 0.1, 0.77, 0.54]",
    "answers_gen": ["[0.61, 0.17, 0.77, 0.53]", "[0.26, 0.17, 0.48, 0.45]"],
    "iou_scores": [0.8003, 0],
}
EXPECTED = PreferenceRecord(
    image_path="COCO/train2014/1.jpg",
    question="Where is the glass?",
    answer="[0.61, 0.1, 0.77, 0.54]",
    image_id=1,
    answers_gen=["[0.61, 0.17, 0.77, 0.53]", "[0.26, 0.17, 0.48, 0.45]"],
    rewards=[0.8003, 0.0],
    reward_name="iou",
)
FULL = PreferenceRecord(
    image_path="b.png",
    question="Lies!",
    answer="Ä",
    image_id="b",
    answers_gen=["x", ""],
    rewards=[1.0, 0.25],
    reward_name="edit",
    truncated=[False, True],
    reference_logps=[-1.5, None],
    box_frame="original",
    sampling={"engine": "hf", "seed": 3},
)


def write_list(path: Path, rows: list[Any]) -> None:
    path.write_text(json.dumps(rows, indent=2))


def write_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path: Path, rows: list[Any]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def refusal(read: Callable[[], object]) -> PerpoError:
    with pytest.raises(PerpoError) as caught:
        read()
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value


def changed(**fields: Any) -> dict[str, Any]:
    """The published record with other fields; those that are None are dropped."""
    row = copy.deepcopy(PUBLISHED) | fields
    return {name: value for name, value in row.items() if value is not None}


def photograph(path: Path, size: tuple[int, int] = (64, 48)) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


# --- reading


@pytest.mark.parametrize(
    ("name", "write"),
    [("d.json", write_list), ("d.jsonl", write_lines), ("d.json", write_lines), ("d.parquet", write_parquet)],
)
def test_all_formats_give_the_same_records(tmp_path: Path, name: str, write: Callable[..., None]) -> None:
    path = tmp_path / name
    write(path, [PUBLISHED, changed(image_id=2)])
    assert read_preferences(path) == [EXPECTED, PreferenceRecord(**(vars(EXPECTED) | {"image_id": 2}))]


def test_every_optional_field_is_kept(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", [FULL])
    assert read_preferences(tmp_path / "d.jsonl") == [FULL]
    write_parquet(tmp_path / "d.parquet", [to_json(FULL), to_json(EXPECTED) | {"image_id": "1"}])
    first, second = read_preferences(tmp_path / "d.parquet")
    assert first == FULL
    assert second.truncated is None  # Parquet says null for what a row lacks


def test_a_byte_order_mark_and_empty_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(PUBLISHED).encode() + b"\r\n\n")
    assert read_preferences(path) == [EXPECTED]


def test_an_image_without_a_name_is_known_by_its_path(tmp_path: Path) -> None:
    write_lines(tmp_path / "d.jsonl", [changed(image_id=None)])
    assert read_preferences(tmp_path / "d.jsonl")[0].image_id == PUBLISHED["image_path"]


@pytest.mark.parametrize(("written", "read"), [(7.0, 7), ("7", "7"), (float("nan"), "COCO/train2014/1.jpg")])
def test_numbers_that_pandas_wrote_name_an_image(written: object, read: object, tmp_path: Path) -> None:
    write_lines(tmp_path / "d.jsonl", [changed(image_id=written)])
    assert read_preferences(tmp_path / "d.jsonl")[0].image_id == read


def test_what_a_model_said_may_spell_the_mark_of_another_model(tmp_path: Path) -> None:
    answers = ["<video>", "b"]
    write_lines(tmp_path / "d.jsonl", [changed(answers_gen=answers, sampling={"engine": "hf"})])
    assert read_preferences(tmp_path / "d.jsonl")[0].answers_gen == answers


def test_a_file_of_preferences_will_do_for_questions(tmp_path: Path) -> None:
    write_list(tmp_path / "d.json", [PUBLISHED])
    expected = Question(image_path=EXPECTED.image_path, question=EXPECTED.question, answer=EXPECTED.answer, image_id=1)
    assert read_questions(tmp_path / "d.json") == [expected]


# --- what is bad


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answers_gen": None}, "no sampled answers"),
        ({"answers_gen": []}, "no sampled answers"),
        ({"answers_gen": "[0, 0, 1, 1]"}, "no sampled answers"),
        ({"answers_gen": ["a", 5]}, "a text in `answers_gen`, found 5"),
        ({"iou_scores": None}, "expected a list as `rewards`, found None"),
        ({"iou_scores": [0.5]}, "2 answers but 1 `iou_scores`"),
        ({"iou_scores": None, "rewards": [0.5, 0.5, 0.5]}, "2 answers but 3 `rewards`"),
        ({"iou_scores": [float("nan"), 0]}, "found nan"),
        ({"iou_scores": [float("inf"), 0]}, "found inf"),
        ({"iou_scores": [1.01, 0]}, "found 1.01"),
        ({"iou_scores": [-0.1, 0]}, "found -0.1"),
        ({"iou_scores": [True, 0]}, "found True"),
        ({"iou_scores": ["0.5", 0]}, "found '0.5'"),
        ({"truncated": [False]}, "2 answers but 1 `truncated`"),
        ({"truncated": [0, 1]}, "true or false in `truncated`, found 0"),
        ({"reference_logps": [-1.0, float("nan")]}, "found nan"),
        ({"sampling": "at temperature 1"}, "expected an object as `sampling`, found 'at temperature 1'"),
        ({"question": None}, "text as `question`, found None"),
        ({"answer": 3}, "text as `answer`, found 3"),
        ({"image_path": None}, "text as `image_path`, found None"),
        ({"iou_scores": [10**400, 0]}, "a number from 0 to 1"),
        ({"question": "where\0?"}, "`question` holds a NUL character"),
        ({"image_path": "a\0.png"}, "`image_path` holds a NUL character"),
        ({"image_path": "x" * 256}, "cannot be the path of a file"),
        ({"image_path": "ü" * 128}, "cannot be the path of a file"),
        ({"image_path": "folder/" * 600}, "cannot be the path of a file"),
        ({"image_id": "x" * 1001}, "of at most 1000 characters as `image_id`"),
        ({"image_id": "x\0"}, "of at most 1000 characters as `image_id`"),
        ({"image_id": [1]}, "as `image_id`, found [1]"),
        ({"image_id": float("inf")}, "as `image_id`, found inf"),
        ({"box_frame": ["padded"]}, "expected text as `box_frame`"),
        ({"question": "<image> or <image>?"}, "a question holds placeholders of 2 pictures"),
        ({"question": "<video>where?"}, "a question holds <video>"),
        ({"answer": "<image>[0, 0, 1, 1]"}, "an answer holds <image>"),
        ({"answers_gen": ["a", "<image>"]}, "an answer holds <image>"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    path = tmp_path / "d.jsonl"
    write_lines(path, [PUBLISHED, changed(**fields), PUBLISHED])
    error = refusal(lambda: read_preferences(path))
    assert error.message.startswith(f"{path}, record 2: ")
    assert message in error.message


def test_a_nan_in_parquet_is_found_too(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d.parquet", [PUBLISHED, changed(iou_scores=[float("nan"), 0.0])])
    assert "record 2: " in refusal(lambda: read_preferences(tmp_path / "d.parquet")).message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f'[\n {json.dumps(PUBLISHED)},\n {{"b": }}\n]', "line 3: not JSON"),
        (f"[{json.dumps(PUBLISHED)}\n{json.dumps(PUBLISHED)}]", "line 2: not JSON: expected a comma"),
        (f"[{json.dumps(PUBLISHED)}\n,]", "line 2: not JSON"),
        (f"[{json.dumps(PUBLISHED)}]\n]", "line 1: not JSON: expected a comma or the list's end"),
        (f"{json.dumps(PUBLISHED)} {json.dumps(PUBLISHED)}\n", "line 1: not JSON: more than one value"),
        (f'{json.dumps(PUBLISHED)}\n\n{{"b": \n', "line 3: not JSON"),
        ("image,question\n", "line 1: not JSON"),
        ("", "holds no records"),
        ("[]", "holds no records"),
        ("[5]", "record 1: expected an object with named fields, found 5"),
        ('"text"\n', "record 1: expected an object with named fields"),
        (b"\xffa", "not UTF-8"),
        (b"\xff\xfe\x00", "not UTF-16"),
        ("[5]".encode("utf-16-le"), "holds NUL characters"),
        (b"PK\x03\x04 and more", "a zip archive or an Excel sheet"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
def test_what_is_no_data_file(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    error = refusal(lambda: read_preferences(path))
    assert message in error.message
    assert str(path) in error.message


def test_no_such_file_a_folder_and_a_broken_parquet(tmp_path: Path) -> None:
    assert "no such file" in refusal(lambda: read_preferences(tmp_path / "no.json")).message
    assert "cannot be loaded" in refusal(lambda: read_preferences(tmp_path)).message
    assert "no such file" in refusal(lambda: read_questions("no.jsonl")).message
    assert "no such file" in refusal(lambda: read_questions("./folder/no")).message
    (tmp_path / "d.parquet").write_bytes(b"PAR1 and no more")
    assert "not a Parquet file" in refusal(lambda: read_preferences(tmp_path / "d.parquet")).message


# --- data sets that hold their images


def embedded_rows() -> tuple[list[dict[str, Any]], bytes]:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, "PNG")
    rows = [{"image": {"bytes": buffer.getvalue(), "path": None}, "question": q, "answer": "a"} for q in ("1", "2")]
    return rows, buffer.getvalue()


def test_images_in_parquet_are_unpacked_once(tmp_path: Path) -> None:
    rows, png = embedded_rows()
    write_parquet(tmp_path / "d.parquet", rows)
    questions = read_questions(tmp_path / "d.parquet", unpack_to=tmp_path / "images")
    paths = {question.image_path for question in questions}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == png
    assert [part.suffix for part in (tmp_path / "images").iterdir()] == [".png"]
    check_images(questions, "elsewhere")  # the paths are absolute


def test_images_in_training_data_go_to_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows, png = embedded_rows()
    answers = {"answers_gen": ["a", "b"], "rewards": [1.0, 0.0], "image_path": "a/path/that/is/not/here.png"}
    write_parquet(tmp_path / "d.parquet", [row | answers for row in rows])
    first, second = read_preferences(tmp_path / "d.parquet")
    assert first.image_path == second.image_path
    assert Path(first.image_path).is_relative_to(tmp_path / "cache")
    assert Path(first.image_path).read_bytes() == png


def test_images_that_cannot_be_unpacked(tmp_path: Path) -> None:
    rows, png = embedded_rows()
    rows[1]["image"]["bytes"] = png[10:]
    write_parquet(tmp_path / "d.parquet", rows)
    error = refusal(lambda: read_questions(tmp_path / "d.parquet", unpack_to=tmp_path))
    assert "record 2: its image cannot be read" in error.message


@pytest.mark.parametrize("field", ["image", "image_path"])
@pytest.mark.parametrize("head", ["", "data:image/png;base64,"])
def test_images_in_texts_are_unpacked_or_refused_in_a_sentence(tmp_path: Path, field: str, head: str) -> None:
    png = photograph(tmp_path / "p.png").read_bytes()
    row = {"question": "q", "answer": "a", "answers_gen": ["a", "b"], "rewards": [1, 0]}
    text = head + base64.b64encode(png).decode()
    write_lines(tmp_path / "d.jsonl", [row | {field: text}])
    for read in (read_questions, read_preferences):
        (question,) = read(tmp_path / "d.jsonl", unpack_to=tmp_path / "images")
        assert Path(question.image_path).read_bytes() == png
    write_lines(tmp_path / "d.jsonl", [row | {field: text[:-5]}])
    error = refusal(lambda: read_questions(tmp_path / "d.jsonl", unpack_to=tmp_path / "images"))
    assert "record 1: its image cannot be read: damaged or incomplete base64" in error.message
    assert len(error.message) < 300


def test_a_box_may_be_a_list_of_numbers(tmp_path: Path) -> None:
    write_lines(tmp_path / "d.jsonl", [{"image": "a.png", "question": "where?", "answer": [30, 100, 100, 180]}])
    (question,) = read_questions(tmp_path / "d.jsonl")
    assert question.answer == "[30, 100, 100, 180]"


@pytest.mark.parametrize("image", ["a/b.jpg", {"bytes": None, "path": "a/b.jpg"}])
def test_an_image_column_may_hold_paths(tmp_path: Path, image: Any) -> None:
    write_lines(tmp_path / "d.jsonl", [{"image": image, "question": "q", "answer": "a"}])
    assert read_questions(tmp_path / "d.jsonl")[0].image_path == "a/b.jpg"


def test_hugging_face_data_sets(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "question": datasets.Value("string"), "answer": datasets.Value("string")}
    )
    rows, png = embedded_rows()
    data = datasets.Dataset.from_list(rows, features=features)
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"val": data, "test": data.select([1])}).save_to_disk(str(tmp_path / "two"))
    (tmp_path / "files").mkdir()
    data.to_parquet(str(tmp_path / "files" / "validation-00000.parquet"))

    def texts(name: str) -> list[str]:
        questions = read_questions(name, unpack_to=tmp_path / "images")
        assert all(Path(question.image_path).read_bytes() == png for question in questions)
        return [question.question for question in questions]

    assert texts(f"{tmp_path}/one") == ["1", "2"]
    assert texts(f"{tmp_path}/two:test") == ["2"]
    assert texts(f"{tmp_path}/files") == ["1", "2"]  # its only split
    error = refusal(lambda: texts(f"{tmp_path}/two"))
    assert "no split 'train'" in error.message
    assert "test, val" in error.hint


def test_a_data_set_of_pairs_with_their_pictures_in_lists(tmp_path: Path) -> None:
    import datasets

    png = embedded_rows()[1]
    features = {"images": datasets.List(datasets.Image())} | dict.fromkeys(
        ("question", "chosen", "rejected"), datasets.Value("string")
    )
    row = {"images": [{"bytes": png, "path": None}], "question": "q", "chosen": "a", "rejected": "b"}
    datasets.Dataset.from_list([row], features=datasets.Features(features)).save_to_disk(str(tmp_path / "set"))
    (record,) = read_preferences(tmp_path / "set", unpack_to=tmp_path / "images")
    assert (record.answers_gen, record.rewards) == (["a", "b"], [1.0, 0.0])
    assert Path(record.image_path).read_bytes() == png


def test_a_data_set_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "cannot be loaded" in refusal(lambda: read_questions(tmp_path / "empty")).message


# --- writing


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
shares = st.floats(0, 1)


@given(
    st.lists(st.lists(st.tuples(texts, shares), min_size=1, max_size=4), min_size=1, max_size=3),
    texts.filter(lambda text: text.strip()),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_written_and_read_back(tmp_path: Path, lists: list[list[tuple[str, float]]], text: str) -> None:
    records = [
        PreferenceRecord(
            image_path="a",
            question=without_image(text),
            answer=text,
            image_id=7,
            answers_gen=[answer for answer, _ in answers],
            rewards=[reward for _, reward in answers],
            reward_name="edit",
        )
        for answers in lists
    ]
    write_jsonl(tmp_path / "d.jsonl", records)
    assert read_preferences(tmp_path / "d.jsonl") == records


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question": ""}, "record 1: its `question` is empty"),
        ({"question": "<image>\n "}, "record 1: its `question` is empty"),
        ({"answer": " "}, "record 1: its `answer`, the true answer, is empty"),
        ({"question": None}, "record 1: expected text as `question`, found None"),
        ({"question": None, "expression": "the dog"}, "its `expression` is given, but it is not known how to ask"),
        ({"box_scale": 7}, "record 1: expected text as `box_scale`, found 7"),
        ({"box_resize": "28"}, "record 1: expected an object as `box_resize`, found '28'"),
        ({"answer": ["the dog"], "bbox": [1, 2, 3, 4]}, "record 1: it is a row of boxes for perpo-eval"),
    ],
)
def test_what_asks_nothing_or_has_no_truth_is_refused(tmp_path: Path, change: dict, said: str) -> None:
    (tmp_path / "d.json").write_text(json.dumps([PUBLISHED | change]))
    for read in (read_questions, read_preferences):
        assert said in refusal(lambda read=read: read(tmp_path / "d.json")).message


def test_an_expression_is_asked_for_with_the_familys_prompt(tmp_path: Path) -> None:
    row = {"image_path": "a", "answer": "[0, 0, 1, 1]"}
    rows = [row | {"expression": " the {dog} "}, row | {"question": "Where?", "expression": "the dog"}]
    (tmp_path / "d.json").write_text(json.dumps(rows))
    questions = read_questions(tmp_path / "d.json", grounding_prompt="detect {expression}")
    assert [question.question for question in questions] == ["detect the {dog}", "Where?"]


def test_only_what_is_known_is_written() -> None:
    assert set(to_json(EXPECTED)) == set(PUBLISHED) - {"iou_scores"} | {"rewards", "reward_name"}


def test_the_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(b"data")
    assert data_sha256(path) == hashlib.sha256(b"data").hexdigest()


def test_the_sha256_of_a_folder_sees_names_and_contents(tmp_path: Path) -> None:
    def digest(files: dict[str, str]) -> str:
        folder = Path(tmp_path, str(len(list(tmp_path.iterdir()))))
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return data_sha256(folder)

    first = digest({"a": "1", "b/c": "2"})
    assert first == digest({"b/c": "2", "a": "1"})
    assert len({first, digest({"a": "1", "b/d": "2"}), digest({"a": "1", "b/c": "3"}), digest({"a": "1"})}) == 4
    assert "no data at" in refusal(lambda: data_sha256(tmp_path / "none")).message
    assert data_sha256(f"{tmp_path / '0'}:train") == first
    assert "load_dataset('owner/name', split='val').to_parquet" in refusal(lambda: data_sha256("owner/name:val")).hint


# --- images


def questions_of(*paths: str) -> list[Question]:
    return [Question(image_path=path, question="", answer="", image_id=path) for path in paths]


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp"])
def test_a_truncated_image_is_found(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # a library that was imported may have made Pillow tolerant; the check must not be
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = photograph(tmp_path / f"whole.{suffix}")
    check_images(questions_of(whole.name), tmp_path)
    content = whole.read_bytes()
    for share in (0.3, 0.6, 0.9):
        (tmp_path / f"cut.{suffix}").write_bytes(content[: int(len(content) * share)])
        error = refusal(lambda: check_images(questions_of(whole.name, f"cut.{suffix}"), tmp_path))
        assert error.message.startswith(f"1 of 2 images cannot be used:\n  cut.{suffix}: ")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True  # left as it was


def test_a_shape_that_the_family_refuses_is_named(tmp_path: Path) -> None:
    photograph(tmp_path / "good.png", (200, 1))
    photograph(tmp_path / "hair.png", (1, 5000))
    check_images(questions_of("good.png", "hair.png"), tmp_path, FAMILIES["llava"].refuses)
    error = refusal(lambda: check_images(questions_of("good.png", "hair.png"), tmp_path, FAMILIES["qwen3_vl"].refuses))
    assert error.message.startswith("1 of 2 images cannot be used:\n  hair.png: 1 x 5000 pixels: ")


def test_all_bad_images_are_counted_once_and_ten_are_named(tmp_path: Path) -> None:
    photograph(tmp_path / "good.png")
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "folder.jpg").mkdir()
    names = ["text.jpg", "folder.jpg", *[f"missing{number}.jpg" for number in range(11)]]
    error = refusal(lambda: check_images(questions_of("good.png", *names, *names), tmp_path))
    head, *lines = error.message.split("\n  ")
    assert head == "13 of 14 images cannot be used:"
    assert [line.split(":")[0] for line in lines[:10]] == names[:10]
    assert lines[10:] == ["and 3 more"]
    assert re.search("not an image format that is supported", lines[0])
    assert str(tmp_path) in error.hint
