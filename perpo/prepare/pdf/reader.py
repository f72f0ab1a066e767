"""A process that reads one PDF file after another, as `workers` asks it to through a pipe.

It is apart because a file may crash, stop or mislead it. What it says is JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from perpo.common.files import disk_error
from perpo.prepare.pdf.checks import Limits
from perpo.prepare.pdf.document import PageSettings, read_document

MEMORY = 4 * 2**30
"""Bytes that a process may take."""

_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def main(descriptor: int) -> None:
    """Read documents until nobody asks for more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program that started this one ends it
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with contextlib.suppress(AttributeError):  # Linux only; elsewhere the end of the pipe is noticed after the page
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
    pipe = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):
        told = json.loads(pipe.recv_bytes())
        images, pages = Path(told["images"]), told["pages"]
        settings = PageSettings(**pages | {"limits": Limits(**pages["limits"])})
        _send(pipe, {"ready": True})
        while True:
            task = json.loads(pipe.recv_bytes())
            _send(pipe, _answer(pipe, Path(task["path"]), task["stem"], images, settings))


def _answer(pipe: Connection, path: Path, stem: str, images: Path, settings: PageSettings) -> dict[str, Any]:
    try:
        return {"found": read_document(path, stem, images, settings, lambda page: _send(pipe, {"done": page}))}
    except Exception as error:
        not_written = disk_error(error)
        if not_written is not None:
            return {"not_written": [not_written.message, not_written.hint]}
        return {"found": {"reason": "failed", "detail": f"{type(error).__name__}: {error}"[:300]}}


def _send(pipe: Connection, said: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(said).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
