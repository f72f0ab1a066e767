"""Two made-up runs over the same samples, as large as wanted: what the dashboard is measured and tested with.

Boxes, answers and pages are drawn at random; scores follow from them by the formulas of IoU, edit distance and
POPE's counts, and the metrics from the scores as `perpo.benchmarks.metrics` says. The pictures are made up too.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from made_answers import HEIGHT, TASKS, WIDTH, Answers, votes
from numpy.typing import NDArray
from PIL import Image

from perpo.benchmarks.metrics import metrics_of
from perpo.records.run_record import (
    SAMPLE_COLUMNS,
    SCHEMA_VERSION,
    GroupResult,
    Metric,
    ModelInfo,
    RunRecord,
    TaskResult,
    sample_key,
)
from perpo.records.store import Run, slug, write_run

FLAWS = {"base": 0.3, "perpo": 0.2}
"""The two runs, and how far their answers are off."""


def write_pair(
    root: Path,
    samples: int = 100_000,
    *,
    pictures: int = 200,
    names: Sequence[str] = tuple(FLAWS),
    texts: Sequence[str] = (),
) -> tuple[Run, Run]:
    """Store two runs under `root`, and their pictures in `root`/pictures.

    Args:
        root: The results folder.
        samples: Samples of each run, about.
        pictures: Different pictures, each shared by many samples.
        names: What the two runs are called.
        texts: What the second run says to the first samples of every task, and what is asked there.
    """
    images = _pictures(root / "pictures", pictures)
    one, two = (
        _write_run(root, name, flaw, samples, images, texts, said=place == 1)
        for place, (name, flaw) in enumerate(zip(names, FLAWS.values(), strict=True))
    )
    return one, two


def _write_run(
    root: Path, name: str, flaw: float, samples: int, images: list[dict], texts: Sequence[str], *, said: bool
) -> Run:
    parts, results = [], []
    for task, (benchmark, share, answer) in TASKS.items():
        count = max(round(share * samples), len(texts) + 1)
        answers = answer(count, flaw)
        replaced = list(texts) if said else []
        answers.columns["response"] = [*replaced, *list(answers.columns["response"])[len(replaced) :]]
        answers.columns["question"] = [*texts, *list(answers.columns["question"])[len(texts) :]]
        if benchmark == "ocr":
            written = list(map(json.dumps, texts))
            answers.columns["target"] = [*written, *answers.columns["target"][len(texts) :]]
            answers.columns["prediction"] = [*written[: len(replaced)], *answers.columns["prediction"][len(replaced) :]]
        if "judge" in answers.columns:
            judged = [votes(text, 5) for text in replaced]
            answers.columns["judge"] = [*judged, *answers.columns["judge"][len(replaced) :]]
        shown = [images[place % len(images)] for place in range(count)]
        parts.append(_table(task, answers, shown))
        results.append(_result(task, benchmark, answers, _clusters(shown)))
    groups = [_group(benchmark, results, parts) for benchmark in dict.fromkeys(r.benchmark for r in results)]
    table = pa.concat_tables(parts).combine_chunks()
    return write_run(root, _record(name, results, groups), table)


def _pictures(folder: Path, count: int) -> list[dict[str, Any]]:
    """Smooth coloured noise as JPEG files; what the records say of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, pictures = np.random.default_rng(0), []
    for place in range(count):
        coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        data = io.BytesIO()
        Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(data, "JPEG")
        path = folder / f"{place:05d}.jpg"
        path.write_bytes(data.getvalue())
        digest = hashlib.sha256(data.getvalue()).hexdigest()
        pictures.append({"sha256": digest, "path": f"{folder.name}/{path.name}", "width": WIDTH, "height": HEIGHT})
    return pictures


def _clusters(shown: Sequence[Mapping[str, Any]]) -> NDArray:
    return np.array([image["sha256"] for image in shown])


def _table(task: str, answers: Answers, shown: list[dict[str, Any]]) -> pa.Table:
    count = len(shown)
    asked = answers.columns["question"]
    kinds = {"parse_ok": pa.bool_()}
    columns = {name: pa.array(values, kinds.get(name, pa.string())) for name, values in answers.columns.items()}
    columns |= {
        "sample_key": pa.array([sample_key("made up", None, task, str(n), asked[n]) for n in range(count)]),
        "task": pa.array([task] * count),
        "cluster_id": pa.array(_clusters(shown)),
        "image": pa.array(shown),
        "prompt": pa.array([f"USER: <image>\n{question} ASSISTANT:" for question in asked]),
        "tokens_out": pa.array(np.full(count, 12, np.int32)),
        "latency_ms": pa.array(np.full(count, 1.5)),
        "finish_reason": pa.array(["stop"] * count),
        "error": pa.nulls(count, pa.string()),
        "judge": pa.array(answers.columns.get("judge", [None] * count), pa.string()),
        "scores": _scores(answers.scores, count),
    }
    return pa.table({name: columns[name] for name in SAMPLE_COLUMNS})


def _scores(held: Mapping[str, NDArray], count: int) -> pa.StructArray:
    """Every score that any task has; null where it does not apply."""
    names = list(dict.fromkeys(name for _, _, answer in TASKS.values() for name in answer(2, 0.2).scores))
    blank = np.full(count, np.nan)
    return pa.StructArray.from_arrays([pa.array(held.get(name, blank), from_pandas=True) for name in names], names)


def _result(task: str, benchmark: str, answers: Answers, clusters: NDArray) -> TaskResult:
    count = len(clusters)
    frame = "original" if benchmark == "grounding" else None
    return TaskResult(
        task=task,
        benchmark=benchmark,
        task_version="1",
        dataset="made up",
        revision=None,
        data_sha256=hashlib.sha256(f"{task} {count}".encode()).hexdigest(),
        split=task.split("_")[-1],
        prompt="{query}",
        max_new_tokens=64,
        box_frame=frame,
        note="made up",
        n_total=count,
        n_scored=count,
        n_parse_fail=int((~np.asarray(answers.columns["parse_ok"])).sum()),
        n_error=0,
        cluster_key="image sha256",
        metrics=_metrics(benchmark, answers.scores, clusters, np.full(count, task)),
    )


def _group(benchmark: str, results: Sequence[TaskResult], parts: Sequence[pa.Table]) -> GroupResult:
    own = [part for part, result in zip(parts, results, strict=True) if result.benchmark == benchmark]
    table = pa.concat_tables(own)
    scores = table["scores"].combine_chunks()
    values = {f.name: scores.field(f.name).to_numpy(zero_copy_only=False).astype(float) for f in scores.type}
    clusters, tasks = (table[name].to_numpy() for name in ("cluster_id", "task"))
    names = [result.task for result in results if result.benchmark == benchmark]
    return GroupResult(benchmark, benchmark, names, _metrics(benchmark, values, clusters, tasks))


def _metrics(benchmark: str, scores: Mapping[str, NDArray], clusters: NDArray, tasks: NDArray) -> list[Metric]:
    estimated = []
    for metric in metrics_of(benchmark, list(scores)):
        e = metric.estimate(scores, clusters, tasks)
        numbers = (e.value, e.stderr, e.ci_low, e.ci_high, e.ci_method, e.n, e.n_clusters)
        estimated.append(Metric(metric.name, *numbers, higher_is_better=metric.higher_is_better, unit=metric.unit))
    return estimated


def _record(name: str, results: list[TaskResult], groups: list[GroupResult]) -> RunRecord:
    number = list(FLAWS).index(name) if name in FLAWS else len(name) % 50
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=f"20260101T0000{number:02d}Z-paper-{slug(name)}-{hashlib.sha256(name.encode()).hexdigest()[:6]}",
        name=name,
        status="complete",
        created_utc=f"2026-01-01T00:00:{number:02d}+00:00",
        duration_s=60.0,
        command="made up",
        code={"version": "0", "commit": None, "dirty": None},
        packages={},
        hardware={"machine": "made up", "cpus": 1, "device": "cpu"},
        model=ModelInfo("made-up", None, "elsewhere", None, None, None, None, None, None, "float32", None),
        training_run=None,
        suite={"name": "paper", "version": "1", "sha256": "0" * 64},
        generation={"limit": None, "temperature": 0.0, "top_p": None, "seed": 0},
        tasks=results,
        groups=groups,
        judge={"id": "made-up-judge", "prompt_sha256": {}, "settings": {"temperature": 0.2}},
        samples=None,
        source="measured",
    )
