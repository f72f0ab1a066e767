"""Predictions that do not fit: shifted, doubled, missing, strange, unreadable. Nothing is written; all is said."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from perpo.records.run_record import metric_of
from perpo.records.store import read_run
from perpo_eval.cli.eval import main
from perpo_eval.rows.loading import load_task
from perpo_eval.rows.suites import spec_of

SPLITS = ("random", "popular", "adversarial")
COLUMNS = ["--columns", "id=qid", "question=q", "truth=gt", "answer=said"]
RANDOM = ["--tasks", "tinypope_random"]
POPE_LISTS = Path(__file__).parents[4] / "shared/data/pope"


def pope_rows(split: str) -> list[dict[str, Any]]:
    """The questions of a split, answered alike where several splits ask the same."""
    return [
        {"qid": doc["source_id"], "img": doc["image_path"], "q": doc["query"], "gt": json.loads(doc["target"])}
        | {"said": "yes" if len(doc["query"] + doc["image_path"]) % 2 else "no"}
        for doc in load_task(spec_of(f"tinypope_{split}"), "tiny").docs
    ]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def refused(tmp_path, capsys):
    """Run perpo-eval import, which is to refuse; returns what it says."""

    def begin(rows: list[Any] | Path, *words: str) -> str:
        file = rows if isinstance(rows, Path) else write(tmp_path / "own.jsonl", rows)
        output = tmp_path / "out"
        assert main(["import", str(file), "--name", "theirs", "--output", str(output), *words]) == 2
        assert not list(tmp_path.rglob("run.json"))
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert "\nhint: " in said
        return said

    return begin


@pytest.fixture
def stored(tmp_path, capsys):
    def begin(rows: list[Any], *words: str, code: int = 0):
        file = write(tmp_path / "own.jsonl", rows)
        output = tmp_path / "out"
        assert main(["import", str(file), "--name", "theirs", "--output", str(output), *words]) == code
        (path,) = (found.parent for found in output.rglob("run.json"))
        return read_run(path), capsys.readouterr().err

    return begin


def shifted(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [row | {name: rows[n - 1][name] for name in names} for n, row in enumerate(rows)]


# ---- the worst fault ----


def test_rows_shifted_against_their_ids(refused):
    said = refused(shifted(pope_rows("random"), "q", "gt", "said"), *RANDOM, *COLUMNS)
    assert "predictions have another question than the sample that they are matched with (by the data set's id)" in said
    assert "own.jsonl, row 2 is matched with tinypope_random 2: the file has " in said


def test_truths_shifted_against_their_ids(refused):
    said = refused(shifted(pope_rows("random"), "gt", "said"), *RANDOM, *COLUMNS[:2], *COLUMNS[3:])
    assert "predictions have another truth than the sample" in said


def test_rows_shifted_by_position(refused):
    rows = [{"question": row["q"], "answer": row["said"]} for row in pope_rows("random")]
    said = refused([*rows[1:], rows[0]], *RANDOM, "--match", "position")
    assert "predictions have another question than the sample" in said
    assert "hint: the rows are shifted" in said


def test_truths_alone_shifted_by_position(refused):
    rows = [{"gt": row["gt"], "said": row["said"]} for row in pope_rows("random")]
    columns = ["--columns", "truth=gt", "answer=said"]
    assert "another truth" in refused([*rows[1:], rows[0]], *RANDOM, "--match", "position", *columns)


def test_nothing_to_verify_is_said(stored):
    rows = [{"said": row["said"]} for row in pope_rows("random")]
    run, said = stored(rows, *RANDOM, "--match", "position", "--columns", "answer=said")
    assert "warning: neither a question nor a truth in the files could be held against the benchmark" in said
    assert run.record.imported["verified"] == {"question": 0, "truth": 0}


# ---- what is left over ----


def test_missing_unmatched_and_null(refused, stored):
    rows = pope_rows("random")
    said = refused(rows[15:], *RANDOM, *COLUMNS)
    assert "15 of 720 samples have no prediction:\n  tinypope_random 1\n" in said
    assert "and 5 more" in said
    strange = [*rows, rows[0] | {"qid": "strange"}]
    assert "1 predictions are about no sample of these tasks" in refused(strange, *RANDOM, *COLUMNS)
    null = [row | {"said": None if n == 3 else row["said"]} for n, row in enumerate(rows)]
    assert "1 of 720 predictions hold no answer" in refused(null, *RANDOM, *COLUMNS)
    run, said = stored([*null[15:], strange[-1]], *RANDOM, *COLUMNS, "--partial", code=3)
    assert "note: 15 samples without a prediction:" in said
    assert "note: 1 predictions without a sample:" in said
    about = run.record.imported
    assert (about["matched"], about["unmatched"], about["missing"]) == (705, 1, 15)
    assert run.record.status == "partial"  # 15 of 720 are more than a hundredth
    accuracy = metric_of(run.record.tasks[0].metrics, "accuracy")
    assert accuracy.n == 705
    assert accuracy.value == pytest.approx(sum(row["said"] == row["gt"] for row in rows[15:]) / 705)
    assert {row["error"] for row in run.samples(["error"]).to_pylist()} == {None, "no answer in the imported files"}


def test_an_empty_answer_is_an_answer(stored):
    rows = [row | {"said": ""} for row in pope_rows("random")]
    run, _ = stored(rows, *RANDOM, *COLUMNS)
    assert run.record.tasks[0].n_error == 0
    assert metric_of(run.record.tasks[0].metrics, "accuracy").n == 720


def test_duplicates(refused, stored):
    rows = pope_rows("random")
    other = {"yes": "no", "no": "yes"}[rows[5]["said"]]
    said = refused([*rows, rows[5] | {"said": other}], *RANDOM, *COLUMNS)
    assert "2 predictions differ about tinypope_random 6:\n  own.jsonl, row 6: " in said
    run, said = stored([*rows, rows[5]], *RANDOM, *COLUMNS)
    assert "note: 1 predictions that say the same again:\n  own.jsonl, row 721 " in said
    assert run.record.imported["duplicates"] == 1


def test_a_limit(stored):
    run, _ = stored(pope_rows("random"), *RANDOM, *COLUMNS, "--limit", "10")
    assert run.record.tasks[0].n_scored == 10
    assert run.record.imported["beyond_limit"] == 710


# ---- several samples that are alike ----


def test_three_splits_in_one_file(stored):
    """Each answer reaches its split, although the splits share pictures and questions."""
    rows = {split: pope_rows(split) for split in SPLITS}
    mixed = [row for part in zip(*rows.values(), strict=True) for row in part]
    run, _ = stored(mixed, "--suite", "pope", "--columns", "image=img", "question=q", "answer=said")
    for task in run.record.tasks:
        mine = rows[task.split]
        expected = sum(row["said"] == row["gt"] for row in mine) / len(mine)
        assert metric_of(task.metrics, "accuracy").value == pytest.approx(expected)


def test_which_split_is_meant_is_not_guessed(refused, stored):
    rows = {split: pope_rows(split) for split in SPLITS}
    columns = ["--columns", "image=img", "question=q", "answer=said"]
    assert "predictions fit several samples each" in refused(rows["random"], "--suite", "pope", *columns)
    differing = [row | {"split": split, "said": split} for split in SPLITS for row in rows[split]]
    assert "fit several" in refused(differing, "--suite", "pope", *columns)
    run, _ = stored(differing, "--suite", "pope", *columns, "split=split")
    for task in run.record.tasks:
        said = run.samples(["task", "response"]).to_pylist()
        assert {row["response"] for row in said if row["task"] == task.task} == {task.split}


def test_several_expressions_of_one_picture(stored, refused):
    """The longest expression within a prompt is the one that was asked, whichever row comes first."""
    docs = list(load_task(spec_of("refshapes_val"), "tiny").docs)
    assert len({doc["image_sha256"] for doc in docs}) < len(docs)
    rows = [
        {"img": doc["image_path"], "q": f"Find it: {doc['query']}!", "said": doc["target"]} for doc in reversed(docs)
    ]
    words = ["--tasks", "refshapes_val", "--box_scale", "pixels", "--columns", "image=img", "question=q", "answer=said"]
    names = [{"q": doc["query"], "said": doc["target"]} for doc in docs]
    said = refused(names, *words[:4], "--columns", "question=q", "answer=said")
    assert "fit several samples each" in said
    run, _ = stored(rows, *words)
    assert metric_of(run.record.tasks[0].metrics, "acc@0.9").value == 1.0


def test_a_word_within_a_word_is_not_asked(refused):
    """Matched by place; an expression that only stands within other words is another question."""
    docs = load_task(spec_of("refshapes_val"), "tiny").docs
    rows = [{"n": n, "q": f"un{doc['query']}ly", "said": "[1, 2, 3, 4]"} for n, doc in enumerate(docs)]
    words = ["--tasks", "refshapes_val", "--box_scale", "pixels", "--columns", "number=n", "question=q", "answer=said"]
    assert "900 of 900 predictions have another question" in refused(rows, *words)


# ---- what can't be read ----


@pytest.mark.parametrize(
    ("content", "words", "sentence", "hint"),
    [
        (None, [], "expected a data file at", "check the path"),
        ("", [], "holds no rows", "right file"),
        ('{"a": 1, "b": 2}\n', [], "the layout is not a known one: the file has a, b", "--columns answer=COLUMN"),
        ('{"question": "q", "answer": "a"}\n{"question"', [], "line 2: not JSON", "one record per line"),
        ('{"question": "q", "answer": "a"}\n{"answer": "a"}\n', [], "row 2: it lacks question", "same columns"),
        ('{"question": "q", "answer": "a"}\n', ["--layout", "llav"], "there is no layout 'llav'", "llava"),
        ('{"question": "q", "answer": "a"}\n', ["--layout", "mmhal"], "there is no column image_src", "the file has"),
        ('{"q": "q", "a": "a"}\n', ["--columns", "answer=b"], "there is no column b (answer)", "the file has q, a"),
        ('{"q": "q", "a": "a"}\n', ["--columns", "anser=a"], "nothing is called anser", "answer"),
        ('{"q": "q", "a": "a"}\n', ["--columns", "answer"], "--columns answer names no column", "answer=COLUMN"),
        ('{"q": "q", "a": "a"}\n', ["--columns", "question=q"], "no column holds the answers", "answer=COLUMN"),
        ('{"q": "q", "a": "a"}\n', ["--columns", "answer=a"], "do not say which samples", "--match position"),
        ('{"q": "q", "a": "a"}\n', ["--columns", "answer=a", "number=q"], "row 1: q is 'q'", "a whole number"),
        ('{"q": "q", "a": "a"}\n', ["--columns", "answer=a", "id=q"], "no prediction is about these tasks", "such as"),
        (
            '{"id": 1, "question_id": 0, "answer1_id": "a", "answer2_id": "b"}\n',
            [],
            "a judge's reviews",
            "perpo-eval judge",
        ),
        ("version https://git-lfs.github.com/spec/v1\n", [], "a Git LFS pointer", "git lfs pull"),
    ],
)
def test_unreadable_files(content, words, sentence, hint, refused, tmp_path):
    file = tmp_path / "given.jsonl"
    if content is not None:
        file.write_text(content)
    said = refused(file, *RANDOM, *words)
    assert sentence in said.partition("\nhint: ")[0]
    assert hint in said.partition("\nhint: ")[2]


def test_a_sheet_without_openpyxl(refused, tmp_path, monkeypatch):
    (tmp_path / "own.xlsx").write_bytes(b"PK\x03\x04")
    assert "can't be read as an Excel sheet" in refused(tmp_path / "own.xlsx", *RANDOM)
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "openpyxl":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "openpyxl, which reads these, is not installed" in refused(tmp_path / "own.xlsx", *RANDOM)


BOX = {"q": "it", "box": [1, 2, 30, 40], "said": "[1, 2, 30, 40]"}
OF_BOXES = ["--columns", "question=q", "truth=box", "answer=said"]
OWN = ["--truths", "boxes_own", *OF_BOXES, "--truth_scale", "pixels", "--truth_order", "xyxy"]
SHARES = [*OWN[:-4], "--truth_scale", "0-1", "--truth_order", "xyxy"]


@pytest.mark.parametrize(
    ("rows", "words", "sentence", "hint"),
    [
        ([BOX], OWN, "boxes_own needs to know how this model writes boxes", "--box_scale"),
        ([BOX], [*OWN, "--box_scale", "0-1"], "row 1: it has no size", "width=COLUMN"),
        ([BOX], [*OWN, "--box_scale", "pixels", "--box_frame", "padded"], "row 1: it has no size", "--image_root"),
        ([BOX | {"box": [30, 2, 1, 40]}], [*OWN, "--box_scale", "pixels"], "an empty or inverted box", "--truth_order"),
        ([BOX], [*SHARES, "--box_scale", "0-1"], "outside of the scale 0-1", "--truth_scale"),
        ([BOX | {"box": None}], [*OWN, "--box_scale", "pixels"], "row 1: it has no truth", "truth=COLUMN"),
        ([BOX], [*OWN[:-2], "--box_scale", "pixels"], "how true boxes are written is not said", "--truth_order"),
        (
            [BOX],
            [*OWN[:-4], "--truth_order", "xywh", "--box_scale", "0-1"],
            "how true boxes are written is not said",
            "--truth_scale",
        ),
        ([BOX], ["--truths", "yesno_own", *OWN[2:]], "are for --truths boxes_NAME", "leave them out"),
        ([BOX], ["--truths", "own", *OF_BOXES], "does not say what the truths are", "boxes_NAME"),
        ([BOX], [*OWN, "--box_scale", "pixels", "--tasks", "refshapes_val"], "--tasks is for a benchmark", "leave"),
        ([BOX], ["--truths", "yesno_own", *OF_BOXES], "its truth is [1, 2, 30, 40]", "yes or no"),
        ([BOX], ["--columns", "answer=said"], "of which benchmark these are the answers is not said", "--truths"),
        (
            [BOX],
            ["--tasks", "refshape_val", "--columns", "answer=said"],
            "there is no task 'refshape_val'",
            "refshapes_val",
        ),
    ],
)
def test_unusable_truths(rows, words, sentence, hint, refused):
    said = refused(rows, *words)
    assert sentence in said.partition("\nhint: ")[0]
    assert hint in said.partition("\nhint: ")[2]


def test_boxes_without_sizes_are_rescored_as_they_are(stored, tmp_path, capsys):
    run, _ = stored([BOX], *OWN, "--box_scale", "pixels")
    words = ["--rescore", str(run.path), "--output", str(tmp_path / "again")]
    assert main([*words, "--box_order", "xywh"]) == 0
    assert main([*words, "--box_scale", "0-1000"]) == 2
    assert "imported without the pictures' sizes" in capsys.readouterr().err


# ---- through the questions that were asked ----


def asked(rows: list[dict[str, Any]], start: int) -> list[dict[str, Any]]:
    """A question file with numbers of its own."""
    return [
        {"question_id": start + n, "image": f"{row['img']}.jpg", "text": row["q"]} | {"category": row["split"]}
        for n, row in enumerate(rows)
    ]


def test_numbers_of_a_question_file(tmp_path, stored, refused):
    """Splits that share questions, differing answers, and numbers that are others in the data set."""
    rows = [row | {"split": split, "said": split} for split in ("random", "popular") for row in pope_rows(split)[::-1]]
    questions = asked(rows, 500)
    file = write(tmp_path / "questions.jsonl", questions)
    answers = [
        {
            "question_id": each["question_id"],
            "prompt": each["text"],
            "text": row["said"],
            "answer_id": 1,
            "model_id": "m",
        }
        for each, row in zip(questions, rows, strict=True)
    ]
    words = ["--tasks", "tinypope_random", "tinypope_popular", "--question_file", str(file)]
    wrong = [*answers[:-1], answers[-1] | {"prompt": answers[-2]["prompt"]}]
    assert "1 predictions have another question than questions.jsonl" in refused(wrong, *words)
    assert "1 predictions have an id that questions.jsonl lacks" in refused([answers[0] | {"question_id": 1}], *words)
    run, _ = stored(answers[::-1], *words)
    assert run.record.imported["question_file"] == "questions.jsonl"
    for row in run.samples(["task", "response"]).to_pylist():
        assert row["task"] == f"tinypope_{row['response']}"


def test_the_order_of_a_question_file(tmp_path, stored, refused):
    rows = [row | {"split": "random"} for row in pope_rows("random")[::-1]]
    file = write(tmp_path / "questions.jsonl", asked(rows, 0))
    answers = [{"question": row["q"], "answer": row["said"]} for row in rows]
    words = [*RANDOM, "--question_file", str(file)]
    assert "719 rows without an id" in refused(answers[1:], *words)
    assert "another question than questions.jsonl" in refused([*answers[1:], answers[0]], *words)
    run, _ = stored(answers, *words)
    expected = sum(row["said"] == row["gt"] for row in rows) / len(rows)
    assert metric_of(run.record.tasks[0].metrics, "accuracy").value == pytest.approx(expected)


@pytest.mark.skipif(not POPE_LISTS.is_dir(), reason="POPE's lists are not at hand")
def test_popes_lists_as_llava_numbers_them(tmp_path, stored):
    """One file for the three lists, of which random lacks 90; prompts misprint "image" as older lists do."""
    from PIL import Image

    from perpo.cli.data import main as perpo_data

    images, data = tmp_path / "images", tmp_path / "data"
    images.mkdir()
    rows = {split: [json.loads(line) for line in (POPE_LISTS / f"coco_pope_{split}.json").open()] for split in SPLITS}
    for name in {row["image"] for part in rows.values() for row in part}:
        Image.new("RGB", (8, 8), f"#{int(name[-10:-4]):06d}").save(images / name)
    assert perpo_data(["pope", "--questions", str(POPE_LISTS), "--images", str(images), "--output", str(data)]) == 0
    rows["random"] = rows["random"][90:]
    questions, answers = [], []
    for place, split in enumerate(("adversarial", "random", "popular")):
        for n, row in enumerate(rows[split], start=1):
            text = row["text"].replace("umbrella in the image", "umbrella in the imange") + "\nAnswer in one word."
            about = {"question_id": place * 10_000_000 + n}
            questions.append(about | {"image": row["image"], "text": text, "category": split})
            said = {"random": row["label"], "popular": "yes", "adversarial": "no"}[split]
            answers.append(about | {"prompt": text, "text": said, "answer_id": "a", "model_id": "m", "metadata": {}})
    file = write(tmp_path / "questions.jsonl", questions)
    words = ["--suite", "pope", "--data", str(data), "--question_file", str(file), "--partial"]
    run, _ = stored(answers, *words)
    accuracies = {task.split: metric_of(task.metrics, "accuracy").value for task in run.record.tasks}
    assert accuracies == {"random": 1.0, "popular": 0.5, "adversarial": 0.5}
    assert [task.n_error for task in run.record.tasks] == [90, 0, 0]
    assert run.record.imported["verified"]["question"] == 8910


def test_objects_are_no_answers_to_yes_no_questions_beside_boxes(refused):
    """Where some of a suite's answers are boxes, its other answers are texts still: POPE's rule would read a yes."""
    rows = [row | {"said": {"answer": row["said"]}} for row in pope_rows("random")]
    words = ["--suite", "paper", "--tasks", "tinypope_random", "refshapes_val", "--partial", "--box_scale", "pixels"]
    assert "asks for no box" in refused(rows, *words, "--columns", "id=qid", "answer=said")
