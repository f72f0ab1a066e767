"""Tasks of lmms-eval by name, and one's own: numbers equal lmms-eval's functions, called here on their own."""

from __future__ import annotations

import hashlib
import importlib
import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from perpo.records.run_record import metric_of
from perpo.records.store import read_run
from perpo.stats import clustered_mean
from perpo_eval.arguments import EvalArguments
from perpo_eval.evaluate.run import evaluate

NAMES = ["mme", "pope", "ocrbench", "my_task"]


def payloads(task: str, rows: list[dict], responses: list[str]) -> dict[str, list]:
    """What lmms-eval's own process_results gives, by metric."""
    module = importlib.import_module(f"lmms_eval.tasks.{task}.utils")
    found: dict[str, list] = {}
    for row, response in zip(rows, responses, strict=True):
        for name, value in getattr(module, f"{task}_process_results")(row, [response.strip()]).items():
            found.setdefault(name, []).append(value)
    return found


def aggregate(task: str, metric: str):
    """lmms-eval's own aggregation, with the table that ocrbench adds to emptied first."""
    module = importlib.import_module(f"lmms_eval.tasks.{task}.utils")
    if task == "mme":
        return module.mme_aggregate_results
    if task == "pope":
        return getattr(module, metric.replace("pope_", "pope_aggregate_", 1))

    def ocrbench(values):
        module.OCRBench_score.update(dict.fromkeys(module.OCRBench_score, 0))
        return module.ocrbench_aggregate_accuracy(values, SimpleNamespace(output_path=None))

    return ocrbench


def in_order(run, task: str) -> list[dict]:
    table = [row for row in run.samples().to_pylist() if row["task"] == task]
    keys = {row["sample_key"]: row for row in table}
    assert len(keys) == len(table)
    return table


@pytest.mark.parametrize("task", ["mme", "pope", "ocrbench"])
def test_values_are_those_of_lmms_evals_own_functions(task, pair, rows, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # ocrbench writes a file where it stands
    for run in pair:
        held = in_order(run, task)
        given = payloads(task, rows[task], [row["response"] for row in held])
        metrics = run.record.task(task).metrics
        assert [metric.name for metric in metrics] == list(given)
        for metric in metrics:
            assert metric.value == pytest.approx(aggregate(task, metric.name)(given[metric.name]), abs=1e-12)
        scores = [value["score"] for value in given[metrics[0].name]]
        mine = [row["scores"][metrics[0].name] for row in held if row["scores"][metrics[0].name] is not None]
        assert mine == scores


def test_intervals_of_own_functions_are_percentiles_of_drawn_clusters(pair, rows, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = pair[0]
    for task, name in (("pope", "pope_f1_score"), ("ocrbench", "ocrbench_accuracy")):
        held = in_order(run, task)
        given = payloads(task, rows[task], [row["response"] for row in held])[name]
        images = [hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in rows[task]]
        assert [row["cluster_id"] for row in held] == images
        names = sorted(set(images))
        rng = np.random.default_rng(0)
        drawn = []
        for _ in range(1000):
            chosen = [names[place] for place in rng.integers(len(names), size=len(names))]
            drawn.append(
                aggregate(task, name)([given[k] for image in chosen for k, i in enumerate(images) if i == image])
            )
        metric = metric_of(run.record.task(task).metrics, name)
        declared = next(each for each in run.record.task(task).declared["metrics"] if each["name"] == name)
        assert declared["draws"]["values"] == pytest.approx(drawn)
        assert (metric.ci_low, metric.ci_high) == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5))))
        assert metric.stderr == pytest.approx(np.std(drawn, ddof=1) * math.sqrt(60 / 59))
        assert (metric.ci_method, metric.n, metric.n_clusters) == ("cluster-bootstrap", 120, 60)


def test_mmes_pairs_stay_pairs_when_a_picture_is_drawn_twice(pair) -> None:
    declared = pair[0].record.task("mme").declared
    perception, cognition = declared["metrics"]
    assert [each["unit"] for each in declared["metrics"]] == ["points of 800", "points of 200"]
    assert perception["draws"]["n_clusters"] == 48
    assert cognition["draws"]["n_clusters"] == 12
    assert None not in perception["draws"]["values"] + cognition["draws"]["values"]


def test_means_have_the_clustered_interval(pair) -> None:
    for task, name in (("my_task", "acc"), ("pope", "pope_accuracy")):
        held = in_order(pair[0], task)
        found = clustered_mean([row["scores"][name] for row in held], [row["cluster_id"] for row in held])
        metric = metric_of(pair[0].record.task(task).metrics, name)
        assert (metric.value, metric.ci_low, metric.ci_high) == (found.value, found.ci_low, found.ci_high)
        said = next(each for each in pair[0].record.task(task).declared["metrics"] if each["name"] == name)
        assert said["aggregate"] == "mean"
        assert said.get("draws") is None


def test_the_record_says_what_the_task_is(pair, own) -> None:
    record = pair[0].record
    assert record.suite["name"] == "tasks"
    assert [task.task for task in record.tasks] == NAMES
    assert [group.name for group in record.groups] == NAMES
    task = record.task("my_task")
    assert task.benchmark == "lmms:my_task"
    assert task.dataset == "dir:my_task"
    assert (task.n_total, task.n_scored, task.prompt) == (120, 120, "{query}")
    assert task.declared["primary"] == task.declared["sample"] == "acc"
    assert task.declared["right"] == 1.0
    assert record.task("mme").declared["sample"] == "sample_score"
    assert record.task("mme").prompt == "{query}\nAnswer the question using a single word or phrase."
    assert in_order(pair[0], "my_task")[0]["question"] == "Is there a red ring in the picture? One word."


def test_the_embedded_model_is_asked_as_the_task_says(data, own, rows, tmp_path) -> None:
    run = read_run(
        evaluate(EvalArguments(tasks=NAMES, data=str(data), include_path=str(own), output=str(tmp_path), limit=8))
    )
    record = run.record
    assert record.status == "complete"
    assert {task.task: task.max_new_tokens for task in record.tasks} == {
        "mme": 16,
        "pope": 64,
        "ocrbench": 64,
        "my_task": 8,
    }
    assert record.task("my_task").declared["generation_kwargs"] == {
        "max_new_tokens": 8, "until": ["\n"], "do_sample": False,
    }  # fmt: skip
    assert (record.task("pope").n_total, record.task("pope").n_scored) == (120, 8)
    held = in_order(run, "my_task")
    asked = "Is there a red ring in the picture? One word."
    assert held[0]["question"] == asked
    assert asked in held[0]["prompt"]
    assert all(row["response"] is not None for row in held)
    answers = [row["response"].strip().lower() for row in held]
    expected = [float(row["answer"] in said) for row, said in zip(rows["my_task"], answers, strict=False)]
    assert record.task("my_task").metrics[0].value == pytest.approx(np.mean(expected))


def test_a_folder_of_pictures_and_json_lines_serves_too(own, tmp_path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(buffer, format="PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    (tmp_path / "my_task.jsonl").write_text('{"image": "a.png", "question": "Red?", "answer": "yes"}\n')
    run = read_run(
        evaluate(
            EvalArguments(tasks=["my_task"], data=str(tmp_path), include_path=str(own), output=str(tmp_path / "out"))
        )
    )
    (row,) = run.samples().to_pylist()
    assert row["image"]["sha256"] == hashlib.sha256(buffer.getvalue()).hexdigest()
    assert (row["image"]["path"], row["image"]["width"], row["image"]["height"]) == ("a.png", 30, 20)
