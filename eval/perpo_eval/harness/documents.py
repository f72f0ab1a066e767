"""Rows of a task of lmms-eval's as documents: what is asked, the truth, and which pictures are shown."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo_eval.rows.media import StoredImage, keep_image, locate_image

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Document:
    """A row as perpo stores it.

    Attributes:
        columns: As in `perpo_eval.rows.documents.DOCUMENT_COLUMNS`, and `pictures`: how many are shown.
        shown: Digest of what is shown.
    """

    columns: dict[str, Any]
    shown: str


def document(task: Any, docs: Dataset, number: int) -> Document:
    """Return a row as a document.

    The picture that is stored, and that intervals cluster by, is the row's own: rows that show parts of one picture, or
    marks on it, share its difficulty. Without a picture, or with several, a row is a cluster of its own.

    Args:
        task: lmms-eval's object.
        docs: Its rows.
        number: Which of them.

    Raises:
        OSError: A picture cannot be read.
    """
    from PIL import Image

    doc = docs[number]
    visuals = [] if task.config.doc_to_visual is None else list(task.doc_to_visual(doc) or [])
    asked = task.fewshot_context(doc, task.config.num_fewshot or 0)
    raw = _raw(docs, number)
    held = [picture for name in raw for picture in _pictures(raw[name])]
    kept: StoredImage | None = None
    if len(visuals) == 1 and isinstance(visuals[0], Image.Image):
        kept = _kept(held[0]) if len(held) == 1 else keep_image(_as_png(visuals[0]))
    name = f"{task.config.task}/{number}"
    columns = {
        "source_id": str(number),
        "query": asked if isinstance(asked, str) else str(asked),
        "as_written": True,
        "target": json.dumps(_plain(task.doc_to_target(doc)), ensure_ascii=False, default=str),
        "image_file": None if kept is None else str(kept.file),
        "image_sha256": hashlib.sha256(name.encode()).hexdigest() if kept is None else kept.sha256,
        "image_path": None if kept is None else _name_of(held, number),
        "width": None if kept is None else kept.width,
        "height": None if kept is None else kept.height,
        "pictures": len(visuals),
    }
    return Document(columns, _shown(visuals))


def row_digest(docs: Dataset, number: int) -> str:
    """Return the SHA-256 of what a row says and of its pictures."""

    def told(value: Any) -> Any:
        if isinstance(value, dict) and set(value) == {"bytes", "path"}:
            content = value["bytes"] if value["bytes"] is not None else _read(value["path"])
            return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else None
        if isinstance(value, list):
            return [told(each) for each in value]
        return value

    row = {name: told(value) for name, value in _raw(docs, number).items()}
    return hashlib.sha256(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


def _raw(docs: Dataset, number: int) -> dict[str, Any]:
    """A row with its pictures as files are, not decoded."""
    return docs.with_format("arrow")[number : number + 1].to_pylist()[0]


def _read(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path and Path(path).is_file() else None


def _pictures(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict) and set(value) == {"bytes", "path"}:
        return [value]
    return [each for part in value for each in _pictures(part)] if isinstance(value, list) else []


def _kept(picture: dict[str, Any]) -> StoredImage:
    return keep_image(picture["bytes"]) if picture["bytes"] is not None else locate_image(Path(picture["path"]))


def _name_of(held: list[dict[str, Any]], number: int) -> str:
    path = held[0]["path"] if len(held) == 1 else None
    return Path(path).name if path else f"row {number}"


def _as_png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    (picture if picture.mode in ("RGB", "RGBA", "L") else picture.convert("RGB")).save(buffer, format="PNG")
    return buffer.getvalue()


def _shown(visuals: list[Any]) -> str:
    """Digest of the pixels that are shown, in their order."""
    from PIL import Image

    digest = hashlib.sha256()
    for each in visuals:
        if isinstance(each, Image.Image):
            digest.update(f"{each.mode} {each.size}".encode() + each.tobytes())
        else:
            digest.update(repr(each).encode())
    return digest.hexdigest()


def _plain(target: Any) -> Any:
    return target.item() if hasattr(target, "item") else target
