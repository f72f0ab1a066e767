"""A recipe from a folder of PDF files to evaluated adapters, with the paper's OCR model at its real token counts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from perpo_eval.cli.run import main
from perpo_eval.recipes.experiment import ExperimentRun
from perpo_eval.recipes.reading import read_recipe
from tests.support import ROOT
from tests.support.ocr_checkpoint import write_ocr_checkpoint

ONE = {"save_steps": 0, "per_device_train_batch_size": 1}
RECIPE: dict[str, Any] = {
    "name": "pages",
    "model": "./model",
    "data": {
        "papers": {"pdf": "papers", "settings": {"eval_share": 0.3}},
        "lessons": {"of": "papers", "count": 2},
        "questions": {"of": "papers", "start": 2, "count": 2},
        "pairs": {"sampled": "questions"},
    },
    "teach": {"data": "lessons", "train": {"learning_rate": 0.01, **ONE}},
    "sample": {"num_candidates": 2, "max_new_tokens": 8, "reward": "edit", "min_margin": 0.0},
    "train": {"lora_r": 4, "lora_alpha": 8, **ONE},
    "evaluate": {"suite": "ocr", "data": "papers", "max_new_tokens": 8, "limit": 1},
    "experiments": {"base": {}, "sft": {"data": "pairs", "train": {"method": "sft"}}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    write_ocr_checkpoint(folder / "model")
    (folder / "papers").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import made_pdfs
    rng = random.Random(0)
    for number in range(8):
        (folder / "papers" / f"{number}.pdf").write_bytes(made_pdfs.KINDS["plain"](rng, pages=2).data)
    return folder


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | changes), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def done(folder: Path) -> Path:
    """The output folder of all stages, of which each was done once."""
    run = ExperimentRun(read_recipe(written(folder)), folder / "out")
    names = ["base", "sft"]
    run.check(names)
    for name in names:
        for stage in run.plan(name):
            stage.do()
    return folder / "out"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_parts_of_pages_are_apart_and_in_order(done: Path) -> None:
    pages = [row["image_path"] for row in lines(done / "data" / "papers" / "questions.jsonl")]
    parts = [
        row["image_path"]
        for part in ("lessons", "questions")
        for row in lines(done / "data" / part / "questions.jsonl")
    ]
    assert parts == pages[:4]


def test_the_model_is_taught_and_all_experiments_start_from_it(done: Path, folder: Path) -> None:
    told = json.loads((done / "taught" / "training.json").read_text(encoding="utf-8"))
    assert told["arguments"]["lora_enable"] is False
    assert (done / "taught" / "model.safetensors").read_bytes() != (folder / "model" / "model.safetensors").read_bytes()
    keys = [json.loads((done / name / "stage.json").read_text(encoding="utf-8"))["key"]["model"]
            for name in ("base/evaluate", "sft/evaluate", "sft/train", "data/pairs")]  # fmt: skip
    assert len(set(keys)) == 1
    taught = json.loads((done / "taught" / "stage.json").read_text(encoding="utf-8"))["key"]["model"]
    assert taught not in keys


def test_the_pages_that_are_held_out_are_evaluated(done: Path) -> None:
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (done / "results").rglob("run.json")]
    assert sorted(record["name"] for record in records) == ["base", "sft"]
    assert {task["task"] for record in records for task in record["tasks"]} == {"pages_pdf"}


def test_a_finished_run_has_nothing_to_do_and_another_folder_of_pdfs_is_refused(
    done: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(written(folder)), "--output_dir", str(done), "--dry_run"]
    assert main(words) == 0
    plan = capsys.readouterr().out.splitlines()
    assert plan[0] == "base: data/papers (done), data/lessons (done), taught (done), evaluate (done)"
    first = folder / "papers" / "0.pdf"
    kept = first.read_bytes()
    first.write_bytes((folder / "papers" / "1.pdf").read_bytes())
    try:
        assert main(words) == 2
        assert "was made with another pdfs than would be used now" in capsys.readouterr().err
    finally:
        first.write_bytes(kept)


def test_too_few_pages_stop_before_anything_is_taught(folder: Path, tmp_path: Path) -> None:
    data = RECIPE["data"] | {"lessons": {"of": "papers", "count": 50}}
    run = ExperimentRun(read_recipe(written(folder, data=data)), tmp_path)
    stages = run.plan("base")
    stages[0].do()
    with pytest.raises(Exception, match=r"needs 50 pages for training, and 'papers' has"):
        stages[1].do()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": RECIPE["data"] | {"lessons": {"of": "pairs", "count": 2}}}, "which is no pages of PDF files"),
        ({"data": RECIPE["data"] | {"papers": {"pdf": "papers", "settings": {"dpi": -1}}}}, "dpi"),
        (
            {"data": RECIPE["data"] | {"papers": {"pdf": "papers", "settings": {"output": "x"}}}},
            "set by the run itself",
        ),
        ({"data": RECIPE["data"] | {"papers": {"pdf": "papers", "count": 2}}}, "count has no effect with pdf"),
        ({"data": RECIPE["data"] | {"lessons": {"of": "papers", "count": 0}}}, "count"),
        ({"teach": {"data": "pairs"}}, "do not exist, or are sampled"),
        ({"teach": {"data": "lessons", "train": {"method": "dpo"}}}, "teach"),
        ({"teach": {"data": "lessons", "train": {"lora_enable": True}}}, "teach trains all weights by sft"),
        ({"evaluate": RECIPE["evaluate"] | {"data": "lessons"}}, "is no pages of PDF files"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    assert main([str(written(folder, **changes)), "--output_dir", str(tmp_path / "out"), "--dry_run"]) == 2
    assert said in capsys.readouterr().err


def test_an_estimate_names_each_stage_once_and_writes_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(written(folder)), "--output_dir", str(tmp_path / "out")]
    assert main([*words, "--estimate", "a100-80gb"]) == 0
    table = capsys.readouterr().out
    rows = [
        line.split()[0]
        for line in table.splitlines()
        if "/" in line.split(" ")[0] or line.startswith(("taught", "all "))
    ]
    assert rows[:7] == ["data/papers", "taught", "base/evaluate", "data/pairs", "sft/train", "sft/evaluate", "all"]
    assert "Hours are for one A100-80GB" in table
    assert not (tmp_path / "out").exists()
    assert main([*words, "--estimate", "abacus"]) == 2
    assert "no GPU is known by the name abacus" in capsys.readouterr().err
