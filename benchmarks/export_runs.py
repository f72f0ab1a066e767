"""Measure how long perpo-eval export takes over many small runs.

    python benchmarks/export_runs.py [--runs 2000]

Each run has three tasks of grounding and three of POPE, 40 samples each about images that all runs share; every
fortieth is of another base model.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from perpo.benchmarks.metrics import metrics_of
from perpo.records.run_record import SCHEMA_VERSION, GroupResult, Metric, ModelInfo, RunRecord, TaskResult, sample_key
from perpo.records.store import write_run

TASKS = {f"refcoco_{split}": "grounding" for split in ("val", "testA", "testB")}
TASKS |= {f"pope_{split}": "pope" for split in ("random", "popular", "adversarial")}
SAMPLES = 40


def main() -> None:
    """Write the runs, export them, and print the seconds."""
    from perpo_eval.cli.results import export_main

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    count = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            write(Path(folder), number)
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            export_main(["--results", folder, "--format", "json"])
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds, processor = time.perf_counter() - start, used.ru_utime - before.ru_utime
        print(
            f"{count:,} runs, {len(TASKS) * SAMPLES} samples each: {seconds:.1f} s, {processor:.1f} s of the processor"
        )
        print(f"peak memory {used.ru_maxrss / 2**20:.2f} GiB, {len(said.getvalue()):,} characters")


def write(root: Path, number: int) -> None:
    """Store one run."""
    rng = np.random.default_rng(number)
    tasks, results, groups, scores = [], [], [], []
    for benchmark in dict.fromkeys(TASKS.values()):
        names = [task for task, kind in TASKS.items() if kind == benchmark]
        columns = {task: drawn(rng, benchmark, 0.6 + 0.2 * rng.random()) for task in names}
        for task in names:
            results.append(result(task, benchmark, measured(benchmark, [columns[task]])))
            tasks += [task] * SAMPLES
            scores += [{k: float(v[n]) for k, v in columns[task].items()} for n in range(SAMPLES)]
        groups.append(GroupResult(benchmark, benchmark, names, measured(benchmark, list(columns.values()))))
    keys = [sample_key("made", "1", task, str(n % SAMPLES), "") for n, task in enumerate(tasks)]
    images = [f"image{n % SAMPLES}" for n in range(len(tasks))]
    known = sorted({name for line in scores for name in line})
    table = pa.table(
        {
            "sample_key": keys,
            "task": tasks,
            "cluster_id": images,
            "scores": pa.array(
                [{name: line.get(name) for name in known} for line in scores],
                pa.struct([(name, pa.float64()) for name in known]),
            ),
            "response": [f"{number} says {n}" for n in range(len(tasks))],
        }
    )
    model = ModelInfo(f"model{number % 40 == 0}", "llava", "perpo", *[None] * 8)
    record = RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=f"20261101T000000Z-paper-run{number:05}",
        name=f"run{number}",
        status="complete",
        created_utc="2026-11-01T00:00:00+00:00",
        duration_s=1.0,
        command=None,
        code={},
        packages={},
        hardware={},
        model=model,
        training_run=None,
        suite={"name": "paper", "version": "1", "sha256": "0" * 64},
        generation={"temperature": 0.0, "top_p": 1.0},
        tasks=results,
        groups=groups,
        judge=None,
        samples=None,
        source="measured",
    )
    write_run(root, record, table)


def drawn(rng: np.random.Generator, benchmark: str, quality: float) -> dict[str, np.ndarray]:
    """The scores of one task."""
    right = (rng.random(SAMPLES) < quality).astype(float)
    if benchmark == "grounding":
        return {"acc@0.5": right, "iou": right * rng.random(SAMPLES), "parse_fail": 0 * right}
    truth = np.arange(SAMPLES) % 2
    said = np.where(right == 1, truth, 1 - truth)
    counts = {"tp": said * truth, "fp": said * (1 - truth), "fn": (1 - said) * truth, "tn": (1 - said) * (1 - truth)}
    return counts | {"accuracy": right, "yes": said}


def measured(benchmark: str, parts: list[dict[str, np.ndarray]]) -> list[Metric]:
    """The metrics of one or several tasks."""
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    clusters = np.tile(np.arange(SAMPLES), len(parts))
    strata = np.repeat(np.arange(len(parts)), SAMPLES)
    estimated = []
    for metric in metrics_of(benchmark, list(columns)):
        if not set(metric.needs()) <= set(columns):
            continue
        e = metric.estimate(columns, clusters, strata)
        numbers = (e.value, e.stderr, e.ci_low, e.ci_high, e.ci_method, e.n, e.n_clusters)
        estimated.append(Metric(metric.name, *numbers, metric.higher_is_better, metric.unit))
    return estimated


def result(task: str, benchmark: str, metrics: list[Metric]) -> TaskResult:
    """One task of a record."""
    return TaskResult(
        task=task,
        benchmark=benchmark,
        task_version="2",
        dataset="made",
        revision="1",
        data_sha256="0" * 64,
        split=task,
        prompt=None,
        max_new_tokens=64,
        box_frame="original",
        note=None,
        n_total=SAMPLES,
        n_scored=SAMPLES,
        n_parse_fail=0,
        n_error=0,
        cluster_key="image",
        metrics=metrics,
    )


if __name__ == "__main__":
    main()
