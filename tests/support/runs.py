"""Stored runs made of given scores, for the tests of what reads run records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from perpo.records.run_record import SCHEMA_VERSION, GroupResult, Metric, ModelInfo, RunRecord, TaskResult, sample_key
from perpo.records.store import Run, slug, write_run
from perpo.stats import clustered_mean

Rows = Mapping[str, Sequence[tuple[str, float]]]
MakeRun = Callable[..., Run]


def _metrics(scores: Sequence[float], clusters: Sequence[str], tasks: Sequence[str]) -> list[Metric]:
    found = []
    for name, values in (("acc@0.5", scores), ("iou", scores), ("parse_fail", [0.0] * len(scores))):
        e = clustered_mean(values, clusters, tasks)
        numbers = (e.value, e.stderr, e.ci_low, e.ci_high, e.ci_method, e.n, e.n_clusters)
        found.append(Metric(name, *numbers, higher_is_better=name != "parse_fail", unit="fraction"))
    return found


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Store a run from {task: [(image, score), ...]}; `data_sha256` and `dataset` can be set."""

    def make(name: str, rows: Rows, *, dataset: str = "tiny:refshapes", data_sha256: str = "0" * 64) -> Run:
        flat = [(task, image, score) for task, pairs in rows.items() for image, score in pairs]
        tasks, images, scores = map(list, zip(*flat, strict=True))
        table: dict[str, Any] = {
            "sample_key": [
                sample_key(dataset, "1", task, str(place), image) for place, (task, image, _) in enumerate(flat)
            ],
            "task": tasks,
            "cluster_id": images,
            "scores": [{"acc@0.5": score, "iou": score, "parse_fail": 0.0} for score in scores],
            "image": [{"sha256": "0" * 64, "path": image, "width": 40, "height": 20} for image in images],
            "question": [f"where is {place}?" for place in range(len(flat))],
            "target": ["[1.0, 2.0, 9.0, 8.0]"] * len(flat),
            "response": [f"{name} says {score}" for score in scores],
            "prediction": ["[0.0, 0.0, 5.0, 5.0]"] * len(flat),
        }
        results = [
            TaskResult(
                task=task,
                benchmark="grounding",
                task_version="1",
                dataset=dataset,
                revision="1",
                data_sha256=data_sha256,
                split=task,
                prompt="where is {query}?",
                max_new_tokens=64,
                box_frame="padded",
                note=None,
                n_total=len(pairs),
                n_scored=len(pairs),
                n_parse_fail=0,
                n_error=0,
                cluster_key="image sha256",
                metrics=_metrics([score for _, score in pairs], [image for image, _ in pairs], [task] * len(pairs)),
            )
            for task, pairs in rows.items()
        ]
        record = RunRecord(
            schema_version=SCHEMA_VERSION,
            run_id=f"run-{slug(name)}",
            name=name,
            status="complete",
            created_utc="2026-01-01T00:00:00+00:00",
            duration_s=1.5,
            command="perpo-eval",
            code={"version": "0", "commit": None, "dirty": None},
            packages={"numpy": "2"},
            hardware={"machine": "x", "cpus": 1, "device": "cpu"},
            model=ModelInfo("tiny", "llava", "perpo", None, "a" * 64, None, None, "P", "c" * 64, "float32", "sdpa"),
            training_run=None,
            suite={"name": "grounding", "version": "1", "sha256": "b" * 64},
            generation={"limit": None},
            tasks=results,
            groups=[GroupResult("grounding", "grounding", list(rows), _metrics(scores, images, tasks))],
            judge=None,
            samples=None,
            source="measured",
        )
        return write_run(tmp_path / "results", record, pa.table(table))

    return make
