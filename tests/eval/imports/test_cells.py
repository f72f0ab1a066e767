"""What stands for an answer in a file and is none, or is none of the model's words. No number is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perpo.errors import PerpoError
from perpo.records.run_record import metric_of
from perpo.records.store import read_run
from perpo_eval.cli.eval import main
from perpo_eval.imports.cells import read_answer
from perpo_eval.rows.loading import load_task
from perpo_eval.rows.suites import spec_of

RANDOM = ["--tasks", "tinypope_random", "--columns", "id=qid", "question=q", "answer=said"]
OWN = ["--columns", "image=img", "question=q", "truth=gt", "answer=said"]


def rows_of(split: str = "random") -> list[dict[str, Any]]:
    """The questions of a split, each answered rightly."""
    docs = load_task(spec_of(f"tinypope_{split}"), "tiny").docs
    rows = [{"qid": doc["source_id"], "img": doc["image_path"], "q": doc["query"]} for doc in docs]
    return [row | {"said": json.loads(doc["target"])} for row, doc in zip(rows, docs, strict=True)]


def begin(tmp_path: Path, rows: list[dict[str, Any]], *words: str, file: str = "own.jsonl") -> int:
    (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return main(["import", str(tmp_path / file), "--name", "theirs", "--output", str(tmp_path / "out"), *words])


@pytest.mark.parametrize(
    ("held", "boxes", "text"),
    [
        ("No", False, "No"),
        ("", False, ""),
        (["No"], False, "No"),
        ([["[1, 2, 3, 4]"]], True, "[1, 2, 3, 4]"),
        ([[1, 2, 3, 4]], True, "[[1, 2, 3, 4]]"),
        ({"bbox": [1, 2, 3, 4]}, True, '{"bbox": [1, 2, 3, 4]}'),
        ([None], False, None),
        (float("nan"), False, None),
        ("Failed to obtain answer via API. ", False, None),
        (12, False, "12"),
    ],
)
def test_answers(held, boxes, text):
    assert read_answer(held, "said", boxes) == text


@pytest.mark.parametrize(("held", "boxes"), [(True, True), (["Yes", "No"], False), ({"answer": "No"}, False)])
def test_what_is_no_answer(held, boxes):
    with pytest.raises(PerpoError, match="which is no answer"):
        read_answer(held, "said", boxes)


def test_objects_around_words_are_refused(tmp_path, capsys):
    rows = [row | {"said": {"answer": row["said"]}} for row in rows_of()]
    assert begin(tmp_path, rows, *RANDOM) == 2
    assert "own.jsonl, row 1: said is {'answer': 'yes'}, which is no answer" in capsys.readouterr().err


def test_lists_around_words_are_opened(tmp_path):
    rows = [row | {"said": [row["said"]]} for row in rows_of()]
    assert begin(tmp_path, rows, *RANDOM) == 0
    (record,) = (tmp_path / "out").rglob("run.json")
    assert metric_of(read_run(record.parent).record.tasks[0].metrics, "accuracy").value == 1.0


@pytest.mark.parametrize("codes", [(1, 0), ("TRUE", "FALSE")])
def test_codes_for_yes_and_no_are_refused(codes, tmp_path, capsys):
    rows = [row | {"said": codes[row["said"] == "no"]} for row in rows_of()]
    assert begin(tmp_path, rows, *RANDOM) == 2
    assert f"all answers are {' or '.join(sorted(str(code).lower() for code in codes))}" in capsys.readouterr().err


def test_answers_of_two_models_are_refused(tmp_path, capsys):
    rows = [
        {"question_id": row["qid"], "prompt": row["q"], "text": row["said"], "answer_id": n, "model_id": f"m{n % 2}"}
        for n, row in enumerate(rows_of())
    ]
    assert begin(tmp_path, rows, "--tasks", "tinypope_random") == 2
    assert "these are answers of 2 models: m0, m1" in capsys.readouterr().err


def test_a_question_file_shows_nothing_of_answers_without_questions(tmp_path, capsys):
    """These answer the random list. With the popular one's questions each has another right answer beside it."""
    answers = [
        {"question_id": n, "text": row["said"], "answer_id": n, "model_id": "m"} for n, row in enumerate(rows_of())
    ]
    asked = [{"question_id": n, "image": row["img"], "text": row["q"]} for n, row in enumerate(rows_of("popular"))]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    words = ["--tasks", "tinypope_popular", "--question_file", str(tmp_path / "asked.jsonl")]
    assert begin(tmp_path, answers, *words) == 0
    assert "warning: neither a question nor a truth in the files could be held" in capsys.readouterr().err
    with_prompts = [answer | {"prompt": row["q"]} for answer, row in zip(answers, rows_of(), strict=True)]
    assert begin(tmp_path, with_prompts, *words) == 2
    assert "predictions have another question than asked.jsonl" in capsys.readouterr().err


def test_own_rows_count_once(tmp_path, capsys):
    row = {"id": "a", "img": "door.jpg", "q": "Is it open?", "gt": "yes", "said": "yes"}
    words = ["--truths", "yesno_doors", *OWN]
    assert begin(tmp_path, [row, row | {"said": "no"}], *words) == 2
    said = capsys.readouterr().err
    assert "row 2: it is the second one about 'door.jpg' that asks the same (as own.jsonl, row 1)" in said
    assert "--columns id=COLUMN" in said
    assert begin(tmp_path, [row, row | {"id": "b"}], *words, "id=id") == 0  # of two names: two on purpose


def test_rows_in_a_second_sheet_are_not_left_out(tmp_path, capsys):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    more, notes = book.create_sheet("more"), book.create_sheet("notes")
    for n, row in enumerate(rows_of()):
        for sheet in (book.active, more) if n == 0 else (book.active,) if n < 360 else (more,):
            if n == 0:
                sheet.append(["qid", "q", "said"])
            sheet.append([row["qid"], row["q"], row["said"]])
    notes.append(["of whom", "when"])
    book.save(tmp_path / "own.xlsx")
    words = ["import", str(tmp_path / "own.xlsx"), "--name", "theirs", "--output", str(tmp_path / "out"), *RANDOM]
    assert main(words) == 2
    assert "has rows in several sheets: Sheet, more\n" in capsys.readouterr().err
    del book["more"]
    book.save(tmp_path / "own.xlsx")
    assert main([*words, "--partial"]) == 3  # notes are no rows


def test_by_position_alone_no_row_may_lack(tmp_path, capsys):
    rows = [{"said": row["said"]} for row in rows_of()]
    words = ["--tasks", "tinypope_random", "--match", "position", "--columns", "answer=said"]
    assert begin(tmp_path, rows[1:], *words, "--partial") == 2
    assert "1 of 720 samples have no row, and no question or truth shows which" in capsys.readouterr().err
    assert begin(tmp_path, rows[:20], *words, "--limit", "20") == 0
