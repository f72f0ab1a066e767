"""From what lmms-eval hands back and what our model class remembers to a run record's rows and numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from perpo.records import Metric, TaskResult, sample_key
from perpo.stats import Estimate, clustered_mean
from perpo_eval.metrics.grounding import HIGHER_IS_BETTER
from perpo_eval.suites import TaskData

if TYPE_CHECKING:
    import pyarrow as pa

    from perpo_eval.lmms_model import Response


def sample_rows(
    data: TaskData,
    logged: Sequence[Mapping[str, Any]],
    responses: Mapping[tuple[str, int], Response],
    box_frame: str,
) -> list[dict[str, Any]]:
    """One row per scored sample of a task, with the columns of `perpo.records.SAMPLE_COLUMNS`.

    Args:
        data: The task and its documents.
        logged: lmms-eval's logged samples of the task: doc_id and what process_results returned.
        responses: The model's answers, by task and document number.
        box_frame: The frame that the answers were read in.
    """
    rows = []
    for sample in logged:
        doc = data.docs[sample["doc_id"]]
        response = responses[data.task, sample["doc_id"]]
        prediction = sample["prediction"]
        rows.append(
            {
                "sample_key": sample_key(data.dataset, data.revision, data.split, doc["source_id"], doc["expression"]),
                "task": data.task,
                "cluster_id": doc["image_sha256"],
                "image": {
                    "sha256": doc["image_sha256"],
                    "path": doc["image_path"],
                    "width": doc["width"],
                    "height": doc["height"],
                },
                "question": sample["arguments"][0],
                "prompt": response.prompt,
                "response": response.text,
                "parse_ok": prediction is not None,
                "prediction": None if prediction is None else json.dumps(prediction),
                "target": json.dumps(doc["bbox"]),
                "box_frame": box_frame,
                "scores": {name: sample[name] for name in HIGHER_IS_BETTER},
                "tokens_out": response.tokens_out,
                "latency_ms": response.latency_ms,
                "finish_reason": response.finish_reason,
                "error": None,
                "judge": None,
            }
        )
    return rows


def samples_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows as a table; repeated texts (task, frame, image) are stored once by Parquet's dictionaries."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    image = pa.struct([("sha256", text), ("path", text), ("width", pa.int32()), ("height", pa.int32())])
    types = {
        "image": image,
        "parse_ok": pa.bool_(),
        "scores": pa.struct([(name, number) for name in rows[0]["scores"]]),
        "tokens_out": pa.int32(),
        "latency_ms": number,
    }
    schema = pa.schema([(name, types.get(name, text)) for name in rows[0]])
    return pa.Table.from_pylist(list(rows), schema=schema)


def task_result(data: TaskData, task_version: str, rows: Sequence[Mapping[str, Any]], box_frame: str) -> TaskResult:
    """The numbers of one task, from its rows."""
    return TaskResult(
        task=data.task,
        task_version=task_version,
        dataset=data.dataset,
        revision=data.revision,
        data_sha256=data.data_sha256,
        split=data.split,
        box_frame=box_frame,
        n_total=len(data.docs),
        n_scored=len(rows),
        n_parse_fail=sum(not row["parse_ok"] for row in rows),
        n_error=sum(row["error"] is not None for row in rows),
        cluster_key="image sha256",
        metrics=metrics(rows),
    )


def metrics(rows: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Every score's mean over the rows, tasks weighing the same, with an interval clustered by image."""
    clusters = [row["cluster_id"] for row in rows]
    tasks = [row["task"] for row in rows]
    return [
        _metric(name, clustered_mean([row["scores"][name] for row in rows], clusters, tasks), higher)
        for name, higher in HIGHER_IS_BETTER.items()
    ]


def _metric(name: str, estimate: Estimate, higher_is_better: bool) -> Metric:
    return Metric(name=name, **asdict(estimate), higher_is_better=higher_is_better, unit="fraction")
