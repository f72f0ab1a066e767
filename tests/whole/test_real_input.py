"""The programs as a person uses them: photographs, wrong paths, a model of another kind, Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from perpo.cli.sample import main as sample_main
from perpo.cli.train import main as train_main
from perpo.records.store import read_run
from perpo.records.training_record import read_record
from perpo.tiny.model import LLAVA15_GEOMETRY, TINY, save_random_model
from perpo_eval.cli.eval import main as eval_main
from perpo_eval.cli.run import main as run_main
from perpo_eval.engines.lmms_model import PerpoModel

PROGRAMS = {
    "perpo-sample": "perpo.cli.sample:main",
    "perpo-train": "perpo.cli.train:main",
    "perpo-eval": "perpo_eval.cli.eval:main",
    "perpo-run": "perpo_eval.cli.run:main",
    "perpo-demo": "perpo_eval.cli.run:demo_main",
}
QUESTION = "Please provide the bounding box coordinate of the region this sentence describes: the dog"


def flags(**values: object) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]


def python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True, text=True, timeout=300, env=environment | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """A folder of pictures that are not square, wide and tall, with questions and rows in RefCOCO's columns."""
    folder = tmp_path_factory.mktemp("photographs")
    rows = []
    with (folder / "questions.jsonl").open("w") as questions:
        for number, size in enumerate([(640, 480), (375, 500), (640, 425), (500, 333), (428, 640)]):
            coarse = np.random.default_rng(number).integers(0, 255, (9, 12, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, format="JPEG")
            name = f"photograph{number}.jpg"
            (folder / name).write_bytes(buffer.getvalue())
            question = {"image_path": name, "question": f"<image>\n{QUESTION}", "answer": "[0.1, 0.2, 0.5, 0.7]"}
            questions.write(json.dumps(question) + "\n")
            rows.append(
                {
                    "question_id": str(number),
                    "image": {"bytes": buffer.getvalue(), "path": name},
                    "answer": ["the dog", "the cat on the left", "not asked any more"],
                    "bbox": [10.0, 20.0, 100.0, 80.0],
                    "file_name": name,
                }
            )
    (folder / "refcoco").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "refcoco" / "refcoco_val.parquet")
    return folder


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_takes_less_than_a_second_and_imports_nothing_heavy(program):
    code = """
import importlib, sys, time
module, _, function = sys.argv[1].partition(":")
try:
    code = getattr(importlib.import_module(module), function)(["--help"])
except SystemExit as end:
    code = end.code
heavy = {"torch", "transformers", "lmms_eval", "datasets", "pandas", "pyarrow", "scipy"} & set(sys.modules)
print(code or 0, sorted(heavy), time.process_time(), file=sys.stderr)
"""
    done = python(code, PROGRAMS[program])
    code_, heavy, seconds = done.stderr.split()
    assert (code_, heavy) == ("0", "[]")
    assert float(seconds) < 1  # of processor time: the machine may be busy
    assert program in done.stdout
    assert "--output" in done.stdout


def test_photographs_at_true_token_geometry_from_sampling_to_a_run_record(photographs, tmp_path, capsys):
    model = save_random_model(tmp_path / "llava15", LLAVA15_GEOMETRY)
    output = tmp_path / "preferences.jsonl"
    questions = flags(model=model, questions=photographs / "questions.jsonl", output=output)
    assert sample_main([*questions, *flags(num_candidates=3, max_new_tokens=6, reward="edit")]) == 0
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [len(record["answers_gen"]) for record in records] == [3] * 5
    assert {record["image_path"] for record in records} == {f"photograph{number}.jpg" for number in range(5)}

    trained = flags(model=model, data=output, image_root=photographs, output_dir=tmp_path / "adapter", max_steps=2)
    assert train_main([*trained, "--keep_truncated", "--lora_r=4", "--save_steps=0"]) == 0
    assert read_record(tmp_path / "adapter")["steps"] == 2
    capsys.readouterr()

    evaluated = flags(model=model, adapter=tmp_path / "adapter", data=photographs / "refcoco", limit=10)
    assert eval_main([*evaluated, f"--output={tmp_path / 'results'}", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)  # the whole of stdout
    (result,) = record["tasks"]
    assert (result["n_total"], result["n_scored"], result["box_frame"]) == (15, 10, "padded")
    assert record["training_run"]["steps"] == 2
    samples = read_run(next((tmp_path / "results").rglob("run.json"))).samples(["image", "target"]).to_pylist()
    assert {(row["image"]["width"], row["image"]["height"]) for row in samples} >= {(640, 480), (375, 500)}


def test_stdout_of_training_is_the_directory_and_stderr_one_line(photographs, tiny_model, tmp_path):
    record = {"image_path": "photograph0.jpg", "question": QUESTION, "answer": "here"}
    record |= {"answers_gen": ["left", "right"], "iou_scores": [0.2, 0.8]}
    (tmp_path / "data.json").write_text(json.dumps([record]))
    words = flags(model=tiny_model, data=tmp_path / "data.json", image_root=photographs, output_dir=tmp_path / "run")
    done = python("import sys; from perpo.cli.train import main; sys.exit(main(sys.argv[1:]))", *words, "--lora_r=2")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'run'}\n")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("1 of 1 records, 2 answers; 1 steps in ")


def original_llava(folder: Path, config: dict[str, str]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "pytorch_model.bin").touch()
    return folder


def each_program(photographs: Path, folder: Path, model: object, output: object) -> dict[str, int]:
    """Exit codes of the programs, given a model and where to write."""
    record = {"image_path": "photograph0.jpg", "question": QUESTION, "answer": "here"}
    record |= {"answers_gen": ["left", "right"], "rewards": [0.2, 0.8]}
    (folder / "data.json").write_text(json.dumps([record]))
    recipe = {"name": "r", "model": str(model), "evaluate": {"tasks": ["refshapes_val"]}, "experiments": {"base": {}}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return {
        "sample": sample_main(
            flags(model=model, questions=photographs / "questions.jsonl", output=f"{output}/preferences.jsonl")
        ),
        "train": train_main(
            flags(model=model, data=folder / "data.json", image_root=photographs, output_dir=f"{output}")
        ),
        "eval": eval_main(flags(model=model, data=photographs / "refcoco", output=output)),
        "run": run_main([str(folder / "recipe.yaml"), f"--output_dir={output}"]),
    }


@pytest.mark.parametrize(
    ("config", "said", "hint"),
    [
        ({"model_type": "llava_llama"}, "is an original LLaVA checkpoint", "convert_llava_weights_to_hf.py"),
        ({"model_type": "llava", "mm_vision_tower": "clip"}, "is an original LLaVA checkpoint", "llava-hf/"),
        ({"model_type": "llava"}, "holds no weights in the safetensors format", "save_pretrained"),
        (None, "there is no model folder", "a hub id"),
    ],
)
def test_every_program_says_what_is_wrong_with_a_model(photographs, tmp_path, capsys, config, said, hint):
    model = tmp_path / "model"
    if config is not None:
        original_llava(model, config)
    codes = each_program(photographs, tmp_path, model, tmp_path / "out")
    assert set(codes.values()) == {2}, codes
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count(said), shown.err.count("hint: ")) == ("", 4, 4)
    assert shown.err.count(hint) == 4
    assert not list((tmp_path / "out").rglob("*"))  # a recipe that is corrected finds its folder free


def test_every_program_refuses_an_output_that_cannot_be_written_before_it_loads_the_model(
    photographs, tiny_model, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("transformers.AutoModelForImageTextToText.from_pretrained", pytest.fail)
    (tmp_path / "file").touch()
    codes = each_program(photographs, tmp_path, tiny_model, tmp_path / "file" / "out")
    assert set(codes.values()) == {2}, codes
    assert capsys.readouterr().err.count("/file is no folder") == 4


def test_a_device_that_is_not_there(photographs, tiny_model, tmp_path, capsys):
    words = flags(model=tiny_model, data=photographs / "refcoco", output=tmp_path, device="gpu")
    assert eval_main(words) == 2
    assert "the device gpu cannot be used" in capsys.readouterr().err


def test_an_expression_too_long_for_the_model_is_named_and_nothing_is_stored(photographs, tiny_model, tmp_path, capsys):
    rows = pq.read_table(photographs / "refcoco" / "refcoco_val.parquet").to_pylist()
    rows[3]["answer"] = ["dog " * 600 + "with a hat"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "refcoco_val.parquet")
    assert eval_main(flags(model=tiny_model, data=tmp_path, output=tmp_path / "results")) == 2
    error = capsys.readouterr().err
    assert "exceed the model's context of 512" in error
    assert "with a hat" in error
    assert not list((tmp_path / "results").rglob("run.json"))


def test_ctrl_c_in_an_evaluation_stores_no_run(photographs, tiny_model, tmp_path, capsys, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PerpoModel, "_answer", interrupt)
    assert eval_main(flags(model=tiny_model, data=photographs / "refcoco", output=tmp_path / "results")) == 130
    assert capsys.readouterr().err.endswith(
        "interrupted; finished work is kept: run the same command again to continue\n"
    )
    assert not list((tmp_path / "results").rglob("run.json"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluate": {"tasks": ["refshapes_vla"]}}, "has no task 'refshapes_vla'"),
        ({"evaluate": {"limit": 0}}, "evaluate: limit must be at least 1, got 0"),
        ({"data": {"d": {"tiny": {"images": 3}}}}, "x needs 4 images at least, and 'd' has 3"),
        ({"data": {"d": {"file": "few.jsonl", "image_root": "."}}}, "x needs 4 questions at least, and 'd' has 1"),
        ({"data": {"d": {"file": "named.jsonl", "image_root": "."}}}, "x needs 4 questions at least, and 'd' has 1"),
        ({"data": {"d": {"file": "gone.jsonl", "image_root": "."}}}, "gone.jpg: no such file"),
        ({"data": {"d": {"file": "torn.jsonl"}}}, "torn.jsonl, line 2: not JSON"),
        ({"seed": "one"}, "seed must be a whole number from 0, found 'one'"),
    ],
)
def test_a_recipe_is_checked_to_its_last_experiment_before_its_first(tiny_model, tmp_path, capsys, changes, said):
    Image.new("RGB", (40, 30)).save(tmp_path / "here.jpg")
    question = {"image_path": "here.jpg", "question": "where?", "answer": "[0.1, 0.2, 0.5, 0.7]"}
    (tmp_path / "few.jsonl").write_text(json.dumps(question) + "\n")
    (tmp_path / "named.jsonl").write_text(json.dumps(question | {"question": None, "expression": "it"}) + "\n")
    (tmp_path / "gone.jsonl").write_text((json.dumps(question | {"image_path": "gone.jpg"}) + "\n") * 4)
    (tmp_path / "torn.jsonl").write_text(json.dumps(question) + "\n{torn\n")
    experiments = {"base": {}, "x": {"data": "d", "rounds": 4, "train": {"method": "rft"}}}
    recipe = {"name": "r", "model": str(tiny_model), "data": {"d": {"tiny": {"images": 4}}}, "experiments": experiments}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe | changes))
    assert run_main([str(tmp_path / "recipe.yaml"), f"--output_dir={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "\nhint: " in error
    assert not list((tmp_path / "out").rglob("*.json"))


def test_a_run_without_its_base_is_refused_before_it_starts(tiny_model, tmp_path, capsys):
    experiments = {"base": {}, "x": {"data": "d", "train": {"method": "sft"}}}
    recipe = {"name": "r", "model": str(tiny_model), "data": {"d": {"tiny": {"images": 4}}}, "experiments": experiments}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert run_main([str(tmp_path / "recipe.yaml"), f"--output_dir={tmp_path / 'out'}", "--only", "x"]) == 2
    assert "'base' has not been run, but all others are compared with it" in capsys.readouterr().err
    assert not (tmp_path / "out" / "data").exists()
