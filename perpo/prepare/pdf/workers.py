"""Processes that read PDF files. A file is hostile: the renderer may crash, hang, or take all memory, and the job
goes on.

pdfium is not safe in threads, so each worker is a process of its own that reads one document at a time. What a worker
says comes as JSON, for it may have been taken over by a file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from perpo.common.processes import ending
from perpo.errors import PerpoError
from perpo.prepare.pdf.document import PageSettings

_START_S = 120.0  # in which a worker must have started


@dataclass(frozen=True)
class DocumentTask:
    """A document to be read: its file, and what the names of its pictures begin with."""

    path: Path
    stem: str


@dataclass(frozen=True)
class WorkerSettings:
    """The settings that workers start with: the folder for pictures, those of pages, how long a page may take."""

    images: Path
    pages: PageSettings
    page_seconds: float


def read_documents(
    tasks: Iterable[DocumentTask], settings: WorkerSettings, workers: int
) -> Iterator[tuple[DocumentTask, dict[str, Any]]]:
    """Yield each task with what `read_document` returns, as they come.

    Raises:
        PerpoError: The disk does not take the pictures.
    """
    left = deque(tasks)
    running = [_Worker(settings) for _ in range(min(workers, len(left)))]
    try:
        while left or any(worker.task for worker in running):
            for number, worker in enumerate(running):
                if worker.task is None and left:
                    if not worker.is_alive():
                        running[number] = worker = _Worker(settings)
                    worker.give(left.popleft())
            yield from _heard([worker for worker in running if worker.task])
    finally:
        for worker in running:
            worker.end()


def _heard(busy: list[_Worker]) -> Iterator[tuple[DocumentTask, dict[str, Any]]]:
    """Wait for the next words of any worker, or for the end of its time."""
    patience = max(min(worker.deadline for worker in busy) - time.monotonic(), 0)
    ready = wait([worker.pipe for worker in busy], timeout=patience)
    for worker in busy:
        if worker.pipe in ready:
            said = worker.hear()
        elif time.monotonic() > worker.deadline and not worker.pipe.poll():
            worker.end()
            said = {"reason": "too_slow", "detail": worker.where()}
        else:
            continue
        if said is not None and worker.task is not None:
            task, worker.task = worker.task, None
            yield task, said


class _Worker:
    """A process (`perpo.prepare.pdf.reader`), and what it is doing."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.pipe, other = Pipe()
        # Neither a fork, which would hold other workers' pipes open, nor a spawn, which would run the user's own
        # script again where that calls this without a guard.
        words = [sys.executable, "-m", "perpo.prepare.pdf.reader", str(other.fileno())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            words, pass_fds=[other.fileno()], env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        other.close()
        self.task: DocumentTask | None = None
        self.deadline = 0.0
        self._page_seconds = settings.page_seconds
        self._page = -1
        told = {"images": str(settings.images), "pages": dataclasses.asdict(settings.pages)}
        with contextlib.suppress(OSError):  # it has died, which is heard next
            _send(self.pipe, told)
        if not self.pipe.poll(_START_S) or not self._is_ready():
            self.end()
            raise PerpoError(
                f"a process that reads PDF files did not start ({ending(self.process.returncode)})",
                f"see what {' '.join(words[:3])} says",
                exit_code=3,
            )

    def _is_ready(self) -> bool:
        try:
            return bool(self.pipe.recv_bytes())
        except (EOFError, OSError):
            return False

    def give(self, task: DocumentTask) -> None:
        self.task, self._page = task, -1
        self.deadline = time.monotonic() + self._page_seconds
        with contextlib.suppress(OSError):  # it has died, which is heard next
            _send(self.pipe, {"path": str(task.path), "stem": task.stem})

    def hear(self) -> dict[str, Any] | None:
        """Return what a document holds, or how the worker died; None where there is more to wait for."""
        try:
            said = json.loads(self.pipe.recv_bytes())
        except (EOFError, OSError, ValueError):
            self.end()
            return {"reason": "crash", "detail": f"{self.where()}, {ending(self.process.returncode)}"}
        if "done" in said:
            self._page = said["done"]
            self.deadline = time.monotonic() + self._page_seconds
            return None
        if "not_written" in said:
            raise PerpoError(*said["not_written"], exit_code=3)
        return dict(said["found"])

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def where(self) -> str:
        """Return what the worker was doing, in words."""
        return "while it was opened" if self._page < 0 else f"at page {self._page + 1}"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pipe.close()


def _send(pipe: Connection, said: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(said).encode())
