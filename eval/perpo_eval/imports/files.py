"""Prediction files become predictions: rows of many formats, and what each says of its sample."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpo.data import data_sha256
from perpo.data.rows import read_rows
from perpo.errors import PerpoError, placed
from perpo_eval.imports.cells import READ, is_data, read_answer
from perpo_eval.imports.layouts import Layout, layout_of

_SAMPLES = re.compile(r"(?:^|_)samples_(?P<task>.+)\.jsonl$")


@dataclass(frozen=True)
class Prediction:
    """One row of a prediction file; what the file does not say is None.

    Attributes:
        place: The file and the row, for messages.
        file: The file's name.
        answer: What the model said; None where it gave no answer.
        sample_key: perpo's own name of the sample.
        id: The data set's name of it.
        number: Its place in its task, from 0.
        image: The picture, as the file names it.
        question: What was asked.
        truth: The true answer, as the file writes it.
        split: The task, or its split.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        tokens: Generated tokens.
        latency_ms: Milliseconds that the answer took.
        finish: "stop", "length" or "repetition".
        lent: Whether the question is one of a question file alone: then it shows nothing of the answer.
        as_data: Whether the answer is written as a list or an object, as only boxes are.
    """

    place: str
    file: str
    answer: str | None
    sample_key: str | None = None
    id: str | None = None
    number: int | None = None
    image: str | None = None
    question: str | None = None
    truth: Any = None
    split: str | None = None
    width: int | None = None
    height: int | None = None
    tokens: int | None = None
    latency_ms: float | None = None
    finish: str | None = None
    lent: bool = False
    as_data: bool = False


@dataclass(frozen=True)
class ReadFile:
    """A prediction file, read.

    Attributes:
        name: Its name, without the folder.
        sha256: Digest of its bytes.
        layout: How it is written.
        predictions: Its rows.
        models: Who answered, where the layout says so.
    """

    name: str
    sha256: str
    layout: Layout
    predictions: list[Prediction]
    models: set[str]


def read_files(paths: Sequence[Path], layout: str | None, columns: Mapping[str, str], *, boxes: bool) -> list[ReadFile]:
    """Return prediction files, all of one layout.

    Args:
        paths: The files.
        layout: What --layout says; None to recognise it.
        columns: What --columns says.
        boxes: Whether answers may be boxes, which need not be written as texts.

    Raises:
        PerpoError: A file that can't be read, of no known layout, or of another one than the first; or answers of
            several models.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise PerpoError("a file is given twice", "give each file once")
    files: list[ReadFile] = []
    for path in paths:
        files.append(_read(path, layout, columns, boxes))
        if files[-1].layout != files[0].layout:
            titles = f"{files[0].layout.title} and {files[-1].layout.title}"
            raise PerpoError(f"{files[0].name} and {path.name} are of two layouts: {titles}", "import them one by one")
    if len(models := sorted({model for file in files for model in file.models})) > 1:
        raise PerpoError(
            f"these are answers of {len(models)} models: {', '.join(models)[:200]}", "import one at a time"
        )
    return files


def task_named(file: str) -> str | None:
    """Return the task that lmms-eval names in a file of samples, or None."""
    match = _SAMPLES.search(file)
    return match and match["task"]


def _read(path: Path, name: str | None, columns: Mapping[str, str], boxes: bool) -> ReadFile:
    rows = list(_rows(path))
    if not rows:
        raise PerpoError(f"{path} holds no rows", "is it the right file?")
    if bad := next((number for number, row in enumerate(rows, 1) if not isinstance(row, dict)), None):
        raise PerpoError(f"{path}, row {bad}: expected an object with fields, found {rows[bad - 1]!r:.40}", "mend it")
    seen = list(dict.fromkeys(column for row in rows for column in row))
    with placed(str(path)):
        layout = layout_of(seen, name, columns)
    predictions = []
    for number, row in enumerate(rows, start=1):
        place = f"{path.name}, row {number}"
        with placed(place):
            predictions.append(_prediction(row, layout, place, path.name, boxes))
    models = {str(row[layout.model]) for row in rows if row.get(layout.model)} if layout.model else set()
    return ReadFile(path.name, data_sha256(path), layout, predictions, models)


def _rows(path: Path) -> Iterator[Any]:
    if path.suffix.lower() == ".xlsx" and path.is_file():
        return _sheet_rows(path)
    rows = iter(read_rows(path))
    first = next(rows, None)
    second = next(rows, None)
    if second is None and isinstance(first, dict):
        return iter(_innermost(first, path))
    return (row for part in ([first, second] if second is not None else [], rows) for row in part)


def _innermost(whole: dict[str, Any], path: Path) -> list[Any]:
    """The rows of an object of objects, as REC-Eval writes them: by data set and model; else the object itself."""
    columns: list[tuple[str, list[Any]]] = []
    waiting: list[tuple[str, Any]] = [("", whole)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict) and value and all(isinstance(each, dict | list) for each in value.values()):
            waiting += [(f"{name}/{key}", each) for key, each in value.items()]
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            columns.append((name[1:], value))
        else:
            return [whole]
    if len(columns) > 1:
        names = ", ".join(sorted(name for name, _ in columns))
        raise PerpoError(
            f"{path} holds several lists of predictions: {names[:200]}", "write each into a file of its own"
        )
    return columns[0][1] if columns else [whole]


def _sheet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import openpyxl
    except ImportError as error:
        raise PerpoError(
            f"{path} is an Excel sheet, and openpyxl, which reads these, is not installed",
            "pip install 'perpo[eval]', or save the sheet as CSV",
        ) from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        rows, *others = [list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets]
        titles = [sheet.title for sheet in book.worksheets]
        book.close()
    except Exception as error:  # a damaged sheet raises many kinds
        raise PerpoError(f"{path} can't be read as an Excel sheet: {error}", "save it again, or as CSV") from error
    names = [None if name is None else str(name) for name in (rows[0] if rows else ())]
    while names and names[-1] is None:
        names.pop()
    if not names or None in names or len(set(names)) < len(names):
        raise PerpoError(f"{path}: the first line must name each column, once", "save it with a line of names")
    if more := [
        title for title, other in zip(titles[1:], others, strict=True) if len(other) > 1 and other[0] == rows[0]
    ]:
        raise PerpoError(
            f"{path} has rows in several sheets: {titles[0]}, {', '.join(more)}", "save each as a file of its own"
        )
    for row in rows[1:]:
        if any(value is not None for value in row):
            yield dict(zip([str(name) for name in names], row, strict=False))


def _prediction(row: Mapping[str, Any], layout: Layout, place: str, file: str, boxes: bool) -> Prediction:
    lacking = [theirs for theirs in layout.needs.values() if theirs not in row and theirs != layout.needs["answer"]]
    if lacking:
        raise PerpoError(f"it lacks {', '.join(lacking)}", "each row has the same columns")
    said: dict[str, Any] = {}
    for ours, theirs in {**layout.may, **layout.needs}.items():
        if theirs and ours != "answer" and row.get(theirs) is not None:
            said[ours] = READ[ours](row[theirs], theirs)
    for ours, value in (layout.also(row) if layout.also is not None else {}).items():
        if value is not None and ours not in said:
            said[ours] = READ[ours](value, ours)
    column = layout.needs["answer"]
    held = layout.answer(row) if layout.answer is not None else row.get(column)
    return Prediction(place, file, read_answer(held, column, boxes), as_data=is_data(held), **said)
