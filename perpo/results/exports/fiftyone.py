"""The boxes of runs in FiftyOne's format: truths and the answers of one or more models over each picture.

What is written is read by `fiftyone.Dataset.from_dir(dataset_dir=FOLDER, dataset_type=fiftyone.types.FiftyOneDataset)`:
`samples.json` and a `metadata.json` without a version, which FiftyOne takes for its plain form, whose fields it learns
from the samples. A box is [x, y, width, height] as shares of the picture's sides, from its upper left corner.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perpo.common.files import atomic_write_text
from perpo.data.embedded import find_image, picture_key
from perpo.errors import PerpoError
from perpo.records.store import Run
from perpo.results.compare import check_comparable
from perpo.results.exports.boxes import XYWH, BoxSample, box_samples

TRUTH_FIELD = "ground_truth"


def write_fiftyone(runs: Sequence[Run], folder: Path, images: Path | None) -> tuple[int, int]:
    """Write the files into a folder; returns how many pictures there are, and of how many no file is at hand.

    Those have the path that their data set gives them, which FiftyOne looks for below the folder.

    Args:
        runs: The runs, of the same samples or of some in common.
        folder: Where to write.
        images: Where to look for pictures.

    Raises:
        PerpoError: Runs that cannot be compared, two of one name, or one that names no pictures.
    """
    for run in runs[1:]:
        check_comparable(run, runs[0], common=True)
    fields = [_field(run) for run in runs]
    if len({TRUTH_FIELD, *fields}) <= len(runs):
        names = ", ".join(run.record.name for run in runs)
        raise PerpoError(f"two of the runs have one name: {names}", "perpo-eval --rescore RUN --name gives another")
    samples: dict[str, dict[str, Any]] = {}
    told: set[str] = set()
    missing = 0
    for run, field in zip(runs, fields, strict=True):
        for each in box_samples(run):
            key = picture_key(each.image)
            if not key:
                raise PerpoError(
                    f"{run.path} does not say which pictures its questions are about",
                    "import the predictions with --columns image=COLUMN",
                )
            if key not in samples:
                file = find_image(each.image, images)
                missing += file is None
                samples[key] = _sample(each.image, file, fields)
            if each.sample_key not in told:
                told.add(each.sample_key)
                samples[key][TRUTH_FIELD]["detections"].append(_detection(each, each.truth))
            if each.answer is not None:
                samples[key][field]["detections"].append(_detection(each, each.answer) | {"iou": each.iou})
    info = {"runs": {field: run.record.run_id for run, field in zip(runs, fields, strict=True)}}
    for name, content in (
        ("metadata.json", {"media_type": "image", "info": info}),
        ("samples.json", {"samples": list(samples.values())}),
    ):
        atomic_write_text(folder / name, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")
    return len(samples), missing


def _field(run: Run) -> str:
    """A run's name as a field's, which begins with a letter and holds no dots."""
    return "model_" + (re.sub(r"\W+", "_", run.record.name, flags=re.ASCII).strip("_") or "unnamed")


def _sample(image: Mapping[str, Any], file: Path | None, fields: Sequence[str]) -> dict[str, Any]:
    size = {"_cls": "ImageMetadata", "width": image["width"], "height": image["height"]}
    path = str(image["path"] if file is None else file.resolve())
    empty = {field: {"_cls": "Detections", "detections": []} for field in (TRUTH_FIELD, *fields)}
    return {"filepath": path, "tags": [], "metadata": size} | empty


def _detection(sample: BoxSample, box: XYWH) -> dict[str, Any]:
    width, height = sample.size
    shares = [box[0] / width, box[1] / height, box[2] / width, box[3] / height]
    about = {"sample_key": sample.sample_key, "task": sample.task}
    return {"_cls": "Detection", "tags": [], "label": sample.question, "bounding_box": shares} | about
