"""Rows of a benchmark become documents: small, uniform, and with the image named instead of held.

Every document has the same columns, whatever the benchmark, so that asking, scoring and storing are
written once. An image is kept in a cache file of its own, so that a row with ten expressions is decoded once
and 100,000 documents are small.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.data.images import as_stored, image_problems, short_name
from perpo.data.placeholders import without_image
from perpo.data.rows import read_rows
from perpo.errors import PerpoError, placed
from perpo_eval.benchmarks.base import Row, RowFormat
from perpo_eval.rows.media import StoredImage, keep_image, locate_image

if TYPE_CHECKING:
    from datasets import Dataset


DOCUMENT_COLUMNS: dict[str, str] = {
    "source_id": "what the data set calls the sample; a second one of that name has #2 behind it",
    "query": "what is asked about: an expression, a question, or nothing where the prompt says it all",
    "as_written": "whether the query is the whole question and is asked as it is, without the benchmark's prompt",
    "target": "the truth (JSON): a box xyxy in pixels, yes or no, or a text",
    "layout": "how the page is laid out, where the row has a column of that name, or null",
    "image_file": "the image on this machine",
    "image_sha256": "digest of its bytes",
    "image_path": "as the data set names it",
    "width": "in pixels",
    "height": "in pixels",
}


def documents(rows: Iterable[Row], form: RowFormat, where: str, *, stored: bool = False) -> Dataset:
    """Return the documents of some rows, in their order.

    Args:
        rows: The rows, with images as {bytes, path}.
        form: What they are.
        where: Where they were found, for messages.
        stored: Whether they speak of pictures as their pixels are stored, as COCO does, and not of upright ones.

    Returns:
        A data set with `DOCUMENT_COLUMNS`.

    Raises:
        PerpoError: No rows, or unusable ones; all unreadable images are counted.
    """
    from datasets import Dataset

    samples: list[dict[str, Any]] = []
    problems: list[str] = []
    times: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows):
        _check(row, form, f"{where}, row {number}")
        image_name = str(row[form.image_name])
        try:
            kept = _kept(row["image"], stored)
        except OSError as error:
            problems.append(f"{short_name(image_name)}: {error}")
            continue
        about = {
            "as_written": form.as_written(row),
            "layout": (row.get("layout") or None) if form.has_layout else None,
            "image_file": str(kept.file),
            "image_sha256": kept.sha256,
            "image_path": image_name,
            "width": kept.width,
            "height": kept.height,
        }
        for source_id, asked, target in form.samples(row):
            with placed(f"{where}, row {number}"):
                query = without_image(asked)
            text = json.dumps(target, ensure_ascii=False)
            # Two rows may have one name, such as an object that two partitions of a data set hold.
            again = times[source_id, query] = times.get((source_id, query), 0) + 1
            name = source_id if again == 1 else f"{source_id}#{again}"
            samples.append({"source_id": name, "query": query, "target": text, **about})
    _refuse_bad_images(samples, problems, where)
    if not samples:
        raise PerpoError(f"{where} holds no samples", f"give a file with rows in {form.name}'s columns")
    return Dataset.from_list(samples)


def parquet_documents(path: Path, form: RowFormat, *, stored: bool = False) -> Dataset:
    """Return the documents of a Parquet file; the arguments are those of `documents`.

    Raises:
        PerpoError: The file is missing, is no Parquet, or holds unusable rows.
    """
    return documents(read_rows(path), form, str(path), stored=stored)


def hub_documents(dataset: Dataset, form: RowFormat) -> Dataset:
    """Return the documents of a data set as `load_dataset` gives it; those on the hub show COCO's pictures."""
    from datasets import Image

    raw = dataset.select_columns(list(form.columns)).cast_column("image", Image(decode=False))
    return documents(raw, form, f"{dataset.info.dataset_name} {dataset.split}", stored=True)


def fingerprint(docs: Dataset) -> str:
    """Return SHA-256 of what documents say and of their images, in their order.

    Of the meaning, not of the Parquet bytes, which change with the version of the writer.
    """
    digest = hashlib.sha256()
    for doc in docs.remove_columns("image_file"):
        if not doc["as_written"]:  # as every document was before there were questions of one's own
            del doc["as_written"]
        doc.pop("layout", None)  # no answer depends on it
        digest.update(json.dumps(doc, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _kept(image: Mapping[str, Any], stored: bool) -> StoredImage:
    """An image of a row in a file: its own, or in the cache."""
    source = Path(image["path"]) if image.get("bytes") is None else image["bytes"]
    source = (as_stored(source) if stored else None) or source
    return locate_image(source) if isinstance(source, Path) else keep_image(source)


def _check(row: Row, form: RowFormat, where: str) -> None:
    hint = f"a row has the columns {', '.join(form.columns)}; see {form.name}'s rows"
    if missing := sorted(set(form.columns) - set(row)):
        raise PerpoError(f"{where} lacks {', '.join(missing)}", hint)
    image = row["image"]
    if not isinstance(image, Mapping) or not (
        isinstance(image.get("bytes"), bytes) or isinstance(image.get("path"), str)
    ):
        raise PerpoError(f"{where}: image is {image!r:.40}; expected its bytes or its path", hint)
    if form.has_layout and not isinstance(row.get("layout"), str | None):
        raise PerpoError(f"{where}: layout is {row['layout']!r:.40}; expected a text, or null", hint)
    problem = form.problem(row)
    if problem is not None:
        raise PerpoError(f"{where}: {problem}", hint)


def _refuse_bad_images(docs: list[dict[str, Any]], problems: list[str], where: str) -> None:
    names = {doc["image_file"]: doc["image_path"] for doc in docs}
    for name, problem in zip(names.values(), image_problems([Path(file) for file in names]), strict=True):
        if problem is not None:
            problems.append(f"{short_name(name)}: {problem}")
    if different := list(dict.fromkeys(problems)):  # several rows may be about one image
        shown = "; ".join(different[:10])
        raise PerpoError(f"{where}: {len(different)} images cannot be read: {shown}", "fetch them again")
