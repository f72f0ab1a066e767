"""Several processes of one program on one machine or many, as torchrun and accelerate launch number them. No torch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import IO

from perpo.errors import Terminated

_LOOK_EVERY_S = 0.05
_PATIENCE_S = 20.0
"""After it was asked to end, a process has so long before it is killed."""


class Processes:
    """This process among those of its run."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size == 1:
            return
        import torch.distributed as dist

        if not dist.is_initialized():
            # The fastest may have to wait long for the slowest; one that dies ends all through the launcher.
            dist.init_process_group("gloo", timeout=timedelta(days=7))
        dist.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let the first process do something before the others do: the first writes files that the others find."""
        if self.rank:
            self.wait()
        yield
        if not self.rank:
            self.wait()

    def device(self, asked: str | None) -> str | None:
        """Return the device of this process: of several each takes a GPU of its own, unless one is named."""
        if asked is not None or "LOCAL_RANK" not in os.environ:
            return asked
        import torch

        return f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else None


def launch(module: str, words: Sequence[str], size: int) -> int:
    """Run a program in several processes of this machine, and end all of them where one fails.

    Only the first one is heard; of another one that fails first, what it said is repeated.

    Args:
        module: The program's module, such as "perpo.cli.sample".
        words: Its command line.
        size: How many processes.

    Returns:
        The exit code: that of the process that failed first, else 0.

    Raises:
        Terminated: This process was sent SIGTERM; all of them have ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // size)))
    running: list[subprocess.Popen[bytes]] = []
    said: list[IO[bytes]] = []
    before = signal.signal(signal.SIGTERM, _terminated)  # else they would go on without this process
    try:
        for rank in range(size):
            said.append(tempfile.TemporaryFile())  # noqa: SIM115  (closed below)
            out, err = (subprocess.DEVNULL, said[rank]) if rank else (None, None)
            numbered = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-m", module, *words]
            running.append(subprocess.Popen(command, env=numbered, stdout=out, stderr=err))
        return _first_failure(running, said)
    finally:
        _end(running)
        signal.signal(signal.SIGTERM, before)
        for file in said:
            file.close()


def _terminated(number: int, frame: object) -> None:
    raise Terminated


def _first_failure(running: Sequence[subprocess.Popen[bytes]], said: Sequence[IO[bytes]]) -> int:
    while True:
        codes = [process.poll() for process in running]
        for rank, code in enumerate(codes):
            if code:
                if rank:
                    said[rank].seek(0)
                    sys.stderr.write(said[rank].read().decode("utf-8", "replace").rpartition("\r")[2])
                return code if code > 0 else 128 - code
        if None not in codes:
            return 0
        time.sleep(_LOOK_EVERY_S)


def _end(running: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.terminate()
    until = time.monotonic() + _PATIENCE_S
    for process in running:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_first_process() -> bool:
    """Return whether this process is the one of those that torchrun started that speaks for all."""
    return os.environ.get("RANK", "0") == "0"
