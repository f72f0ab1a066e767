"""A journal of finished work: kill the program at any moment, run it again, and nothing is done twice."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from perpo.common.files import atomic_write_bytes, disk_errors, make_folder
from perpo.common.locks import lock_file
from perpo.errors import PerpoError


class Journal:
    """JSON lines, one finished item each, under a first line that says what work it belongs to.

    A line without its newline (the process died while writing it) does not count and is cut off
    before anything is added. Only one process may have a journal open.

    Args:
        path: The file; it and its folder are made if need be.
        key: Whatever the items depend on (settings, weights, data), best as a hash.

    Raises:
        PerpoError: The file was written under another key, is no journal, or is open elsewhere; or the disk does
            not take it.
    """

    def __init__(self, path: str | Path, key: str) -> None:
        self.path = Path(path)
        with disk_errors(self.path):
            self._file = _opened(self.path)
        try:
            self._rows = self._open(key)
        except BaseException:
            self._file.close()
            raise

    def done(self) -> dict[Any, dict[str, Any]]:
        """Return the rows so far by their `id`; of two rows with one id the later counts."""
        return dict(self._rows)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add finished items, each with an `id`; when it returns they are on the disk.

        Raises:
            NotWritten: The disk does not take them; none is added, and those before stay.
        """
        added = [dict(row) for row in rows]
        self._write([_line(row) for row in added])
        self._rows.update((row["id"], row) for row in added)

    def close(self) -> None:
        """Let another process open the journal."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, key: str) -> dict[Any, dict[str, Any]]:
        lock_file(
            self._file,
            f"{self.path} is in use by another process",
            "wait until that process ends, or choose another output",
        )
        self._file.seek(0)
        content = self._file.read()
        header = _line({"journal": key})
        rows, length = _rows(content, header, self.path)
        self._file.truncate(length)
        if not length:
            self._write([header])
        return rows

    def _write(self, lines: Iterable[bytes]) -> None:
        descriptor, rest = self._file.fileno(), b"".join(lines)
        before = os.fstat(descriptor).st_size
        with disk_errors(self.path):
            try:
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
            except OSError:
                with suppress(OSError):  # a part of a line does not count, and is cut off by who opens it next
                    os.ftruncate(descriptor, before)
                raise


def _opened(path: Path) -> FileIO:
    """The file, unbuffered, so that nothing that failed is left to be written when it is closed."""
    make_folder(path.parent)
    try:
        return open(path, "a+b", buffering=0)
    except FileNotFoundError:  # whoever dropped the last row of another journal took the folder away meanwhile
        make_folder(path.parent)
        return open(path, "a+b", buffering=0)


def finished_rows(path: str | Path, key: str) -> dict[Any, dict[str, Any]]:
    """Return the rows of a journal that another process may be writing, by their `id`; what is half written does not
    count.

    Raises:
        PerpoError: As for `Journal`.
    """
    return _rows(Path(path).read_bytes(), _line({"journal": key}), Path(path))[0]


def drop_rows(path: str | Path, key: str, done_with: Collection[Any]) -> None:
    """Drop the rows of a journal that are not needed any more; without any other row the file goes too.

    The file is written anew in one step: a crash leaves the old one or the new one.

    Raises:
        PerpoError: As for `Journal`.
    """
    with Journal(path, key) as journal:
        rows = journal.done()
        kept = [row for row_id, row in rows.items() if row_id not in done_with]
        if not kept:
            journal.path.unlink()
        elif len(kept) < len(rows):
            atomic_write_bytes(path, b"".join(map(_line, [{"journal": key}, *kept])))


def _rows(content: bytes, header: bytes, path: Path) -> tuple[dict[Any, dict[str, Any]], int]:
    """The rows of a journal's bytes by their id, and how many bytes are whole lines."""
    whole = content[: content.rfind(b"\n") + 1]
    if not header.startswith(content) and not whole.startswith(header):
        if not whole.startswith(b'{"journal": '):
            raise PerpoError(f"{path} exists and is not a journal", "choose another output, or move that file away")
        raise PerpoError(
            f"{path} holds unfinished work with other settings, another model or other data",
            f"choose another output, or delete {path} to start over",
        )
    lines = whole.splitlines()[1:]
    parsed = (_parsed(path, number, line) for number, line in enumerate(lines, start=2))
    return {row["id"]: row for row in parsed}, len(whole)


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
        row["id"]
    except (ValueError, KeyError, TypeError):
        raise PerpoError(f"{path}, line {number}: damaged", f"delete {path} to start over") from None
    return row


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, allow_nan=False).encode() + b"\n"
