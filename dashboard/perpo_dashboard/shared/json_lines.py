"""Files of JSON lines that people's work is added to, one line at a time: nothing that was added is ever lost."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perpo.common.files import disk_errors, flush
from perpo.errors import PerpoError


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row; when it returns, it is on the disk. Several threads and processes may do so at once.

    What another process left half written at the end stays as a line of its own, which `read` counts.

    Raises:
        PerpoError: The file cannot be written.
    """
    line = json.dumps(row, allow_nan=False).encode() + b"\n"
    try:
        with disk_errors(path), open(path, "a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _ends_well(file.fileno()):
                line = b"\n" + line
            while line:
                line = line[os.write(file.fileno(), line) :]
            os.fsync(file.fileno())
        flush(path.parent)  # the file's name, where it is new
    except OSError as error:
        raise PerpoError(
            f"{path} cannot be written: {error.strerror}",
            "free space on the disk, or let this user write there",
            exit_code=3,
        ) from error


def read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the rows, the oldest first, and how many lines hold none; no rows where there is no file.

    Raises:
        PerpoError: The file cannot be read.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise PerpoError(f"{path} cannot be read: {error.strerror}", "let this user read it") from error
    rows = [_row(line) for line in content.split(b"\n") if line.strip()]
    good = [row for row in rows if row is not None]
    return good, len(rows) - len(good)


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # the latter of thousands of brackets
        return None
    return row if isinstance(row, dict) else None


def _ends_well(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
