"""perpo-eval export --lost, --coco and --fiftyone: read back, by the programs that they are for where they are here."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perpo.boxes import BoxFormat, format_box, iou
from perpo.data import read_questions
from perpo.records.store import Run, read_run
from perpo_eval.arguments import EvalArguments
from perpo_eval.cli.eval import main
from perpo_eval.evaluate.run import evaluate
from tests.support.evaluation import cache, refcoco_rows  # noqa: F401

PICTURES = 4
SIZES = [(160 + 10 * number, 120) for number in range(PICTURES)]
BOX = [10.0, 20.0, 60.5, 80.0]


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for task in ("boxes_mine", "refcoco_val"):
        pq.write_table(pa.Table.from_pylist(refcoco_rows(PICTURES)), folder / f"{task}.parquet")
    return folder


ANSWERS = {"right": "[10, 20, 60, 80]", "near": "[10, 20, 40, 80]", "wrong": "[100, 100, 120, 110]"}
ANSWERS |= {"inverted": "[60, 80, 10, 20]", "none": "I see nothing"}


@pytest.fixture
def score(data, tmp_path) -> Callable[..., Run]:
    """Score an answer for each row and place: a key of ANSWERS."""

    def begin(name: str, say: Callable[[int, int], str], tasks: str = "boxes_mine", **settings: object) -> Run:
        file, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
        words = ["--data", str(data), "--family", "qwen2_5_vl", "--tasks", *tasks.split(), "--questions", str(file)]
        assert main(words) == 0
        lines = []
        for line in map(json.loads, file.read_text().splitlines()):
            row, place = map(int, line["source_id"].split("/"))
            lines.append({"sample_key": line["sample_key"], "response": ANSWERS[say(row - 100, place)]})
        answers.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        given = {"suite": "grounding", "data": str(data), "family": "qwen2_5_vl", "box_scale": "pixels", "name": name}
        given |= {
            "box_frame": "original",
            "responses": answers,
            "output": str(tmp_path / "out"),
            "tasks": tasks.split(),
        }
        path = evaluate(EvalArguments(**given | settings))  # type: ignore[arg-type]
        assert path is not None
        return read_run(path)

    return begin


def mixed(row: int, place: int) -> str:
    return list(ANSWERS)[(2 * row + place) % len(ANSWERS)]


def keys(run: Run, wanted: Callable[[float], bool]) -> set[tuple[str, str]]:
    """(picture, question) of the samples whose IoU is as wanted."""
    rows = run.samples(["image", "question", "scores"]).to_pylist()
    return {(row["image"]["path"], row["question"]) for row in rows if wanted(row["scores"]["iou"])}


# ---- what a run lost ----


def test_what_was_lost_becomes_questions(score, tmp_path, capsys) -> None:
    run = score("mine", mixed)
    file = tmp_path / "lost.jsonl"
    assert main(["export", "--lost", str(run.path), "--output", str(file)]) == 0
    questions = read_questions(file)
    assert {(q.image_id, q.question) for q in questions} == keys(run, lambda value: value < 0.5)
    pixels_of_a_picture = BoxFormat("pixels")
    written = {format_box(BOX, pixels_of_a_picture, size) for size in SIZES}
    assert {q.answer for q in questions} <= written
    assert {(q.box_scale, q.box_order, q.box_frame) for q in questions} == {("pixels", "xyxy", "original")}
    assert all(Path(q.image_path).is_file() for q in questions)
    said = capsys.readouterr().err
    assert f"{file}: {len(questions)} questions that mine lost" in said
    assert "perpo-sample --output" in said
    assert "WARNING" not in said


def test_against_a_baseline_only_what_it_had_right(score, tmp_path) -> None:
    before = score("before", lambda row, place: "right" if row < 2 else "wrong")
    after = score("after", mixed)
    file = tmp_path / "lost.jsonl"
    words = ["export", "--lost", "after", "--against", "before", "--results", str(tmp_path / "out")]
    assert main([*words, "--output", str(file)]) == 0
    expected = keys(before, lambda value: value >= 0.5) & keys(after, lambda value: value < 0.5)
    assert {(q.image_id, q.question) for q in read_questions(file)} == expected
    assert main(["export", "--lost", str(before.path), "--against", str(before.path), "--output", "x.jsonl"]) == 2


def test_questions_of_an_evaluation_are_no_training_data(score, tmp_path, capsys) -> None:
    run = score("mine", mixed, "refcoco_val")
    file = tmp_path / "lost.jsonl"
    words = ["export", "--lost", str(run.path), "--output", str(file)]
    assert main(words) == 2
    assert "refcoco_val: these are questions of an evaluation" in capsys.readouterr().err
    assert not file.exists()
    assert main([*words, "--allow_test"]) == 0
    assert "WARNING: these are questions of refcoco_val." in capsys.readouterr().err
    both = score("both", mixed, "refcoco_val boxes_mine")
    other = tmp_path / "own.jsonl"
    assert main(["export", "--lost", str(both.path), "--output", str(other)]) == 0
    assert "note: 8 samples are left out: they are of the evaluation refcoco_val" in capsys.readouterr().err
    assert len(read_questions(other)) == len(keys(score("own", mixed), lambda value: value < 0.5))


def test_pictures_are_found_in_a_folder_or_refused(score, cache, tmp_path, capsys) -> None:  # noqa: F811
    run = score("mine", mixed)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for file in (cache / "images").iterdir():
        file.unlink()
    words = ["export", "--lost", str(run.path), "--output", str(tmp_path / "lost.jsonl"), "--images", str(pictures)]
    assert main(words) == 2
    count = len({picture for picture, _ in keys(run, lambda value: value < 0.5)})
    assert f"{count} of {count} pictures are not there" in capsys.readouterr().err
    for row in refcoco_rows(PICTURES):
        (pictures / row["file_name"]).write_bytes(row["image"]["bytes"])
    assert main(words) == 0
    found = {Path(question.image_path) for question in read_questions(tmp_path / "lost.jsonl")}
    assert found <= {file.resolve() for file in pictures.iterdir()}


def test_perpo_sample_takes_the_questions_as_they_are(tmp_path) -> None:
    """Real processes: the embedded model answers rows of one's own, and samples again what it lost."""
    from perpo.tiny.world import benchmark_rows, write_parquet

    folder = tmp_path / "data"
    folder.mkdir()
    write_parquet(islice(benchmark_rows("refshapes", "val"), 12), folder / "boxes_mine.parquet")
    results = tmp_path / "results"
    run_program("perpo_eval.cli.eval", "--data", folder, "--output", results, "--device", "cpu")
    lost = tmp_path / "lost.jsonl"
    said = run_program("perpo_eval.cli.eval", "export", "--lost", results, "--output", lost, "--results", results)
    count = len(lost.read_text().splitlines())
    assert f"{count} questions that" in said
    candidates = tmp_path / "candidates.jsonl"
    words = ["--questions", lost, "--output", candidates, "--num_candidates", "2", "--max_new_tokens", "24"]
    run_program("perpo.cli.sample", *words, "--limit", "4", "--device", "cpu")
    records = [json.loads(line) for line in candidates.read_text().splitlines()]
    assert 0 < len(records) <= 4
    assert {record["question"] for record in records} <= {question.question for question in read_questions(lost)}


def run_program(module: str, *words: object) -> str:
    """Run a program's main in a process of its own; returns what it said."""
    code = f"import sys; from {module} import main; sys.exit(main())"
    ended = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


# ---- COCO's files ----


def test_pycocotools_finds_the_same_overlaps(score, tmp_path, capsys) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    run = score("mine", mixed)
    folder = tmp_path / "coco"
    assert main(["export", "--coco", str(run.path), "--output", str(folder)]) == 0
    answered = sum(mixed(row, place) != "none" for row in range(PICTURES) for place in range(2))
    assert f"{2 * PICTURES} samples in ground_truth.json, {answered} answered boxes" in capsys.readouterr().err
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "ground_truth.json"))
        held = COCOeval(truth, truth.loadRes(str(folder / "results.json")), "bbox")
        held.evaluate()
        held.accumulate()
        held.summarize()
    rows = {row["sample_key"]: row["scores"] for row in run.samples(["sample_key", "scores"]).to_pylist()}
    for image in truth.dataset["images"]:
        overlaps = held.ious[image["id"], 1]
        expected = rows[image["sample_key"]]["iou"]
        assert (float(overlaps[0][0]) if len(overlaps) else 0.0) == pytest.approx(expected)
    right = sum(scores["acc@0.5"] for scores in rows.values())
    # One answer and one truth for each image: what is found of all truths is the accuracy.
    recall = held.eval["recall"][0, 0, 0, 2]
    assert recall == pytest.approx(right / len(rows))


# ---- FiftyOne's folder ----


def test_fiftyones_samples_hold_both_models_over_a_picture(score, tmp_path, capsys) -> None:
    one, two = score("one model", mixed), score("two.b", lambda row, place: "near")
    folder = tmp_path / "fiftyone"
    words = ["export", "--fiftyone", str(one.path), str(two.path), "--output", str(folder)]
    assert main(words) == 0
    assert f"{PICTURES} pictures" in capsys.readouterr().err
    assert "version" not in json.loads((folder / "metadata.json").read_text())
    samples = json.loads((folder / "samples.json").read_text())["samples"]
    assert len(samples) == PICTURES
    for run, field in ((one, "model_one_model"), (two, "model_two_b")):
        rows = {row["sample_key"]: row for row in run.samples(["sample_key", "prediction", "target"]).to_pylist()}
        found = {}
        for sample in samples:
            assert Path(sample["filepath"]).is_file()
            size = (sample["metadata"]["width"], sample["metadata"]["height"])
            truths = {each["sample_key"]: pixels(each, size) for each in sample["ground_truth"]["detections"]}
            assert len(truths) == 2
            for each in sample[field]["detections"]:
                found[each["sample_key"]] = pixels(each, size)
                assert iou(found[each["sample_key"]], truths[each["sample_key"]]) == pytest.approx(each["iou"])
                assert truths[each["sample_key"]] == pytest.approx(json.loads(rows[each["sample_key"]]["target"]))
        answered = {key: json.loads(row["prediction"]) for key, row in rows.items() if row["prediction"] is not None}
        assert found.keys() == answered.keys()
        for key, box in answered.items():
            if box[0] < box[2]:
                assert found[key] == pytest.approx(box)


def pixels(detection: dict, size: tuple[int, int]) -> list[float]:
    """xyxy in pixels of a detection's shares."""
    x, y, width, height = detection["bounding_box"]
    return [x * size[0], y * size[1], (x + width) * size[0], (y + height) * size[1]]


def test_without_pictures_the_data_sets_paths_stay(score, cache, tmp_path, capsys) -> None:  # noqa: F811
    run = score("mine", mixed)
    for file in (cache / "images").iterdir():
        file.unlink()
    assert main(["export", "--fiftyone", str(run.path), "--output", str(tmp_path / "folder")]) == 0
    assert f"note: of {PICTURES} no file is at hand" in capsys.readouterr().err
    samples = json.loads((tmp_path / "folder" / "samples.json").read_text())["samples"]
    assert {sample["filepath"] for sample in samples} == {row["file_name"] for row in refcoco_rows(PICTURES)}
    assert main(["export", "--coco", str(run.path), "--output", str(tmp_path / "coco")]) == 0


# ---- flags ----


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lost", "x", "--coco", "y"], "--lost and --coco are two files"),
        (["--against", "x"], "--against has no effect without --lost"),
        (["--output", "x"], "--output has no effect without --lost or --coco or --fiftyone"),
        (["--coco", "x", "--images", "y", "--output", "z"], "--images has no effect without --lost or --fiftyone"),
        (["--coco", "x"], "--coco needs --output"),
        (["--coco", "nothing", "--output", "x"], "there is no run nothing"),
    ],
)
def test_flags_that_do_not_go_together(words, said, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_outputs_and_runs_are_refused(score, tmp_path, capsys) -> None:
    run = score("mine", mixed)
    file = tmp_path / "lost.jsonl"
    for output, said in ((tmp_path / "lost.json", "must end in .jsonl"), (file, "lost.jsonl exists")):
        file.write_text("mine")
        assert main(["export", "--lost", str(run.path), "--output", str(output)]) == 2
        assert said in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert main(["export", "--fiftyone", str(run.path), str(run.path), "--output", str(tmp_path / "f")]) == 2
    assert "two of the runs have one name" in capsys.readouterr().err
