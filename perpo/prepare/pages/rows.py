"""Rows of pages of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpo.data.rows import Row
from perpo.errors import PerpoError
from perpo.prepare.parquet import image_cell


@dataclass(frozen=True)
class OcrPage:
    """A page.

    Attributes:
        image: Its image's file, or the name of `content`.
        question: What is asked about it; "" for the evaluation's own prompt.
        text: Its text, or what else an answer is scored against.
        content: The bytes of its image, where it is in no file of its own.
        name: What the data set calls it; by default its number.
        layout: How it is laid out, where that is known: "1 column", "2 columns".
    """

    image: Path
    question: str
    text: str
    content: bytes | None = None
    name: str = ""
    layout: str | None = None


def page_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PerpoError(f"{path} cannot be read as UTF-8 text: {error}", "convert it to UTF-8") from error


def told_counts(pages: Sequence[OcrPage]) -> dict[str, int]:
    return {"rows": len(pages), "images": len({page.image for page in pages})}


def page_rows(pages: Iterable[OcrPage], language: str) -> Iterator[Row]:
    for number, page in enumerate(pages):
        yield {
            "question_id": page.name or str(number),
            "image": image_cell(page.image) if page.content is None else _cell(page.image, page.content),
            "question": page.question,
            "answer": page.text,
            "language": language,
            "layout": page.layout,
            "file_name": page.image.name,
        }


def _cell(name: Path, content: bytes) -> dict[str, Any]:
    return {"bytes": content, "path": name.name}
