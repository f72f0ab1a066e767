"""Prediction files of each layout, imported by one command; scores against formulas that are written here."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perpo.common.files import cache_folder
from perpo.records.run_record import metric_of, sample_key
from perpo.records.store import Run, read_run
from perpo_eval.cli.eval import main
from perpo_eval.rows.loading import load_task
from perpo_eval.rows.suites import spec_of

PROMPT = "Please provide the bounding box coordinate of the region this sentence describes: "


def docs_of(task: str) -> list[dict[str, Any]]:
    return [doc | {"truth": json.loads(doc["target"])} for doc in load_task(spec_of(task), "tiny").docs]


@pytest.fixture(scope="module")
def pope() -> list[dict[str, Any]]:
    """The questions with an answer each: a quarter is wrong, some are wordy, some begin with a thought."""
    docs = docs_of("tinypope_random")
    for n, doc in enumerate(docs):
        said = doc["truth"] if n % 4 else {"yes": "no", "no": "yes"}[doc["truth"]]
        doc["right"] = said == doc["truth"]
        doc["said"] = said
        wordy = {"yes": "Yes, there is one.", "no": "No, there is none."}[said]
        doc["answer"] = [said.capitalize(), wordy, f"<think>At first: no. Not this.</think>{wordy}"][n % 3]
    return docs


@pytest.fixture(scope="module")
def boxes() -> list[dict[str, Any]]:
    """The expressions with a box each: moved to the right by 0, 0.2 or 0.5 of the true box's width."""
    docs = docs_of("refshapes_val")
    for n, doc in enumerate(docs):
        x1, y1, x2, y2 = doc["truth"]
        move = (0, 0.2, 0.5)[n % 3] * (x2 - x1)
        doc["box"] = [x1 + move, y1, x2 + move, y2]
        doc["iou"] = (1.0, 0.8 / 1.2, 0.5 / 1.5)[n % 3]  # of two boxes of one size, one beside the other
    return docs


@pytest.fixture
def imported(tmp_path, capsys) -> Callable[..., Run]:
    """Run perpo-eval import, and return what it stored."""

    def begin(*words: object, code: int = 0) -> Run:
        output = tmp_path / "out"
        assert main(["import", *map(str, words), "--name", "theirs", "--output", str(output)]) == code
        (path,) = (file.parent for file in output.rglob("run.json"))
        return read_run(path)

    return begin


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def value(run: Run, metric: str, task: int = 0) -> float:
    found = metric_of(run.record.tasks[task].metrics, metric)
    assert found is not None
    assert found.value is not None
    return found.value


def check_pope(run: Run, docs: list[dict[str, Any]]) -> None:
    """Hold a run against POPE's numbers, counted here."""
    hits = sum(doc["said"] == doc["truth"] == "yes" for doc in docs)
    said, true = (sum(doc[name] == "yes" for doc in docs) for name in ("said", "truth"))
    assert value(run, "accuracy") == pytest.approx(sum(doc["right"] for doc in docs) / len(docs))
    assert value(run, "f1") == pytest.approx(2 * hits / (said + true))
    assert value(run, "yes_ratio") == pytest.approx(said / len(docs))


def check_boxes(run: Run, docs: list[dict[str, Any]], close: float = 1e-6) -> None:
    ious = np.array([doc["iou"] for doc in docs])
    assert value(run, "iou") == pytest.approx(ious.mean(), abs=close)
    for threshold in (0.3, 0.5, 0.9):
        assert value(run, f"acc@{threshold}") == pytest.approx((ious >= threshold).mean())


# ---- of a benchmark ----


def test_lines_by_id(pope, imported, tmp_path):
    file = lines(
        tmp_path / "own.jsonl",
        [
            {
                "qid": int(doc["source_id"]),
                "q": doc["query"],
                "gt": doc["truth"],
                "said": doc["answer"],
                "n": 7,
                "ms": 1.5,
            }
            for doc in reversed(pope)
        ],
    )
    columns = ["answer=said", "id=qid", "question=q", "truth=gt", "tokens=n", "latency_ms=ms"]
    run = imported(file, "--tasks", "tinypope_random", "--columns", *columns)
    check_pope(run, pope)
    record = run.record
    assert record.model.engine == "elsewhere"
    assert record.model.family is None
    assert record.origin == "imported"
    assert record.suite["name"] == "pope"
    assert record.imported == {
        "files": [{"name": "own.jsonl", "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "rows": 720}],
        "layout": "plain",
        "columns": dict(word.split("=") for word in columns),
        "matched_by": "the data set's id",
        "matched": 720,
        "unmatched": 0,
        "beyond_limit": 0,
        "duplicates": 0,
        "missing": 0,
        "verified": {"question": 720, "truth": 720},
    }
    rows = run.samples().to_pylist()
    assert [row["question"] for row in rows] == [doc["query"] for doc in pope]
    assert {(row["tokens_out"], row["latency_ms"], row["finish_reason"]) for row in rows} == {(7, 1.5, None)}


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "xlsx", "json"])
def test_tables_by_picture_and_question(ending, pope, imported, tmp_path):
    rows = [{"img": f"some/{doc['image_path']}.jpg", "q": doc["query"], "said": doc["answer"]} for doc in pope]
    file = tmp_path / f"own.{ending}"
    if ending in ("csv", "tsv"):
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]), delimiter={"csv": ",", "tsv": "\t"}[ending])
            writer.writeheader()
            writer.writerows(rows)
    elif ending == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), file)
    elif ending == "xlsx":
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for line in (list(rows[0]), *(list(row.values()) for row in rows)):
            book.active.append(line)
        book.save(file)
    else:
        file.write_text(json.dumps(rows))
    run = imported(file, "--tasks", "tinypope_random", "--columns", "image=img", "question=q", "answer=said")
    check_pope(run, pope)
    assert run.record.imported["matched_by"] == "image and question"


def test_sample_keys(pope, imported, tmp_path):
    task = load_task(spec_of("tinypope_random"), "tiny")
    keys = [sample_key(task.dataset, task.revision, "random", doc["source_id"], doc["query"]) for doc in pope]
    rows = [{"sample_key": key, "response": doc["answer"]} for key, doc in zip(keys, pope, strict=True)]
    run = imported(lines(tmp_path / "responses.jsonl", rows[::-1]), "--suite", "pope", "--tasks", "tinypope_random")
    check_pope(run, pope)
    assert run.samples(["sample_key"])["sample_key"].to_pylist() == keys


@pytest.mark.parametrize("older", [False, True], ids=["0.7.3", "with its document"])
def test_lmms_eval(older, pope, imported, tmp_path):
    rows = []
    for number, doc in enumerate(pope):
        asked = f"{doc['query']}\nAnswer the question using a single word or phrase."
        row = {"doc_id": number, "target": doc["truth"], "doc_hash": "x", "filtered_resps": "cut"}
        row |= {"resps": [[doc["answer"]]] if older else [doc["answer"]]}
        row |= {"pope_accuracy": {"question_id": doc["source_id"], "score": 1.0}}
        row |= {"doc": {"question": doc["query"]}, "arguments": []} if older else {"input": asked}
        row |= {} if older else {"token_counts": [{"input_tokens": 600, "output_tokens": 3}]}
        rows.append(row)
    run = imported(lines(tmp_path / "20261128_samples_tinypope_random.jsonl", rows), "--tasks", "tinypope_random")
    check_pope(run, pope)
    assert run.record.imported["layout"] == "lmms-eval"
    assert run.record.imported["verified"] == {"question": 720, "truth": 720}
    assert set(run.samples(["tokens_out"])["tokens_out"].to_pylist()) == {None if older else 3}


def test_vlmevalkit(pope, imported, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["index", "category", "question", "answer", "prediction"])
    for doc in pope:
        book.active.append([int(doc["source_id"]), "random", doc["query"], doc["truth"].capitalize(), doc["answer"]])
    book.save(tmp_path / "model_POPE.xlsx")
    run = imported(tmp_path / "model_POPE.xlsx", "--tasks", "tinypope_random", "tinypope_popular", "--partial", code=3)
    check_pope(run, pope)
    assert run.record.status == "partial"
    assert [task.n_error for task in run.record.tasks] == [0, 720]


def test_llava_and_the_judged(imported, tmp_path):
    docs = docs_of("tinywild_test")
    rows = [
        {
            "question_id": doc["source_id"],
            "prompt": doc["query"],
            "text": f"It is {n}.",
            "answer_id": "a",
            "model_id": "m",
        }
        | {"metadata": {}}
        for n, doc in enumerate(docs)
    ]
    run = imported(lines(tmp_path / "answers.jsonl", rows), "--tasks", "tinywild_test")
    assert run.record.status == "awaiting judge"
    assert run.samples(["response"])["response"].to_pylist() == [f"It is {n}." for n in range(len(docs))]


def test_mmhal(imported, tmp_path):
    docs = docs_of("tinymmhal_test")
    rows = [
        {"question_type": "other", "image_src": f"https://photos/{doc['image_path']}", "question": doc["query"]}
        | {"gt_answer": doc["truth"]["reference"], "model_answer": f"It is {n}."}
        for n, doc in enumerate(docs)
    ]
    (tmp_path / "response.json").write_text(json.dumps(rows[::-1]))
    run = imported(tmp_path / "response.json", "--tasks", "tinymmhal_test")
    assert run.samples(["response"])["response"].to_pylist() == [f"It is {n}." for n in range(len(docs))]
    assert run.record.imported["verified"] == {"question": len(docs), "truth": len(docs)}


def test_pope_in_the_order_of_its_questions(pope, imported, tmp_path):
    file = lines(tmp_path / "answers.jsonl", [{"question": doc["query"], "answer": doc["answer"]} for doc in pope])
    run = imported(file, "--tasks", "tinypope_random", "--match", "position")
    check_pope(run, pope)
    assert run.record.imported["matched_by"] == "position in the file"


def test_fox(imported, tmp_path):
    docs = docs_of("tinypages_test")
    rows = [{"label": doc["truth"], "answer": doc["truth"] if n % 2 else ""} for n, doc in enumerate(docs)]
    (tmp_path / "fox.json").write_text(json.dumps(rows[::-1]))
    run = imported(tmp_path / "fox.json", "--tasks", "tinypages_test")
    empty = np.mean([n % 2 == 0 for n in range(len(docs))])
    assert value(run, "edit_distance") == pytest.approx(empty)  # an empty answer is as far as can be
    assert run.record.tasks[0].n_error == 0
    assert run.record.imported["matched_by"] == "truth"


def test_vlm_r1(boxes, imported, tmp_path):
    said = '<think>Not [0, 0, 9, 9].</think><answer>```json\n[{{"bbox_2d": {}}}]\n```</answer>'
    results = [
        {"image": doc["image_path"], "question": PROMPT + doc["query"], "ground_truth": doc["truth"]}
        | {"model_output": said.format(doc["box"]), "extracted_answer": doc["box"], "correct": 1}
        for doc in boxes
    ]
    (tmp_path / "rec.json").write_text(json.dumps({"accuracy": 1.0, "results": results}))
    run = imported(tmp_path / "rec.json", "--tasks", "refshapes_val", "--box_scale", "pixels")
    check_boxes(run, boxes)
    assert run.samples(["question"])["question"].to_pylist()[0] == PROMPT + boxes[0]["query"]


def test_rec_eval(boxes, imported, tmp_path):
    rows = []
    for doc in boxes:
        x1, y1, x2, y2 = doc["truth"]
        rows.append({"text": doc["query"], "prediction": {"box": doc["box"]}, "gt_bbox": [x1, y1, x2 - x1, y2 - y1]})
    rows[4]["prediction"] = {"text": "I see none."}
    (tmp_path / "predictions.json").write_text(json.dumps({"lmms-lab/RefCOCO": {"their-model": rows}}))
    run = imported(tmp_path / "predictions.json", "--tasks", "refshapes_val", "--box_scale", "pixels")
    check_boxes(run, [doc | ({"iou": 0.0} if n == 4 else {}) for n, doc in enumerate(boxes)])
    assert value(run, "parse_fail") == pytest.approx(1 / len(boxes))


# ---- truths beside the predictions ----


@pytest.mark.parametrize("order", ["xyxy", "xywh"])
@pytest.mark.parametrize("scale", ["pixels", "0-1", "percent", "0-1000"])
def test_own_boxes(scale, order, boxes, imported, tmp_path):
    """Truths in both conventions and four scales against answers in thousandths: the same numbers each time."""
    rows = []
    for doc in boxes:
        x1, y1, x2, y2 = doc["truth"]
        truth = [x1, y1, x2, y2] if order == "xyxy" else [x1, y1, x2 - x1, y2 - y1]
        truth = [number * {"pixels": 96, "0-1": 1, "percent": 100, "0-1000": 1000}[scale] / 96 for number in truth]
        rows.append({"img": doc["image_path"], "q": doc["query"], "box": truth})
        rows[-1] |= {"said": str([number / 96 * 1000 for number in doc["box"]])}
        rows[-1] |= {"w": 96, "h": 96} if scale == "pixels" else {}
    words = ["--truths", "boxes_shelf", "--truth_scale", scale, "--truth_order", order, "--box_scale", "0-1000"]
    columns = ["image=img", "question=q", "truth=box", "answer=said"]
    columns += ["width=w", "height=h"] if scale == "pixels" else []
    run = imported(lines(tmp_path / "own.jsonl", rows), *words, "--columns", *columns)
    check_boxes(run, boxes)
    (task,) = run.record.tasks
    assert (task.task, task.cluster_key) == ("boxes_shelf", "digest of the image's name")
    assert metric_of(task.metrics, "iou").n_clusters == len({doc["image_path"] for doc in boxes})
    sized = metric_of(task.metrics, "acc@0.5:small").value is not None
    assert sized == (scale == "pixels")  # COCO's limits are in pixels


def test_own_boxes_with_pictures(boxes, imported, tmp_path):
    root = cache_folder() / "images"
    rows = [
        {"img": Path(doc["image_file"]).name, "q": doc["query"], "box": doc["truth"], "said": str(doc["box"])}
        for doc in boxes
    ]
    words = ["--truths", "boxes_shelf", "--truth_scale", "pixels", "--truth_order", "xyxy"]
    words += ["--box_scale", "pixels", "--image_root", root]
    columns = ["image=img", "question=q", "truth=box", "answer=said"]
    run = imported(lines(tmp_path / "own.jsonl", rows), *words, "--columns", *columns)
    check_boxes(run, boxes)
    assert run.record.tasks[0].cluster_key == "image sha256"
    images = run.samples(["image", "cluster_id"]).to_pylist()
    assert [row["cluster_id"] for row in images] == [doc["image_sha256"] for doc in boxes]
    assert images[0]["image"]["width"] == 96


def test_own_yes_no_without_pictures(pope, imported, tmp_path, capsys):
    rows = [{"q": doc["query"], "gt": doc["truth"].capitalize(), "said": doc["answer"]} for doc in pope]
    words = ["--truths", "yesno_doors", "--columns", "question=q", "truth=gt", "answer=said"]
    run = imported(lines(tmp_path / "own.jsonl", rows), *words)
    check_pope(run, pope)
    assert run.record.tasks[0].cluster_key.startswith("row")
    assert "too narrow" in capsys.readouterr().err


def test_own_pages(imported, tmp_path):
    rows = [{"id": "a", "img": "1.png", "page": "one two", "said": "one two"}, {"id": "b", "img": "1.png"}]
    rows[1] |= {"page": "abcd", "said": "abcx"}
    words = ["--truths", "pages_bills", "--columns", "id=id", "image=img", "truth=page", "answer=said"]
    run = imported(lines(tmp_path / "own.jsonl", rows), *words)
    assert value(run, "edit_distance") == pytest.approx((0 + 1 / 4) / 2)
    assert metric_of(run.record.tasks[0].metrics, "edit_distance").n_clusters == 1


@pytest.mark.parametrize("scale", ["pixels", "0-1"])
def test_boxes_in_another_order_are_warned_of_without_sizes(scale, boxes, imported, tmp_path, capsys):
    """Answers with width and height, declared as corners: low scores, and a sentence that says why."""
    rows = []
    for doc in boxes[:300]:
        x1, y1, x2, y2 = (number / (96 if scale == "0-1" else 1) for number in doc["truth"])
        rows.append({"q": doc["query"], "box": [x1, y1, x2, y2], "said": str([x1, y1, x2 - x1, y2 - y1])})
    words = ["--truths", "boxes_shelf", "--truth_scale", scale, "--truth_order", "xyxy", "--box_scale", scale]
    run = imported(lines(tmp_path / "own.jsonl", rows), *words, "--columns", "question=q", "truth=box", "answer=said")
    (warning,) = run.record.warnings
    assert "if they were read with --box_order xywh" in warning
    assert "warning: " in capsys.readouterr().err
