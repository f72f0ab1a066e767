"""Made-up training runs: folders as perpo-train leaves them, with data, pictures and log-probabilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from perpo.boxes import iou
from perpo.data import PreferenceRecord, data_sha256, write_jsonl
from perpo.records.training_record import SCHEMA_VERSION, DataInfo, StartInfo, TrainingRecord, write_log, write_record

CANDIDATES = 4


def write_training(
    folder: Path, base: Path, *, method: str = "perpo", lists: int = 3, question: str = "Where is it?", **more: Any
) -> dict[str, Any]:
    """Write a training to `folder` as if it had been started in `base`: its record, log, probe, data and picture.

    Args:
        folder: What perpo-train wrote to.
        base: Its working directory, which paths in the record are relative to.
        method: As in the record.
        lists: Preference records; the probe has the first two.
        question: What is asked in all of them.
        more: Fields of the record to change.

    Returns:
        The record.
    """
    folder.mkdir(parents=True)
    data = folder / "preferences.jsonl"
    write_lists(data, lists, question)
    Image.new("RGB", (200, 100), "#336699").save(folder / "picture.png")
    empty = dict.fromkeys(TrainingRecord.__annotations__)
    record = empty | {
        "schema_version": SCHEMA_VERSION,
        "status": "complete",
        "created_utc": "2026-01-02T03:04:05+00:00",
        "duration_s": 90.0,
        "arguments": {
            "method": method,
            "data": str(data.relative_to(base)),
            "output_dir": str(folder.relative_to(base)),
            "image_root": str(folder.relative_to(base)),
            "beta": 1.0,
        },
        "model": dict.fromkeys(StartInfo.__annotations__) | {"weights_sha256": "0" * 64},
        "data": dict.fromkeys(DataInfo.__annotations__)
        | {"path": str(data.relative_to(base)), "sha256": data_sha256(data), "counts": {"lists": lists}},
        "steps": 20,
        "probe": {"path": "probe.parquet", "lists": 2, "rows": 2 * CANDIDATES},
        **more,
    }
    write_record(folder, record)
    write_log(
        folder,
        [{"step": step, "epoch": step / 20, "loss": 1 / step, "pair_accuracy": step / 40} for step in range(1, 21)],
    )
    write_probe(folder / "probe.parquet", data)
    mapping = {"auto_mapping": {"parent_library": "transformers.models.llava.modeling_llava"}}
    (folder / "adapter_config.json").write_text(json.dumps(mapping))
    return record


def write_lists(file: Path, count: int, question: str) -> None:
    """Write preference records whose rewards are the IoU of their boxes."""
    chance = np.random.default_rng(count)
    records = []
    for number in range(count):
        truth = np.array([0.2, 0.3, 0.6, 0.7])
        boxes = np.round(truth + chance.normal(0, 0.05, (CANDIDATES, 4)), 2)
        records.append(
            PreferenceRecord(
                image_path="picture.png",
                question=question,
                answer=str(truth.tolist()),
                image_id=f"image {number % 2}",
                answers_gen=[str(box.tolist()) for box in boxes],
                rewards=[float(value) for value in iou(boxes, truth)],
                reward_name="iou",
                truncated=[False] * CANDIDATES,
                box_frame="padded",
            )
        )
    write_jsonl(file, records)


def write_probe(file: Path, data: Path) -> None:
    """Write log-probabilities of the first two lists: -1, -2, ... before; each gains its reward."""
    rows = []
    for number, line in enumerate(data.read_text().splitlines()[:2], start=1):
        record = json.loads(line)
        for place, (answer, reward) in enumerate(zip(record["answers_gen"], record["rewards"], strict=True)):
            before = -1.0 - place
            rows.append(
                {
                    "record": number,
                    "image_path": record["image_path"],
                    "question": record["question"],
                    "candidate": place,
                    "answer": answer,
                    "reward": reward,
                    "tokens": 9,
                    "reference_logp": before,
                    "logp_before": before,
                    "logp_after": before + reward,
                }
            )
    pq.write_table(pa.Table.from_pylist(rows), file)
