"""What the task files call: rows in RefCOCO's columns become one document per expression.

A document names its image's file in the cache instead of holding the image, so that a row with ten
expressions is decoded once and 100,000 documents are small.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets import Image as ImageColumn
from PIL import Image

from perpo.boxes import BoxFormat
from perpo.errors import PerpoError
from perpo.families import FAMILIES
from perpo.images import image_problems
from perpo.rows import read_rows
from perpo_eval.media import cache_folder, keep_image, open_image
from perpo_eval.metrics.grounding import score_box
from perpo_eval.suites import tiny_version

COLUMNS = ("question_id", "image", "answer", "bbox", "file_name")
_LLAVA = FAMILIES["llava"]


def documents(rows: Iterable[Mapping[str, Any]], where: str) -> Dataset:
    """One document per expression.

    Args:
        rows: RefCOCO's columns: question_id, image {bytes, path}, answer (the expressions), bbox (x, y,
            width, height in pixels), file_name.
        where: What the rows are, for errors.

    Returns:
        Columns source_id, expression, bbox (xyxy in pixels), image_file, image_sha256, image_path (as
        the data set names it), width, height.

    Raises:
        PerpoError: No rows, or unusable ones; all unreadable images are counted.
    """
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, row in enumerate(rows):
        _check(row, f"{where}, row {number}")
        x, y, width, height = row["bbox"]
        try:
            image = keep_image(_bytes(row["image"]))
        except OSError as error:
            problems.append(f"{row['file_name']}: {error}")
            continue
        shared = {
            "bbox": [x, y, x + width, y + height],
            "image_file": str(image.file),
            "image_sha256": image.sha256,
            "image_path": row["file_name"],
            "width": image.width,
            "height": image.height,
        }
        for place, expression in enumerate(row["answer"]):
            # A row may hold the same sentence twice; its place keeps the two apart.
            found.append({"source_id": f"{row['question_id']}/{place}", "expression": expression, **shared})
    names = {doc["image_file"]: doc["image_path"] for doc in found}
    for name, problem in zip(names.values(), image_problems([Path(file) for file in names]), strict=True):
        if problem is not None:
            problems.append(f"{name}: {problem}")
    if problems:
        shown = "; ".join(problems[:10])
        raise PerpoError(f"{where}: {len(problems)} images cannot be read: {shown}", "fetch them again")
    if not found:
        raise PerpoError(f"{where} holds no expressions", "give a file with rows in RefCOCO's columns")
    return Dataset.from_list(found)


def parquet_documents(path: Path) -> Dataset:
    """The documents of a Parquet file with RefCOCO's columns.

    Raises:
        PerpoError: The file is missing, is no Parquet, or holds unusable rows.
    """
    return documents(read_rows(path), str(path))


def hub_documents(dataset: Dataset) -> Dataset:
    """The documents of a data set with RefCOCO's columns, as `load_dataset` gives it (process_docs)."""
    raw = dataset.select_columns(list(COLUMNS)).cast_column("image", ImageColumn(decode=False))
    return documents(raw, f"{dataset.info.dataset_name} {dataset.split}")


def tiny_documents(pointer: Dataset) -> Dataset:
    """The documents of the tiny world (process_docs); the split's name says which task."""
    benchmark, split = str(pointer.split).replace("plus", "+").rsplit("_", 1)
    return parquet_documents(tiny_parquet(benchmark, split))


def tiny_parquet(benchmark: str, split: str) -> Path:
    """The Parquet file of a split of the tiny world, drawn at its first use."""
    from perpo.tiny import world

    path = cache_folder() / f"tiny-world-{tiny_version()}" / f"{benchmark}_{split}.parquet"
    if not path.is_file():
        part = path.with_name(f".{path.name}.{os.getpid()}")
        world.write_parquet(benchmark, split, part)
        part.replace(path)
    return path


def doc_to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """The image of a document."""
    return [open_image(doc["image_file"])]


def doc_to_text(doc: Mapping[str, Any], prompt: str = _LLAVA.grounding_prompt) -> str:
    """The question; `prompt` has {expression} in it."""
    return prompt.format(expression=doc["expression"])


def process_results(
    doc: Mapping[str, Any], results: list[str], box_format: BoxFormat = _LLAVA.box_format
) -> dict[str, Any]:
    """The scores of a document's answer, and the box that was read from it."""
    scored = score_box(results[0], doc["bbox"], (doc["width"], doc["height"]), box_format)
    return {**scored.scores, "prediction": scored.prediction}


def mean(scores: list[float]) -> float:
    """The aggregation of every score."""
    return sum(scores) / len(scores)


def _check(row: Mapping[str, Any], where: str) -> None:
    if missing := sorted(set(COLUMNS) - set(row)):
        raise PerpoError(f"{where} lacks {', '.join(missing)}", f"a row has the columns {', '.join(COLUMNS)}")
    image, texts, box = row["image"], row["answer"], row["bbox"]
    if not isinstance(image, Mapping) or not (
        isinstance(image.get("bytes"), bytes) or isinstance(image.get("path"), str)
    ):
        raise PerpoError(f"{where}: image is {image!r:.40}; expected its bytes or its path", "see RefCOCO's rows")
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise PerpoError(f"{where}: answer is {texts!r}; expected a list of expressions", "see RefCOCO's rows")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)) or min(box[2:]) <= 0:
        raise PerpoError(f"{where}: bbox is {box!r:.60}; expected x, y, width, height in pixels", "see RefCOCO's rows")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _bytes(image: Mapping[str, Any]) -> bytes:
    return image["bytes"] if image.get("bytes") is not None else Path(image["path"]).read_bytes()
