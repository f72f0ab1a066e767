"""Samples of runs that were imported without their pictures: none is taken for another one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from perpo_eval.cli.eval import main


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Callable[..., str]:
    """Import three questions about three pictures, none of which is at hand; returns the run's folder."""
    monkeypatch.chdir(tmp_path)

    def begin(*names: str) -> str:
        row = {"box": [10, 20, 60, 80], "said": "[100, 100, 120, 110]", "width": 200, "height": 150}
        rows = [row | {"image": f"{name}.jpg", "question": f"the {name}"} for name in ("cat", "dog", "owl")]
        Path("own.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        columns = [*(f"{name}={name}" for name in names), "question=question", "truth=box", "answer=said"]
        words = ["own.jsonl", "--name", "bare", "--truths", "boxes_own", "--truth_scale", "pixels"]
        words += ["--truth_order", "xyxy", "--box_scale", "pixels", "--columns", *columns]
        assert main(["import", *words]) == 0
        (record,) = Path("results").rglob("run.json")
        return str(record.parent)

    return begin


def test_pictures_without_digests_stay_apart(bare):
    assert main(["export", "--fiftyone", bare("image", "width", "height"), "--output", "folder"]) == 0
    samples = json.loads(Path("folder/samples.json").read_text())["samples"]
    labels = {each["filepath"]: [box["label"] for box in each["ground_truth"]["detections"]] for each in samples}
    assert labels == {"cat.jpg": ["the cat"], "dog.jpg": ["the dog"], "owl.jpg": ["the owl"]}


@pytest.mark.parametrize(
    ("names", "flag", "problem"),
    [
        (("image",), "--coco", "does not say how large its pictures are"),
        (("image",), "--fiftyone", "does not say how large its pictures are"),
        (("width", "height"), "--fiftyone", "does not say which pictures"),
        (("image", "width", "height"), "--lost", "has no digests of its pictures"),
    ],
)
def test_what_a_bare_run_lacks_is_said(bare, capsys, names, flag, problem):
    output = "lost.jsonl" if flag == "--lost" else "folder"
    assert (
        main(["export", flag, bare(*names), "--output", output, *(["--images", "."] if flag == "--lost" else [])]) == 2
    )
    said = capsys.readouterr().err
    assert problem in said
    assert "hint: import the predictions with --" in said
    assert not Path(output).exists()
