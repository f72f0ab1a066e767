"""The task files: each loads in lmms-eval, agrees with the suite, and gives the suite's numbers."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from lmms_eval.tasks import TaskManager, get_task_dict
from PIL import ImageFile

from perpo.benchmarks.metrics import JUDGED, METRICS, PRIMARY
from perpo.boxes import format_box
from perpo.errors import PerpoError
from perpo.models.families import FAMILIES
from perpo.records.store import read_run
from perpo.tiny.world import benchmark_rows, write_parquet
from perpo.tiny.world.judged import mmhal_rows, wild_rows
from perpo.tiny.world.objects import object_rows
from perpo.tiny.world.pages import page_rows
from perpo_eval.arguments import EvalArguments
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.engines.responses import Response
from perpo_eval.evaluate.numbers import metrics
from perpo_eval.evaluate.run import evaluate
from perpo_eval.evaluate.scoring import judge as judge_tables
from perpo_eval.evaluate.scoring import score_task
from perpo_eval.judge.from_flags import judge_of
from perpo_eval.rows import loading
from perpo_eval.rows.loading import TaskData, load_task
from perpo_eval.rows.suites import TASKS, TASKS_FOLDER, TaskSpec
from perpo_eval.tasks import functions, judging
from perpo_eval.wanted import JudgeWanted
from tests.support import published_files
from tests.support.judge_server import JudgeServer, judge_server

LLAVA = FAMILIES["llava"]
BESIDE = {"truncated", *(metric.name for metric in METRICS["grounding"] if ":" in metric.name)}
BESIDE |= {
    metric.name for name in ("olmocr_no_math", "omnidocbench_simple") for metric in METRICS[name] if ":" in metric.name
}
BESIDE |= {metric.name for benchmark in JUDGED for metric in METRICS[benchmark] if ":" in metric.name}
"""What perpo-eval alone has: an answer's cut, which lmms-eval does not tell, and parts: sizes, frames, categories."""

PAGES = ("ocr", "ocrbench_v2")
"""Whose rows are pages with their text."""

HUB_SPLITS = {"RefCOCO": ("val", "testA", "testB", "test"), "POPE": ("random", "popular", "adversarial")}


BUILT = ("perpo-data fox", "perpo-data ocrbench", "perpo-data olmocr", "perpo-data omnidocbench")
"""What makes the files that $PERPO_DATA names the folder of."""


def with_tests(row: dict[str, Any]) -> dict[str, Any]:
    """A page whose truth is two unit tests of its text."""
    word = row["answer"].split()[0]
    return row | {"answer": json.dumps([{"type": "present", "text": word}, {"type": "baseline"}])}


def with_blocks(row: dict[str, Any]) -> dict[str, Any]:
    """A page whose truth is its lines, each a block."""
    lines = [line for line in row["answer"].splitlines() if line.strip()]
    blocks = [{"category": "text_block", "text": line, "order": place} for place, line in enumerate(lines, start=1)]
    return row | {"answer": json.dumps({"language": "english", "blocks": blocks})}


def small_parquet(folder: Path) -> Callable[[str], Path]:
    """The tiny world's first rows, or pages that stand for Fox's, as a file called as the task."""

    def make(task: str) -> Path:
        path = folder / f"{task}.parquet"
        if not path.is_file():
            dataset, split = task.rsplit("_", 1)
            if dataset == "tinypope":
                rows = object_rows(split, images=3)
            elif dataset in ("tinywild", "tinymmhal"):
                rows = wild_rows(split) if dataset == "tinywild" else mmhal_rows(split)
            elif TASKS[task].benchmark == "olmocr_no_math":
                rows = [with_tests(row) for row in page_rows("test", pages=6)]
            elif TASKS[task].benchmark == "omnidocbench_simple":
                rows = [with_blocks(row) for row in page_rows("test", pages=6)]
            elif TASKS[task].benchmark in PAGES:
                rows = page_rows("val" if split == "cn" else "test", pages=6)
            else:
                rows = benchmark_rows(dataset, split, images=8)
            write_parquet(rows, path)
        return path

    return make


def hub(folder: Path, asked: list[tuple[str, str | None]]) -> Callable[..., datasets.DatasetDict]:
    """Stands for `load_dataset`: the hub's data sets with rows that tell their splits apart, and JSON as it is."""
    original = datasets.load_dataset

    def load_dataset(path: str, name: str | None = None, **options: Any) -> datasets.DatasetDict:
        if path == "json":
            return original(path, name=name, **options)
        asked.append((path, name))
        pope = path.endswith("POPE")
        splits = {}
        for split in HUB_SPLITS["POPE" if pope else "RefCOCO"]:
            rows = object_rows(split, images=2) if pope else benchmark_rows("refshapes", "val", images=4)
            marked = ({**row, "question_id": f"{split}-{row['question_id']}"} for row in rows)
            file = write_parquet(marked, folder / "x")
            table = datasets.Dataset.from_list(pq.read_table(file).to_pylist())
            splits[split] = table.cast_column("image", datasets.Image())
        return datasets.DatasetDict(splits)

    return load_dataset


@pytest.fixture(scope="module")
def asked() -> list[tuple[str, str | None]]:
    """What was asked of the hub: repository and configuration."""
    return []


@pytest.fixture(scope="module")
def judge() -> Iterator[JudgeServer]:
    """A judge for all of them."""
    with judge_server() as server:
        yield server


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Callable[[str], Path]:
    """See `small_parquet`."""
    return small_parquet(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, small, asked) -> dict[str, Any]:
    """Every task, as lmms-eval makes it of its file, on few rows and without a network."""
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functions, "tiny_parquet", small)
        pages = {small(task).parent for task in TASKS if TASKS[task].build.startswith(BUILT)}
        patch.setattr(judging, "tiny_parquet", small)
        patch.setenv(functions.DATA_FOLDER, str(published_files.both(pages.pop())))
        patch.setenv("HF_DATASETS_CACHE", str(folder / "datasets"))
        patch.setattr(datasets, "load_dataset", hub(folder, asked))
        manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False)
        found = get_task_dict(sorted(manager.all_tasks), manager, "simple")
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # importing lmms-eval sets it
    return found


def test_every_task_of_the_suites_has_its_file_and_every_file_its_task(tasks: dict[str, Any]) -> None:
    assert set(tasks) == set(TASKS)
    assert {path.stem for path in TASKS_FOLDER.rglob("*.yaml")} == set(TASKS)


@pytest.mark.parametrize("spec", TASKS.values(), ids=list(TASKS))
def test_a_file_says_what_the_suite_says(spec: TaskSpec, tasks: dict[str, Any]) -> None:
    task = tasks[spec.name]
    config = task.config
    assert config.task == spec.name
    assert config.output_type == "generate_until"
    assert config.generation_kwargs == {"max_new_tokens": spec.max_new_tokens, "do_sample": False, "until": []}
    if spec.hub is None or spec.tiny:
        assert (config.dataset_path, config.test_split) == ("json", spec.name.replace("+", "plus"))
    else:
        assert (config.dataset_path, config.dataset_name) == (spec.hub.repository, spec.hub.config)
        assert config.test_split == spec.hub.split
    benchmark = BENCHMARKS[spec.benchmark]
    doc = task.test_docs()[0]
    expected = benchmark.question(doc["query"], benchmark.prompt(LLAVA, "paper"))
    assert task.doc_to_text(doc) == expected
    (image,) = task.doc_to_visual(doc)
    assert (image.mode, image.size) == ("RGB", (doc["width"], doc["height"]))


@pytest.mark.parametrize("name", [name for name, spec in TASKS.items() if spec.tiny])
def test_the_tiny_worlds_documents_are_those_of_perpo_eval(
    name: str, tasks: dict[str, Any], small: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "tiny_parquet", small)
    assert tasks[name].test_docs().to_list() == load_task(TASKS[name], "tiny").docs.to_list()


@pytest.mark.parametrize("name", [name for name, spec in TASKS.items() if spec.hub is not None])
def test_the_hubs_documents_are_of_the_right_repository_and_split(
    name: str, tasks: dict[str, Any], asked: list[tuple[str, str | None]]
) -> None:
    source = TASKS[name].hub
    assert source is not None
    assert (source.repository, source.config) in asked
    ids = [doc["source_id"] for doc in tasks[name].test_docs()]
    assert ids
    assert all(text.startswith(f"{source.split}-") for text in ids)


def test_pages_that_nobody_has_built_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pointer = datasets.Dataset.from_list([{"a": 1}], split="fox_ocr_en")
    for folder in (None, str(tmp_path)):
        monkeypatch.delenv(functions.DATA_FOLDER, raising=False)
        if folder is not None:
            monkeypatch.setenv(functions.DATA_FOLDER, folder)
        with pytest.raises(PerpoError, match=r"fox_ocr_en\.parquet is not in the folder") as error:
            functions.folder_ocr(pointer)
        assert "perpo-data fox" in error.value.hint


def said(benchmark: str, number: int, doc: dict[str, Any]) -> str:
    """Answers of several kinds, right and wrong ones among them."""
    if benchmark in JUDGED:
        return f"I see {number} things."
    target = json.loads(doc["target"])
    if benchmark == "grounding":
        size = (doc["width"], doc["height"])
        true = format_box(target, LLAVA.box_format, size)
        return (true, "no box", "[0.00, 0.00, 0.99, 0.99]", f"Here: {true}.")[number % 4]
    if benchmark == "pope":
        return ("Yes", "no", "No, there is none.", "Hard to tell.", "yes")[number % 5]
    if benchmark == "olmocr_no_math":
        return (target[0]["text"], "", "nothing of it", "中", "<think>")[number % 5]
    if benchmark == "omnidocbench_simple":
        texts = [block["text"] for block in target["blocks"]]
        return ("\n".join(texts), "\n\n".join(texts[::-1]), "", texts[0], "<think>")[number % 5]
    return (target, target[:-1], "", target.lower(), " ".join(target.split()[::-1]))[number % 5]


@pytest.mark.parametrize("spec", TASKS.values(), ids=list(TASKS))
def test_the_files_aggregations_give_the_numbers_of_perpo_scores(
    spec: TaskSpec, tasks: dict[str, Any], judge: JudgeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same answers through lmms-eval's task, and through the scoring of perpo-eval."""
    task = tasks[spec.name]
    docs = task.test_docs()
    answers = [said(spec.benchmark, number, doc) for number, doc in enumerate(docs)]
    per_doc = [task.process_results(doc, [answer]) for doc, answer in zip(docs, answers, strict=True)]
    template = BENCHMARKS[spec.benchmark].prompt(LLAVA, "paper")
    data = TaskData(spec, "dir:x", None, docs, "0" * 64)
    table = score_task(data, template, LLAVA, lambda number, key: Response(answers[number]), None)
    if spec.benchmark in JUDGED:
        monkeypatch.setenv(judging.JUDGE_MODEL, "gpt")
        monkeypatch.setenv(judging.JUDGE_BASE_URL, judge.url)
        by = judge_of(JudgeWanted(model="gpt", base_url=judge.url), str(tmp_path))
        ((table,), _) = judge_tables([table], [spec], by)
    ours = {metric.name: metric for metric in metrics(spec.benchmark, [table])}
    aggregations = task.aggregation()
    for name, aggregate in aggregations.items():
        found = aggregate([result[name] for result in per_doc])
        if ours[name].value is None:
            assert math.isnan(found), name
        else:
            assert found == pytest.approx(ours[name].value), name
            # The file must say true or false even where neither is better.
            expected = ours[name].higher_is_better
            assert expected is None or task.higher_is_better()[name] == expected, name
    assert ours.keys() - aggregations.keys() <= BESIDE
    primary = PRIMARY[spec.benchmark]
    if primary == "page_score" and ours["meteor"].value is None:  # no WordNet here
        assert ours[primary].value is None
        return
    assert 0 < ours[primary].value < (6 if spec.benchmark == "mmhal" else 1)


def test_aggregations_without_anything_to_divide_by() -> None:
    """Undefined is not a number in lmms-eval's tables, which know no null; it is never 0."""
    never = [{"tp": 0.0, "fp": 0.0, "fn": 0.0, "yes": 0.0}] * 3
    assert math.isnan(functions.pope_precision(never))
    assert math.isnan(functions.pope_recall(never))
    assert math.isnan(functions.pope_f1(never))
    assert functions.pope_yes_ratio(never) == 0.0
    assert math.isnan(functions.mean([None, None]))
    assert functions.mean([0.25, None, 0.75]) == 0.5


@pytest.mark.slow
def test_lmms_evals_own_command_line_gives_the_numbers_of_perpo_eval(cache: Path, tmp_path: Path) -> None:
    """One real run each with the embedded checkpoint: the same answers, and every metric of the task files."""
    names, limit = ["tinypope_random", "tinypages_test", "refshapes_val"], 40
    given = {"suite": "paper", "model": "tiny", "data": "tiny", "tasks": names, "limit": limit, "device": "cpu"}
    path = evaluate(EvalArguments(**given, batch_size=16, output=str(tmp_path / "ours")))
    assert path is not None
    ours = read_run(path)
    command = [
        *(sys.executable, "-m", "lmms_eval", "--include_path", str(TASKS_FOLDER), "--model", "perpo"),
        *("--model_args", "pretrained=tiny,device=cpu", "--tasks", ",".join(names), "--limit", str(limit)),
        *("--batch_size", "8", "--log_samples", "--output_path", str(tmp_path / "theirs")),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert [task.n_scored for task in ours.record.tasks] == [limit] * 3
    (file,) = tmp_path.glob("theirs/**/*_results.json")
    results = json.loads(file.read_text())["results"]
    samples = ours.samples(["task", "response"]).to_pylist()
    for name in names:
        compared = set()
        known = {metric.name: metric.value for metric in ours.record.task(name).metrics if metric.value is not None}
        for metric, value in known.items():
            # What a task file does not list has no number there.
            if isinstance(found := results[name].get(f"{metric},none"), float):
                assert found == pytest.approx(value), (name, metric)
                compared.add(metric)
        assert known.keys() - compared <= BESIDE
        (log,) = tmp_path.glob(f"theirs/**/*_samples_{name}.jsonl")
        theirs = {row["doc_id"]: row["filtered_resps"] for row in map(json.loads, log.read_text().splitlines())}
        mine = [row["response"].strip() for row in samples if row["task"] == name]
        assert [theirs[number] for number in range(limit)] == mine
