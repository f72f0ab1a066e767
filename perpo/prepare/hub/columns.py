"""The hub's rows in our columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.data.rows import Row
from perpo.errors import PerpoError
from perpo.prepare.overlap.images import coco_number
from perpo.prepare.refer.layout import Ref

if TYPE_CHECKING:
    from datasets import Dataset


def grounding_rows(data: Dataset, refs: Sequence[Ref]) -> Iterator[Row]:
    """Yield the hub's rows in our columns; what only the refs say is None where there are none."""
    for number, row in enumerate(data):
        ref = refs[number] if refs else None
        yield {
            **{name: row[name] for name in ("question", "answer", "bbox", "file_name")},
            "question_id": str(row["question_id"]),
            "image": _image(row, "file_name"),
            "iscrowd": int(row["iscrowd"]),
            "image_id": coco_number(row["file_name"]),
            "ref_id": ref and ref.ref_id,
            "category_id": ref and ref.category_id,
        }


def pope_row(row: Row, split: str) -> Row:
    """Return a row of POPE's on the hub in our columns; `split` is its list: random, popular or adversarial."""
    return {
        **{name: row[name] for name in ("question", "answer", "image_source")},
        "id": str(row["id"]),
        "question_id": str(row["question_id"]),
        "image": _image(row, "image_source"),
        "category": split,
    }


def _image(row: Row, name: str) -> dict[str, Any]:
    """The image as it is stored; where the hub gives it no name, that of the column `name`."""
    cell = row["image"]
    if cell is None or cell["bytes"] is None:
        raise PerpoError(f"{row[name]}: the hub's row holds no image", "give an older --revision")
    return {"bytes": cell["bytes"], "path": Path(cell["path"] or row[name]).name}
