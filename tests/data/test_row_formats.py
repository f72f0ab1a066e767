"""Rows as other programs write them, and the marks of pictures in questions."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perpo.data import read_preferences, read_questions
from perpo.data.placeholders import is_media_mark, without_image
from perpo.data.row_formats import plain_row
from perpo.errors import PerpoError

ASKED, TRUE, FALSE = "where is the red disc?", "[0.10, 0.20, 0.30, 0.40]", "[0.5, 0.5, 0.6, 0.6]"
PARTS = [{"type": "image"}, {"type": "text", "text": ASKED}]


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def llava(role: str, text: str) -> dict[str, str]:
    return {"from": role, "value": text}


USER, MODEL, WORSE = turn("user", f"<image>{ASKED}"), turn("assistant", TRUE), turn("assistant", FALSE)
QUESTIONS: dict[str, dict[str, Any]] = {
    "LLaVA": {"image": "p.png", "conversations": [llava("human", f"<image>\n{ASKED}"), llava("gpt", TRUE)]},
    "messages": {"images": ["p.png"], "messages": [USER, MODEL]},
    "parts": {
        "images": ["p.png"],
        "messages": [turn("user", PARTS), turn("assistant", [{"type": "text", "text": TRUE}])],
    },
    "a picture in a part": {
        "messages": [turn("user", [{"type": "image", "image": "p.png"}, {"type": "text", "text": ASKED}]), MODEL]
    },
    "an image_url": {
        "messages": [turn("user", [{"type": "image_url", "image_url": {"url": "p.png"}}, PARTS[1]]), MODEL],
    },
    "stored paths": {"images": [{"bytes": None, "path": "p.png"}], "messages": [USER, MODEL]},
    "query and response": {"images": "p.png", "query": f"{ASKED}\n<image>", "response": TRUE},
    "said twice alike": {
        "image": "p.png",
        "image_path": "p.png",
        "question": ASKED,
        "messages": [turn("user", ASKED), MODEL],
    },
}
PAIRS: dict[str, dict[str, Any]] = {
    "texts": {"image": "p.png", "question": ASKED, "chosen": TRUE, "rejected": FALSE},
    "ms-swift": {"images": ["p.png"], "messages": [USER, MODEL], "rejected_response": FALSE},
    "TRL": {"images": ["p.png"], "prompt": [turn("user", PARTS)], "chosen": [MODEL], "rejected": [WORSE]},
    "TRL, no prompt": {"images": ["p.png"], "chosen": [USER, MODEL], "rejected": [USER, WORSE]},
    "LLaMA-Factory": {
        "images": ["p.png"],
        "conversations": [llava("human", ASKED)],
        "chosen": llava("gpt", TRUE),
        "rejected": llava("gpt", FALSE),
    },
    "LLaVA-RLHF": {
        "image": "p.png",
        "conversations": [llava("human", f"<image>\n{ASKED}"), llava("gpt", "a place for either")],
        "output_1": llava("llava", FALSE),
        "output_2": llava("llava", TRUE),
        "hallucination": False,
        "preference": 2,
    },
    "numbered texts": {"image": "p.png", "prompt": ASKED, "output_1": TRUE, "output_2": FALSE, "preference": 1},
    "what describes a pair": {
        "image": "p.png",
        "question": ASKED,
        "chosen": TRUE,
        "rejected": FALSE,
        "score_chosen": 9,
        "rejected_model": "m",
        "response_1": TRUE,
        "response_2": FALSE,
    },
}


def written(path: Path, *rows: Any) -> Path:
    path.write_text(json.dumps(list(rows)))
    return path


@pytest.mark.parametrize("layout", QUESTIONS)
def test_layouts_of_questions(layout: str, tmp_path: Path) -> None:
    (question,) = read_questions(written(tmp_path / "d.json", QUESTIONS[layout]))
    assert (question.image_path, question.question, question.answer) == ("p.png", ASKED, TRUE)


@pytest.mark.parametrize("layout", PAIRS)
def test_pairs_are_lists_of_two_with_the_rewards_1_and_0(layout: str, tmp_path: Path) -> None:
    (record,) = read_preferences(written(tmp_path / "d.json", PAIRS[layout]))
    assert (record.image_path, record.question, record.answer) == ("p.png", ASKED, TRUE)
    assert (record.answers_gen, record.rewards, record.reward_name) == ([TRUE, FALSE], [1.0, 0.0], "preference")


@pytest.mark.parametrize("layout", PAIRS)
def test_pairs_in_parquet_where_null_stands_for_what_a_row_lacks(layout: str, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([PAIRS[layout]]), tmp_path / "d.parquet")
    (record,) = read_preferences(tmp_path / "d.parquet")
    assert (record.question, record.answers_gen) == (ASKED, [TRUE, FALSE])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [USER, MODEL, USER, MODEL]}, "found 4 turns: user, assistant, user, assistant"),
        ({"messages": [turn("system", "Be kind."), USER, MODEL]}, "found 3 turns: system"),
        ({"messages": ["where?", "there"]}, "expected turns with a role"),
        ({"messages": [turn("user", PARTS[:1] * 2), MODEL]}, "has 2 pictures"),
        ({"messages": [turn("user", [{"type": "video", "video": "v.mp4"}]), MODEL]}, "has a part of the type 'video'"),
        ({"messages": [turn("user", None), MODEL]}, "found None"),
        ({"question": "what?", "messages": [USER, MODEL]}, "have different texts"),
        ({"prompt": "a", "query": "b"}, "two different texts for its question"),
        ({"images": ["a.png", "b.png"]}, "it has 2 pictures"),
        ({"images": []}, "it has 0 pictures"),
        ({"image": "a.png", "image_path": "b.png"}, "it names two pictures: 'b.png', 'a.png'"),
        ({"image": "a.png", "images": ["b.png"]}, "it names two pictures"),
        ({"question": ASKED, "chosen": TRUE}, "it has only a chosen answer"),
        ({"question": ASKED, "chosen": TRUE, "rejected": TRUE}, "are the same"),
        ({"chosen": TRUE, "rejected": "<image>no"}, "an answer holds <image>"),
        ({"chosen": TRUE, "rejected": FALSE, "answers_gen": ["a"]}, "both `answers_gen` and `chosen`"),
        ({"chosen": [USER], "rejected": [USER]}, "`chosen` holds no answer"),
        ({"question": ASKED, "output_1": TRUE, "output_2": FALSE, "preference": 0}, "its `preference` is 0"),
        ({"question": ASKED, "output_1": TRUE, "output_2": FALSE, "preference": True}, "its `preference` is True"),
        ({"question": ASKED, "output_1": TRUE, "output_2": FALSE}, "its `preference` is None"),
        ({"question": ASKED, "output_1": TRUE, "output_2": TRUE, "preference": 1}, "are the same"),
        ({"messages": [USER, MODEL], "preference": 1}, "not supported: 'preference'"),
        ({"question": ASKED, "answer": TRUE, "response_a": TRUE, "response_b": FALSE}, "'response_a', 'response_b'"),
        ({"question": ASKED, "answer": TRUE, "rejected_answer": FALSE}, "not supported: 'rejected_answer'"),
        ({"question": ASKED, "answer": TRUE, "y_w": TRUE, "y_l": FALSE}, "not supported: 'y_w', 'y_l'"),
        ({"question": ASKED, "chosen": TRUE, "rejected": FALSE, "rejected_images": ["b.png"]}, "'rejected_images'"),
        ({"prompt": ASKED, "completion": FALSE, "label": False}, "not supported: 'label'"),
    ],
)
def test_what_cannot_be_read_is_said(row: dict[str, Any], said: str) -> None:
    with pytest.raises(PerpoError) as caught:
        plain_row(row)
    assert said in caught.value.message
    assert caught.value.hint


def test_fields_of_other_names_are_listed_with_a_way_to_rename_them(tmp_path: Path) -> None:
    path = written(tmp_path / "d.json", {"image": "p.png", "problem": ASKED, "solution": TRUE})
    with pytest.raises(PerpoError, match="record 1: expected text as `question`, found None") as caught:
        read_questions(path)
    assert "problem, solution" in caught.value.hint
    assert "jq -c" in caught.value.hint


@pytest.mark.parametrize("name", ["d.csv", "d.tsv"])
def test_tables_with_a_header(name: str, tmp_path: Path) -> None:
    rows = [
        ["image", "question", "answer", "image_id"],
        ["p.png", 'the "red",\ndisc?', TRUE, ""],
        ["q.png", "x\ty", "z", "7"],
    ]
    with (tmp_path / name).open("w", newline="", encoding="utf-16" if name == "d.tsv" else "utf-8") as file:
        csv.writer(file, delimiter="\t" if name == "d.tsv" else ",").writerows(rows)
    one, two = read_questions(tmp_path / name)
    assert (one.image_path, one.question, one.answer, one.image_id) == ("p.png", 'the "red",\ndisc?', TRUE, "p.png")
    assert (two.question, two.image_id) == ("x\ty", "7")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("image;question;answer\np.png;q;a\n", "has only one column, 'image;question;answer'"),
        ("image,question,question\n", "has the column 'question' twice"),
        ("image,question,answer\np.png,where, there?,a\n", "line 2: 4 fields, but 3 columns"),
        ('image,question,answer\np.png,"q,a\n', "not a table"),
    ],
)
def test_what_is_no_table(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(PerpoError) as caught:
        read_questions(tmp_path / "d.csv")
    assert said in caught.value.message


@pytest.mark.parametrize("indent", [None, 1])
def test_one_object_around_the_records(indent: int | None, tmp_path: Path) -> None:
    row = {"image": "p.png", "question": ASKED, "answer": TRUE}
    path = tmp_path / "d.json"
    for whole in ({"version": 1, "data": [row, row]}, row):
        path.write_text(json.dumps(whole, indent=indent))
        assert len(read_questions(path)) == (1 if whole is row else 2)
    path.write_text(json.dumps({"train": [row], "test": [row]}, indent=indent))
    with pytest.raises(PerpoError, match=r"one JSON object with several lists: train, test") as caught:
        read_questions(path)
    assert "jq '.test'" in caught.value.hint


# --- marks of pictures


@pytest.mark.parametrize(
    "mark",
    [
        *["<image>", "<IMAGE>", "<image_placeholder>", "<image 1>", "<|image|>", "<|image_1|>", "[IMG]"],
        *["<|vision_start|><|image_pad|><|image_pad|><|vision_end|>", "<|image_pad|>", "<img>a/b.png</img>"],
        *["<img><IMG_CONTEXT><IMG_CONTEXT></img>", "<im_start><image><im_end>", "<IMG_CONTEXT>"],
        *["Picture 1: <img>p</img>", "<start_of_image>"],
    ],
)  # fmt: skip
def test_a_mark_is_taken_out_wherever_it_stands(mark: str) -> None:
    for text in (
        f"{mark}\n{ASKED}",
        f"{mark}{ASKED}",
        f" {mark} \n {ASKED}",
        f"{ASKED}\n{mark}",
        f"{ASKED} {mark}",
        ASKED,
    ):
        assert without_image(text) == ASKED
    assert without_image(f"In the picture {mark}, where?") == "In the picture, where?"
    assert without_image(f"Look at {mark} well") == "Look at well"
    assert without_image(f"Look:\n{mark}\nwhere?") == "Look:\nwhere?"
    for text in (f"{mark}\n{mark}\nwhere?", f"{mark} or {mark}?", f"<video>{mark}?"):
        with pytest.raises(PerpoError, match="a question"):
            without_image(text)


@pytest.mark.parametrize(
    "mark", ["<video>", "<|video_pad|>", "<|vision_start|>", "</img>", "<audio>", "<image_soft_token>" * 2]
)
def test_a_video_and_half_a_mark_are_refused(mark: str) -> None:
    with pytest.raises(PerpoError, match="a question"):
        without_image(f"{mark}\nwhere?")


@pytest.mark.parametrize(
    "text", ["Is 3 < x > 2?", "the <ref>cup</ref>", "<b>bold</b>", "an image> of <image", "<|box_start|>"]
)
def test_other_text_stays(text: str) -> None:
    assert without_image(text) == text
    assert not is_media_mark(text)


def test_fields_that_compare_nothing_stay_as_they_are() -> None:
    row = {"question": ASKED, "answer": TRUE, "label": True, "output_1": "alone", "caption_1": "a", "caption_2": "b"}
    assert plain_row(row) == row
    record = {"question": ASKED, "answer": TRUE, "answers_gen": [TRUE], "rewards": [1.0], "preference": "mine"}
    assert plain_row(record) == record
