"""A run's boxes as COCO's results with their ground truth, as pycocotools and all that reads its files take them.

Each sample is an image of its own, as in MDETR's and the reviewed RefCOCO's files: of several expressions about one
picture, each asks for one box, and an answer to one must not be held against the truth of another.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from perpo.common.files import atomic_write_text
from perpo.records.store import Run
from perpo.results.exports.boxes import box_samples

TRUTH_FILE, RESULTS_FILE = "ground_truth.json", "results.json"
_CATEGORY = 1


def write_coco(run: Run, folder: Path) -> tuple[int, int]:
    """Write both files into a folder; returns how many samples there are, and how many have an answered box.

    An answer has no score of its own in COCO's sense, so that all have 1. One that cannot be read is in no
    result.
    """
    images: list[dict[str, Any]] = []
    truths: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, sample in enumerate(box_samples(run), start=1):
        width, height = sample.size
        about = {"sample_key": sample.sample_key, "task": sample.task, "caption": sample.question}
        images.append({"id": number, "file_name": sample.image["path"], "width": width, "height": height} | about)
        area = sample.truth[2] * sample.truth[3]
        box = {"image_id": number, "category_id": _CATEGORY, "bbox": sample.truth}
        truths.append({"id": number} | box | {"area": area, "iscrowd": 0})
        if sample.answer is not None:
            results.append({"image_id": number, "category_id": _CATEGORY, "bbox": sample.answer, "score": 1.0})
    categories = [{"id": _CATEGORY, "name": "object"}]
    info = {"description": f"{run.record.name}, {run.record.run_id}: one image for each sample"}
    truth = {"info": info, "licenses": [], "images": images, "annotations": truths, "categories": categories}
    for name, content in ((TRUTH_FILE, truth), (RESULTS_FILE, results)):
        atomic_write_text(folder / name, json.dumps(content, ensure_ascii=False) + "\n")
    return len(images), len(results)
