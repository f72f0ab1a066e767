"""Rows of text files: a JSON list, JSON lines, one object around a list, CSV and TSV. Needs no torch.

What a file or one of its records cannot be read for is said with its place, and nothing is guessed.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perpo.errors import PerpoError, placed

SEPARATORS = {".csv": ",", ".tsv": "\t"}

_DEEPEST = 100  # levels of lists and objects in one record; what people have is flat
_MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_PACKED = {
    b"PK\x03\x04": ("a zip archive or an Excel sheet", "unpack it with unzip, or save the sheet as CSV"),
    b"\x1f\x8b": ("packed with gzip", "unpack it with gunzip"),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", "unpack it with unzstd"),
    b"PAR1": ("Parquet", "name it ...parquet"),
    b"version https://git-lfs": ("a Git LFS pointer instead of the file", "fetch the file with git lfs pull"),
}
_BLANK = re.compile(r"[ \t\r\n]*")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_RECORD_FIELDS = {"image", "image_path", "question", "answer", "conversations", "messages", "prompt", "sample_key"}


def text_rows(path: Path) -> Iterator[Any]:
    """Return the rows of a text file: CSV or TSV by its name, else JSON.

    Raises:
        PerpoError: It is no text, not JSON or no table; or a record repeats a field, is nested too deeply, or holds
            half of a character (a lone surrogate), each with its place.
    """
    text = _decoded(path)
    if path.suffix in SEPARATORS:
        return _table_rows(text, path)
    if text.lstrip().startswith("["):
        return _list_rows(text, path)
    return _object_rows(text, path)


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    for magic, (what, hint) in _PACKED.items():
        if content.startswith(magic):
            raise PerpoError(f"{path} is {what}, not JSON or CSV", hint)
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8-sig")
    name = encoding.removesuffix("-sig").upper()
    hint = f"convert it with iconv -f ENCODING -t UTF-8 {path} > NEW, or give a JSON list or JSON lines"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise PerpoError(f"{path} is not {name} text: {error}", hint) from error
    if "\0" in text:
        raise PerpoError(f"{path} holds NUL characters, so it is not a text file, or not in {name}", hint)
    return text


def _list_rows(text: str, path: Path) -> Iterator[Any]:
    place, number = _behind_blanks(text, text.index("[") + 1), 0
    while number or text[place : place + 1] != "]":
        number += 1
        row, place = _parsed(text, place, path, f"record {number}")
        yield row
        place = _behind_blanks(text, place)
        if text[place : place + 1] != ",":
            break
        place = _behind_blanks(text, place + 1)
    if text[place : place + 1] != "]" or text[place + 1 :].strip():
        raise _no_json(path, text, place, "expected a comma or the list's end")


def _object_rows(text: str, path: Path) -> Iterator[Any]:
    start = _behind_blanks(text, 0)
    try:
        whole, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        whole, end = None, start  # said below, with its line
    if isinstance(whole, dict) and not text[end:].strip():
        yield from _unwrapped(_parsed(text, start, path, "record 1")[0], path)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            row, end = _parsed(line, _behind_blanks(line, 0), path, f"line {number}", number)
            if line[end:].strip():
                raise _no_json(path, line, end, "more than one value", number)
            yield row


def _unwrapped(whole: dict[str, Any], path: Path) -> Iterator[Any]:
    """The records of a file that is one object: the only list of objects in it, or the object itself."""
    lists = [name for name, value in whole.items() if _holds_objects(value)]
    if _RECORD_FIELDS & set(whole) or not lists:
        yield whole
    elif len(lists) == 1:
        yield from whole[lists[0]]
    else:
        raise PerpoError(
            f"{path} is one JSON object with several lists: {', '.join(lists)}",
            f"take out the list with the records: jq '.{lists[-1]}' {path} > records.json",
        )


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _parsed(text: str, place: int, path: Path, what: str, first_line: int = 1) -> tuple[Any, int]:
    """The value that begins at a place of a text, and where it ends."""
    where = f"{path}, {what}"
    try:
        with placed(where):
            row, end = _DECODER.raw_decode(text, place)
    except json.JSONDecodeError as error:
        raise _no_json(path, text, error.pos, error.msg, first_line) from error
    except RecursionError as error:
        raise PerpoError(f"{where}: it is nested too deeply", "correct or remove the record") from error
    except ValueError as error:  # a number of thousands of digits
        raise PerpoError(f"{where}: {error}", "correct or remove the record") from error
    source = text[place:end]
    if source.count("[") + source.count("{") > _DEEPEST or _HALF_ESCAPED.search(source):
        problem = _problem(row)
        if problem is not None:
            raise PerpoError(f"{where}: it {problem}", "correct or remove the record")
    return row, end


def _no_json(path: Path, text: str, place: int, said: str, first_line: int = 1) -> PerpoError:
    line = first_line + text.count("\n", 0, place)
    return PerpoError(
        f"{path}, line {line}: not JSON: {said}", "expected a JSON list of records, or one record per line"
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PerpoError(f"it has `{twice:.40}` twice", "keep one of them")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _problem(row: Any) -> str | None:
    """Why a record could be read, but not be written again or shown; None where it can."""
    waiting = [(row, 1)]
    while waiting:
        value, level = waiting.pop()
        if level > _DEEPEST:
            return "is nested too deeply"
        if isinstance(value, str) and _HALF_CHARACTER.search(value):
            return f"holds half of a Unicode character: {value!a:.60}"
        if isinstance(value, dict):
            waiting += [(each, level + 1) for pair in value.items() for each in pair]
        elif isinstance(value, list):
            waiting += [(each, level + 1) for each in value]
    return None


def _table_rows(text: str, path: Path) -> Iterator[dict[str, str | None]]:
    csv.field_size_limit(sys.maxsize)  # a field may be a page of text
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=SEPARATORS[path.suffix], strict=True)
    try:
        names = next(reader, [])
        if len(names) < 2:
            raise PerpoError(
                f"{path} has only one column, {names[0]!r:.60}" if names else f"{path} is empty",
                "the first line must name the columns, separated by commas in .csv and by tabs in .tsv",
            )
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise PerpoError(f"{path} has the column '{twice}' twice", "keep one of them")
        for fields in reader:
            if not fields:  # an empty line
                continue
            if len(fields) != len(names):
                raise PerpoError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields, but {len(names)} columns",
                    "put texts that contain the separator in quotes",
                )
            yield {name: field or None for name, field in zip(names, fields, strict=True)}
    except csv.Error as error:
        raise PerpoError(f"{path}, line {reader.line_num}: not a table: {error}", "save it as CSV again") from error


def _behind_blanks(text: str, place: int) -> int:
    blanks = _BLANK.match(text, place)
    assert blanks is not None  # it matches nothing, too
    return blanks.end()
