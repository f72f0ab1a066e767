"""perpo-eval from the command line to the run record, and its tasks from lmms-eval's own command line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import ImageFile

from perpo.benchmarks.metrics import PRIMARY
from perpo.boxes import iou
from perpo.errors import PerpoError
from perpo.models.families import FAMILIES
from perpo.models.loading import load_model
from perpo.models.lora import add_lora
from perpo.records.run_record import SAMPLE_COLUMNS, sample_key
from perpo.records.store import Run, read_run
from perpo.records.training_record import read_record
from perpo.results.compare import paired_difference
from perpo.results.samples import read_scores
from perpo.stats import clustered_mean
from perpo.tiny.model import LLAVA15_GEOMETRY, save_random_model
from perpo.train.outputs.saving import save_checkpoint
from perpo_eval.arguments import EvalArguments
from perpo_eval.cli.eval import main
from perpo_eval.evaluate import run as runner
from perpo_eval.evaluate.run import evaluate
from perpo_eval.rows.suites import TASKS_FOLDER

BOXES = ["[0.10, 0.20, 0.50, 0.60]", "no box", "(0.05, 0.2, 0.4, 0.7)", "[0, 0, 1, 1]"]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model answer with boxes, which one by the length of the prompt."""

    def answers(loaded, prompts, *rest) -> list[list[int]]:
        return [[*loaded.tokenizer(BOXES[len(prompt) % 4]).input_ids, 2] for prompt in prompts]

    monkeypatch.setattr("perpo.engines.hf.answer", answers)


def run_on(folder: Path, checkpoint: Path, output: Path, **settings: object) -> Run:
    arguments = {"model": str(checkpoint), "data": str(folder), "output": str(output), "device": "cpu"}
    return read_run(evaluate(EvalArguments(**arguments | settings)))


def test_the_record_holds_what_happened(refcoco_folder, checkpoint, tmp_path, scripted) -> None:
    run = run_on(refcoco_folder, checkpoint, tmp_path / "out")
    record, rows = run.record, run.samples().to_pylist()
    assert run.path.parent == tmp_path / "out" / checkpoint.name
    assert (record.status, record.source, record.name, record.judge) == ("complete", "measured", checkpoint.name, None)
    assert (record.model.dtype, record.model.attention, record.model.adapter_sha256) == ("float32", "sdpa", None)
    assert len(record.model.weights_sha256) == 64
    assert [t.max_new_tokens for t in record.tasks] == [64, 64]
    assert record.generation["max_new_tokens"] == {task.task: 64 for task in record.tasks}
    assert [(t.task, t.n_total, t.n_scored, t.box_frame) for t in record.tasks] == [
        ("refcoco_val", 10, 10, "padded"),
        ("refcocog_val", 10, 10, "padded"),
    ]
    assert list(rows[0]) == list(SAMPLE_COLUMNS)
    assert len({row["sample_key"] for row in rows}) == len(rows) == record.samples.rows == 20
    first = rows[0]
    words = "the thing number 0 on the left"
    assert first["sample_key"] == sample_key("dir:refcoco", None, "val", "100/0", words)
    assert first["question"].endswith(f"describes: {words}")
    assert first["prompt"] == f"USER: <image>\n{first['question']} ASSISTANT:"
    assert first["response"] == BOXES[len(first["prompt"]) % 4]
    assert first["image"] | {"sha256": ""} == {"sha256": "", "path": "COCO_0.jpg", "width": 160, "height": 120}
    assert (first["finish_reason"], first["error"], first["judge"]) == ("stop", None, None)


def test_the_numbers_are_those_of_the_rows(refcoco_folder, checkpoint, tmp_path, scripted) -> None:
    """Scores from the stored boxes, means and intervals from the stored scores, all computed anew."""
    run = run_on(refcoco_folder, checkpoint, tmp_path)
    rows = run.samples().to_pylist()
    assert {row["parse_ok"] for row in rows} == {True, False}
    for row in rows:
        target = json.loads(row["target"])
        box = json.loads(row["prediction"] or "null")
        expected = float(iou(box, target)) if box else 0.0
        assert row["scores"]["iou"] == pytest.approx(expected)
        assert row["scores"]["acc@0.3"] == float(expected >= 0.3)
        assert row["scores"]["parse_fail"] == float(box is None) == float(row["response"] == "no box")
    by_name = {metric.name: metric for metric in run.record.group("grounding").metrics}
    for name in ("iou", "parse_fail", "acc@0.3"):
        scores = [row["scores"][name] for row in rows]
        e = clustered_mean(scores, [row["cluster_id"] for row in rows], [row["task"] for row in rows])
        found = by_name[name]
        assert (found.value, found.stderr, found.ci_low, found.n_clusters) == (e.value, e.stderr, e.ci_low, 5)
    task = run.record.task("refcoco_val")
    assert task.n_parse_fail == sum(not row["parse_ok"] for row in rows if row["task"] == "refcoco_val")
    assert task.metrics[1].value == np.mean([row["scores"]["acc@0.5"] for row in rows if row["task"] == task.task])


def test_the_limit_is_the_same_for_every_task(refcoco_folder, checkpoint, tmp_path) -> None:
    run = run_on(refcoco_folder, checkpoint, tmp_path, limit=3, batch_size=2, name="mine")
    assert [(task.n_total, task.n_scored) for task in run.record.tasks] == [(10, 3), (10, 3)]
    assert run.record.generation["limit"] == 3
    assert run.record.name == "mine"
    again = run_on(refcoco_folder, checkpoint, tmp_path, limit=3, batch_size=16)
    assert again.samples(["response"]) == run.samples(["response"])
    assert paired_difference(read_scores(again), read_scores(run), "iou").value == 0.0


def test_an_adapter_is_told_apart_and_its_training_is_kept(refcoco_folder, checkpoint, tmp_path) -> None:
    loaded = load_model(str(checkpoint))
    folder = tmp_path / "my-adapter"
    save_checkpoint(add_lora(loaded, r=2, alpha=4, dropout=0.0, train_projector=False), loaded.processor, folder)
    model = {"name": "its base", "weights_sha256": loaded.weights_sha256}
    training = {"schema_version": 1, "status": "complete", "arguments": {}, "model": model, "data": {"sha256": "b"}}
    (folder / "training.json").write_text(json.dumps(training))
    record = run_on(refcoco_folder, checkpoint, tmp_path / "out", limit=1, adapter=str(folder)).record
    assert record.training_run == read_record(folder)
    assert (record.model.adapter, record.name) == ("my-adapter", f"{checkpoint.name}+my-adapter")
    assert (
        record.model.adapter_sha256 == hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
    )


def test_what_an_adapter_was_trained_with_is_read_before_the_evaluation(
    refcoco_folder, checkpoint, tmp_path, monkeypatch
) -> None:
    loaded = load_model(str(checkpoint))
    folder = tmp_path / "adapter"
    save_checkpoint(add_lora(loaded, r=2, alpha=4, dropout=0.0, train_projector=False), loaded.processor, folder)
    model = {"name": "its base", "weights_sha256": loaded.weights_sha256}
    training = {"schema_version": 1, "status": "complete", "arguments": {}, "model": model, "data": {"sha256": "b"}}
    (folder / "training.json").write_text(json.dumps(training))
    expected = read_record(folder)

    def damaging(loaded, prompts, *rest) -> list[list[int]]:
        (folder / "training.json").write_text("{")
        return [[2]] * len(prompts)

    monkeypatch.setattr("perpo.engines.hf.answer", damaging)
    record = run_on(refcoco_folder, checkpoint, tmp_path / "out", limit=1, adapter=str(folder)).record
    assert record.training_run == expected
    monkeypatch.setattr(runner, "load_task", lambda *args: pytest.fail("data were read"))
    with pytest.raises(PerpoError, match="is damaged"):
        run_on(refcoco_folder, checkpoint, tmp_path / "out", limit=1, adapter=str(folder))


def test_shapes_that_the_family_refuses_are_named_before_the_model_is_loaded(
    refcoco_folder, checkpoint, tmp_path, monkeypatch
) -> None:
    wide = dataclasses.replace(FAMILIES["qwen3_vl"], most_aspect=1.1)  # the pictures are 160 x 120 and more
    monkeypatch.setattr(runner, "family_from", lambda *args: wide)
    monkeypatch.setattr(runner, "load_engine", lambda *args: pytest.fail("the model is loaded"))
    monkeypatch.setattr(runner, "templates_of", lambda *args: {})
    with pytest.raises(PerpoError, match=r"images cannot be used:\n  COCO_0.jpg: 160 x 120 pixels") as error:
        run_on(refcoco_folder, checkpoint, tmp_path)
    assert error.value.exit_code == 2


def test_nothing_is_left_behind_in_the_process(refcoco_folder, checkpoint, tmp_path) -> None:
    from accelerate.state import AcceleratorState

    accelerator = dict(AcceleratorState._shared_state)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    run_on(refcoco_folder, checkpoint, tmp_path, limit=1)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert AcceleratorState._shared_state == accelerator
    import lmms_eval.evaluator

    assert isinstance(lmms_eval.evaluator.tqdm, type)


def test_a_failing_scorer_fails_with_its_own_error(refcoco_folder, checkpoint, tmp_path, monkeypatch) -> None:
    def broken(*words: object) -> None:
        raise ZeroDivisionError("in the scorer")

    monkeypatch.setattr("perpo_eval.benchmarks.grounding.score_box", broken)
    with pytest.raises(ZeroDivisionError, match="in the scorer"):
        run_on(refcoco_folder, checkpoint, tmp_path, limit=1)
    assert list(tmp_path.glob("**/run.json")) == []


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (["--tasks", "refshapes_va"], "no task 'refshapes_va'", "did you mean refshapes_val"),
        (["--suite", "groundin"], "grounding", ""),
        (["--limit", "0"], "--limit must be at least 1, got 0", ""),
        (["--batch_size", "many"], "batch_size", ""),
        (["--model", "no/such/folder"], "no/such/folder", ""),
        (["--adapter", "no/such"], "does not hold an adapter", "perpo-train"),
        (["--data", "no/such"], "which is not a folder", ""),
        (["--output", "/dev/null/x"], "cannot be written", "another folder"),
        (["--modell", "x"], "--modell", "--model"),
    ],
)
def test_bad_arguments_are_refused_at_once(words, said, hint, checkpoint, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(runner, "load_task", lambda *words: pytest.fail("rows were read"))
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in words else ["--model", str(checkpoint)]
    assert main([*model, *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert hint in err


def test_a_context_that_is_too_short_is_said(refcoco_folder, checkpoint, tmp_path, rows) -> None:
    rows[2]["answer"] = ["word " * 500]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "refcoco_val.parquet")
    with pytest.raises(PerpoError, match="exceed the model's context of 512"):
        run_on(tmp_path, checkpoint, tmp_path / "out")


def program(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_stdout_is_for_machines(refcoco_folder, checkpoint, tmp_path) -> None:
    """In a real process: the record alone on stdout with --json, and a quiet stderr."""
    words = ["--model", str(checkpoint), "--data", str(refcoco_folder), "--limit", "2", "--json"]
    done = program(sys.executable, "-c", "from perpo_eval.cli.eval import main; exit(main())", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    path = tmp_path / "results" / checkpoint.name / record["run_id"]
    assert json.loads((path / "run.json").read_text()) == record
    assert done.stderr.splitlines()[-1].endswith(str(path.relative_to(tmp_path)))
    expected = [
        f"warning: {task['n_truncated']} of 2 answers to {task['task']} were cut at 64 tokens; --max_new_tokens sets "
        "where, for a task or for all"
        for task in record["tasks"]
        if task["n_truncated"]
    ]
    assert [line for line in done.stderr.splitlines() if "arn" in line or "Traceback" in line] == expected


@pytest.mark.slow
def test_the_tasks_run_from_lmms_evals_own_command_line(checkpoint, tmp_path) -> None:
    """The same task files, the model class found by its name, and the same numbers."""
    limit, task = 40, "refshapes+_val"
    ours = run_on("tiny", checkpoint, tmp_path / "ours", tasks=[task], limit=limit)
    done = program(
        *(sys.executable, "-m", "lmms_eval", "--include_path", str(TASKS_FOLDER), "--model", "perpo"),
        *("--model_args", f"pretrained={checkpoint},device=cpu", "--tasks", task, "--limit", str(limit)),
        *("--batch_size", "8", "--log_samples", "--output_path", str(tmp_path / "theirs")),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("theirs/**/*_results.json")
    results = json.loads(file.read_text())["results"][task]
    for metric in ours.record.tasks[0].metrics:
        if metric.name.startswith("acc@0.5:"):  # by size and in other frames, which the task files do not have
            continue
        assert results[f"{metric.name},none"] == pytest.approx(metric.value)
    (samples,) = tmp_path.glob("theirs/**/*_samples_*.jsonl")
    theirs = [json.loads(line)["filtered_resps"] for line in samples.read_text().splitlines()]
    assert theirs == [row["response"].strip() for row in ours.samples().to_pylist()]


def test_photographs_on_the_token_geometry_of_llava_1_5(rows, tmp_path) -> None:
    """576 image tokens, Vicuna's template, photographs that are not square: ten rows, whole prompts."""
    model = save_random_model(tmp_path / "llava", LLAVA15_GEOMETRY)
    folder = tmp_path / "data"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "refcoco_testA.parquet")
    run = run_on(folder, model, tmp_path / "out", limit=10)
    assert run.record.samples.rows == 10
    assert run.samples(["prompt"])["prompt"][0].as_py().startswith("A chat between a curious human")


def test_without_lmms_eval_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lmms_eval", None)
    assert main(["--limit", "1"]) == 2
    err = capsys.readouterr().err
    assert "lmms-eval, which perpo-eval needs, is not installed" in err
    assert "hint: pip install 'perpo[eval]'" in err


def test_the_embedded_model_serves_every_benchmark(tmp_path) -> None:
    """Its scores mean something: yes/no F1 above 0.8, edit distance below 0.5, boxes that are mostly right."""
    settings = {"suite": "paper", "limit": 40, "batch_size": 64, "device": "cpu"}
    run = read_run(evaluate(EvalArguments(**settings, output=str(tmp_path))))
    primary = {g.name: next(m.value for m in g.metrics if m.name == PRIMARY[g.benchmark]) for g in run.record.groups}
    assert primary["pope"] > 0.8
    assert primary["ocr"] < 0.5
    assert primary["grounding"] > 0.6
    assert [len(group.tasks) for group in run.record.groups] == [8, 3, 1]
    assert all(task.n_scored == 40 for task in run.record.tasks)
    asked = {task.task: task.prompt for task in run.record.tasks}
    assert asked["refshapes_val"].endswith("describes: {query}")
    assert asked["tinypages_test"] == "OCR this image:"
    assert asked["tinypope_random"] == "{query}\nAnswer the question using a single word or phrase."
    declared = [m.name for m in run.record.task("refshapes_val").metrics if m.name.startswith("acc@0.5:")]
    assert declared == [f"acc@0.5:{name}" for name in ("small", "medium", "large", "padded", "original", "cropped")]
