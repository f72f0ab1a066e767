"""Experiments side by side: processes that do one after another, each with its share of the cores or a GPU of its own.

This is the process that was started; `perpo_eval.recipes.worker` is the others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

from perpo.common.processes import ended_together, ending, threads_each
from perpo.errors import PerpoError
from perpo_eval.recipes.stage import say

_PATIENCE_S = 120.0
"""A training that is asked to end writes a checkpoint after its step, which may be long."""


class SharedWork(Protocol):
    """Experiments that can be done each by itself, when what they share is there. It goes to other processes whole."""

    def prepare(self, names: Sequence[str]) -> None:
        """Do what the experiments share."""

    def do(self, name: str) -> None:
        """Do an experiment."""


def check_jobs(jobs: int) -> None:
    """Refuse more jobs than there are GPUs, where there are any.

    Raises:
        PerpoError: So it is.
    """
    devices = gpus()
    if devices and jobs > len(devices):
        raise PerpoError(
            f"--jobs {jobs} needs {jobs} GPUs, one for each, and {len(devices)} can be used here",
            f"give --jobs {len(devices)}, or set CUDA_VISIBLE_DEVICES to nothing to compute without them",
        )


def gpus() -> list[str]:
    """Return the names of the GPUs that may be used, as CUDA_VISIBLE_DEVICES has them."""
    if not any(Path("/dev").glob(pattern) for pattern in ("nvidia[0-9]*", "dxg", "kfd")):
        return []  # torch, which takes seconds to load, need not be asked
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (named.split(",") if named else list(map(str, range(count))))[:count]


def side_by_side(work: SharedWork, names: Sequence[str], jobs: int) -> None:
    """Do experiments in several processes: first, in one, what they share, then each by itself, in the given order.

    All of them end where one fails, and with this process, even if that is killed.

    Raises:
        PerpoError: What a process raised, or that one was killed.
        Terminated: This process was sent SIGTERM.
    """
    places = [{"CUDA_VISIBLE_DEVICES": device} for device in gpus()] or [{}] * jobs
    with ended_together(_PATIENCE_S) as running:
        workers = [_JobProcess(work, threads_each(jobs) | place, running) for place in places[: min(jobs, len(names))]]
        _share(workers[:1], [list(names)])
        _share(workers, names)


def _share(workers: Sequence[_JobProcess], tasks: Sequence[str | list[str]]) -> None:
    todo = deque(tasks)
    while True:
        for worker in workers:
            if worker.task is None and todo:
                worker.give(todo.popleft())
        busy = {worker.pipe: worker for worker in workers if worker.task is not None}
        if not busy:
            return
        for pipe in wait(list(busy)):
            busy[pipe].hear()  # type: ignore[index]  # it is one of them


class _JobProcess:
    """A process, and what it is doing: an experiment, or what these experiments share."""

    def __init__(self, work: SharedWork, environment: dict[str, str], running: list[subprocess.Popen[bytes]]) -> None:
        self.pipe, other = Pipe()
        # The path of this process, and not the folder that it is in. No spawn, which would run the user's own script
        # again where that calls this without a guard.
        words = [sys.executable, "-P", "-m", "perpo_eval.recipes.worker", str(other.fileno())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
        heard = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for this process, which ends the others
        try:
            self._process = subprocess.Popen(
                words, env=environment, pass_fds=[other.fileno()], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
        finally:
            signal.signal(signal.SIGINT, heard)
        running.append(self._process)
        other.close()
        self.task: str | list[str] | None = None
        with suppress(OSError):  # it has died, which is heard next
            self.pipe.send(work)

    def give(self, task: str | list[str]) -> None:
        """Let it begin with a task."""
        self.task = task
        with suppress(OSError):
            self.pipe.send(task)

    def hear(self) -> None:
        """Take note that the task is done.

        Raises:
            PerpoError: The process was killed.
            Exception: What the task raised.
        """
        name = self.task if isinstance(self.task, str) else "the data"
        try:
            error = self.pipe.recv()
        except (EOFError, OSError):
            how = ending(self._process.wait())
            raise PerpoError(
                f"the process that did {name} has ended early ({how})",
                "the same command continues; if memory ran out, give fewer --jobs",
                exit_code=3,
            ) from None
        self.task = None
        if error is not None:
            say(f"{name} failed, so all are ended; what they have done is kept")
            raise error
