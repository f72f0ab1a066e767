"""--reviewed_labels: Acc@0.5 on the labels that a review found right and wrong, told from made review files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perpo.errors import PerpoError
from perpo.prepare.published_counts import REFER_COUNTS, REVIEWED_WRONG
from perpo.records.run_record import metric_of
from perpo.records.store import Run, read_run
from perpo.results.compare import mismatches
from perpo.results.leaderboard.board import boards
from perpo.results.regression.report import compare_runs
from perpo.results.run_tables import run_texts
from perpo_eval.arguments import EvalArguments
from perpo_eval.cli.eval import main
from perpo_eval.evaluate.run import evaluate
from perpo_eval.rows import label_review
from perpo_eval.rows.label_review import read_reviews
from perpo_eval.rows.suites import spec_of
from tests.support.evaluation import refcoco_rows

PICTURES = 5
TASKS = ("refcoco_val", "refcocog_val")


def coco(number: int) -> int:
    return 1000 + number


def made_rows() -> list[dict]:
    """RefCOCO's rows under COCO's names, two expressions each; every box is [10, 20, 50.5, 60]."""
    rows = refcoco_rows(PICTURES)
    for number, row in enumerate(rows):
        name = f"COCO_train2014_{coco(number):012d}.jpg"
        row["file_name"] = row["image"]["path"] = name
    return rows


def review_of(rows: list[dict], wrong: set[tuple[int, int]]) -> dict:
    """The review of those rows in the published layout; `wrong` names rows and the places of expressions."""
    images, annotations = [], []
    for number, row in enumerate(rows):
        for place, expression in enumerate(row["answer"]):
            entry = len(images)
            images.append(
                {"id": entry, "original_id": coco(number), "caption": expression, "file_name": row["file_name"]}
            )
            about = {"id": 7 + entry, "image_id": entry, "original_id": 100 + number, "bbox": row["bbox"], "area": 9.0}
            annotations.append(about | {"caption_quality": int((number, place) not in wrong)})
    return {"info": {}, "images": images, "annotations": annotations, "categories": []}


WRONG = {"refcoco_val": {(0, 0), (1, 1), (3, 0)}, "refcocog_val": {(2, 1)}}


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for task in TASKS:
        pq.write_table(pa.Table.from_pylist(made_rows()), folder / f"{task}.parquet")
    return folder


@pytest.fixture
def review(tmp_path) -> Path:
    folder = tmp_path / "review"
    folder.mkdir()
    for task in TASKS:
        (folder / f"{task}_reviewed.json").write_text(json.dumps(review_of(made_rows(), WRONG[task])))
    return folder


@pytest.fixture
def score(data, tmp_path) -> Callable[..., Run]:
    """Score answers: right for those expressions whose place `hits` names, by task, row and place."""

    def begin(hits: Callable[[str, int, int], bool], asked: str = "{}", **settings: object) -> Run:
        file = tmp_path / "questions.jsonl"
        common = {"suite": "grounding", "data": str(data), "family": "qwen2_5_vl"}
        main(["--questions", str(file), *(word for name, value in common.items() for word in (f"--{name}", value))])
        lines = []
        for line in map(json.loads, file.read_text().splitlines()):
            row, place = line["source_id"].split("/")
            right = hits(line["task"], int(row) - 100, int(place))
            answer = "[10, 20, 60, 80]" if right else "[100, 100, 110, 110]"
            lines.append({"sample_key": line["sample_key"], "response": answer})
            if asked != "{}":
                lines[-1]["question"] = asked.format(line["question"].rpartition(": ")[2])
        answers = tmp_path / "answers.jsonl"
        answers.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        scales = {"responses": answers, "box_scale": "pixels", "box_frame": "original", "output": str(tmp_path / "out")}
        path = evaluate(EvalArguments(**common | scales | settings))  # type: ignore[arg-type]
        assert path is not None
        return read_run(path)

    return begin


def some(task: str, row: int, place: int) -> bool:
    """Answers that are right on some right and on some wrong labels."""
    return (row + place) % 2 == 0


def expected(task: str, hits: Callable[[str, int, int], bool]) -> tuple[float, float]:
    """The accuracies on right and wrong labels, counted here."""
    told: dict[bool, list[bool]] = {True: [], False: []}
    for row in range(PICTURES):
        for place in range(2):
            told[(row, place) not in WRONG[task]].append(hits(task, row, place))
    right, wrong = (sum(values) / len(values) for values in (told[True], told[False]))
    return right, wrong


def accuracies(run: Run, task: str) -> tuple[float | None, float | None]:
    metrics = run.record.task(task).metrics
    found = [metric_of(metrics, f"acc@0.5:{name}") for name in ("reviewed", "mislabelled")]
    return tuple(metric.value for metric in found)  # type: ignore[return-value, union-attr]


def test_accuracies_on_right_and_on_wrong_labels(score, review, capsys) -> None:
    run = score(some, reviewed_labels=str(review))
    for task in TASKS:
        assert accuracies(run, task) == pytest.approx(expected(task, some))
        about = run.record.generation["reviewed_labels"][task]
        assert (about["wrong"], about["right"], about["unmatched"]) == (len(WRONG[task]), 10 - len(WRONG[task]), 0)
        assert about["sha256"][:8] in (run.record.task(task).note or "")
    said = capsys.readouterr().err
    assert "refcoco_val: labels reviewed: 3 wrong and 7 right, 0 without a verdict" in said
    rows = run.samples(["scores"])["scores"].to_pylist()
    assert all((row["acc@0.5:reviewed"] is None) != (row["acc@0.5:mislabelled"] is None) for row in rows)
    group = run.record.group("grounding")
    assert group is not None
    mean = sum(expected(task, some)[0] for task in TASKS) / 2
    found = metric_of(group.metrics, "acc@0.5:reviewed")
    assert found is not None
    assert found.value == pytest.approx(mean)


def test_without_the_flag_nothing_is_new(score) -> None:
    run = score(some)
    assert "reviewed_labels" not in run.record.generation
    assert metric_of(run.record.task("refcoco_val").metrics, "acc@0.5:reviewed") is None


@pytest.mark.parametrize("asked", ["{}", "Where is <{}>?"])
def test_a_stored_run_is_scored_again_without_pictures(score, review, data, tmp_path, asked) -> None:
    """Also one whose question was another one than ours, which the record does not hold as a template."""
    before = score(some, asked)
    assert (before.record.task("refcoco_val").prompt is None) == (asked != "{}")
    for file in data.iterdir():
        file.unlink()
    words = ["--rescore", str(before.path), "--reviewed_labels", str(review), "--output", str(tmp_path / "again")]
    assert main(words) == 0
    (file,) = (tmp_path / "again").rglob("run.json")
    run = read_run(file)
    for task in TASKS:
        assert accuracies(run, task) == pytest.approx(expected(task, some))
        assert metric_of(run.record.task(task).metrics, "acc@0.5") == metric_of(
            before.record.task(task).metrics, "acc@0.5"
        )


def test_scored_once_more_the_review_stays_and_another_takes_its_place(score, review, tmp_path) -> None:
    first = score(some, reviewed_labels=str(review))
    assert main(["--rescore", str(first.path), "--output", str(tmp_path / "second")]) == 0
    second = read_run(next((tmp_path / "second").rglob("run.json")))
    assert second.record.tasks[0].metrics == first.record.tasks[0].metrics
    assert second.record.generation == first.record.generation
    for task in TASKS:
        file = review / f"{task}_reviewed.json"
        file.write_text(json.dumps(review_of(made_rows(), {(4, 0)})))
    words = ["--rescore", str(second.path), "--reviewed_labels", str(review), "--output", str(tmp_path / "third")]
    assert main(words) == 0
    third = read_run(next((tmp_path / "third").rglob("run.json")))
    note = third.record.tasks[0].note or ""
    assert note.count("labels reviewed") == 1
    assert "1 wrong and 9 right" in note
    told = "; ".join(mismatches(third.record, first.record))
    assert "refcoco_val: reviewed labels" in told
    with pytest.raises(PerpoError, match="reviewed labels"):
        compare_runs(first, third)
    assert mismatches(second.record, first.record) == []


def test_only_what_is_the_same_picture_box_and_expression_is_matched(score, review, capsys) -> None:
    file = review / "refcoco_val_reviewed.json"
    content = json.loads(file.read_text())
    content["images"][0]["original_id"] = 9  # another picture
    content["images"][2]["caption"] = "a third one"  # another expression
    content["annotations"][4]["bbox"][2] += 1.0  # another box
    twice = {**content["annotations"][6], "caption_quality": 1 - content["annotations"][6]["caption_quality"]}
    content["annotations"].append(twice)  # told both right and wrong
    content["images"][8]["caption"] = "  " + content["images"][8]["caption"].upper()  # the same
    content["annotations"][8]["bbox"][0] += 0.004  # the same, as float32 has it
    file.write_text(json.dumps(content))
    run = score(some, reviewed_labels=str(review))
    about = run.record.generation["reviewed_labels"]["refcoco_val"]
    left_out = {(0, 0), (1, 0), (2, 0), (3, 0)}
    assert about["unmatched"] == len(left_out)
    assert about["wrong"] == len(WRONG["refcoco_val"] - left_out)
    assert "4 without a verdict" in capsys.readouterr().err


def test_tables_boards_and_reports_tell_it(score, review) -> None:
    def better(task: str, row: int, place: int) -> bool:
        return some(task, row, place) or (row, place) == (1, 1) or (row, place) in WRONG[task] or row == 4

    old, new = (
        score(some, name="old", reviewed_labels=str(review)),
        score(better, name="new", reviewed_labels=str(review)),
    )
    header = run_texts(new.record)[0].header
    assert [name for name in header if "labels" in name] == ["Acc@0.5, right labels", "Acc@0.5, wrong labels"]
    columns = [column.title for column in boards([old, new])[0].columns]
    assert "refcoco_val Acc@0.5, right labels" in columns
    assert sum("right labels" in title for title in columns) == len(TASKS) + 1  # and their average
    assert not any("wrong labels" in title for title in columns)
    notes = [note for note in compare_runs(old, new).notes if "label is wrong" in note]
    assert len(notes) == len(TASKS) + 1
    every = [(row, place) for row in range(PICTURES) for place in range(2)]
    for task, note in zip(TASKS, notes, strict=False):
        gained = [key for key in every if better(task, *key) and not some(task, *key)]
        total, wrong = 10.0 * len(gained), 10.0 * len([key for key in gained if key in WRONG[task]])
        assert (
            f"{task}: of the difference of {total:+.2f} points in Acc@0.5, {wrong:+.2f} lie on the {len(WRONG[task])}"
            in note
        )


# ---- the files ----


def test_published_counts_are_held_against(tmp_path, capsys) -> None:
    """Files with the published counts are read without a word; three labels more or less are the same."""
    for split, wrong in (("val", 600), ("test", REVIEWED_WRONG["refcocog"] - 603)):
        count = REFER_COUNTS["refcocog"][split][1]
        images = [{"id": n, "original_id": 1 + n % 9, "caption": f"thing {n}"} for n in range(count)]
        bad = [{"image_id": n, "bbox": [0, 0, 5.5, 5], "caption_quality": int(n >= wrong)} for n in range(count)]
        (tmp_path / f"refcocog_{split}_reviewed.json").write_text(json.dumps({"images": images, "annotations": bad}))
    specs = [spec_of("refcocog_val"), spec_of("refcocog_test")]
    reviews = read_reviews(str(tmp_path), specs)
    assert capsys.readouterr().err == ""
    assert reviews["refcocog_val"].wrong == 600
    assert reviews["refcocog_val"].verdict("COCO_train2014_000000000001.jpg", [0, 0, 5.5, 5], "thing 0") is False
    assert reviews["refcocog_val"].verdict("COCO_train2014_000000000001.jpg", [0, 0, 5.5, 5], "thing 900") is True
    assert reviews["refcocog_val"].verdict("another.jpg", [0, 0, 5.5, 5], "thing 900") is None


def test_other_counts_are_said(review, capsys) -> None:
    read_reviews(str(review), [spec_of("refcoco_val")])
    said = capsys.readouterr().err
    assert "warning: these reviewed labels are not the published ones: refcoco_val 10 expressions, not 10,834" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.pop("annotations"), "no list `annotations`"),
        (
            lambda data: data["annotations"][3].pop("caption_quality"),
            "entry 3 of `annotations` has None as caption_qual",
        ),
        (lambda data: data["annotations"][3].update(caption_quality=2), "has 2 as caption_quality"),
        (lambda data: data["annotations"][3].update(caption_quality=True), "has True as caption_quality"),
        (lambda data: data["annotations"][0].update(bbox=[1, 2, 3]), "as bbox"),
        (lambda data: data["annotations"][0].update(image_id=77), "is about the image 77, which is not there"),
        (lambda data: data["images"][1].pop("original_id"), "entry 1 of `images` has None as original_id"),
        (lambda data: data["images"].__setitem__(1, 5), "entry 1 of `images` has 5 as id"),
        (lambda data: data["images"][1].update(id=0), "two entries of `images` have one id"),
    ],
)
def test_other_layouts_are_refused(review, change, said) -> None:
    file = review / "refcoco_val_reviewed.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(PerpoError) as refused:
        read_reviews(str(review), [spec_of("refcoco_val")])
    assert said in refused.value.message


def test_what_is_missing_is_refused_before_answers_are_read(score, review, data, tmp_path, capsys) -> None:
    (review / "refcocog_val_reviewed.json").unlink()
    with pytest.raises(PerpoError, match=r"there is no .*refcocog_val_reviewed\.json"):
        score(some, reviewed_labels=str(review))
    assert main(["--data", str(data), "--reviewed_labels", str(tmp_path / "nowhere")]) == 2
    assert "which is no folder" in capsys.readouterr().err
    assert main(["--data", "tiny", "--reviewed_labels", str(review)]) == 2
    assert "no task of this run has reviewed labels" in capsys.readouterr().err
    (review / "refcoco_val_reviewed.json").write_text("{")
    assert main(["--data", str(data), "--reviewed_labels", str(review), "--tasks", "refcoco_val"]) == 2
    assert "is not JSON" in capsys.readouterr().err
    assert main(["--data", str(data), "--reviewed_labels", str(review), "--questions", str(tmp_path / "q")]) == 2
    assert "--reviewed_labels has no effect with --questions" in capsys.readouterr().err


def test_the_hub_is_asked_for_its_folder(review, monkeypatch) -> None:
    asked = []

    def fetched(repository: str, patterns: list[str]) -> tuple[Path, str]:
        asked.append((repository, *patterns))
        return review.parent, "a" * 40

    review.rename(review.parent / "refcocos_annotation_reviewed")
    monkeypatch.setattr(label_review, "hub_folder", fetched)
    found = read_reviews("hub", [spec_of("refcoco_val")])
    assert asked == [("JierunChen/Ref-L4", "refcocos_annotation_reviewed/*")]
    assert found["refcoco_val"].source == f"refcoco_val_reviewed.json of JierunChen/Ref-L4, {'a' * 40}"
