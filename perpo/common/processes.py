"""Several processes of one program on one machine or many, as torchrun and accelerate launch number them. No torch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
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
    shared |= threads_each(size)
    with ExitStack() as stack:
        said: list[IO[bytes]] = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(size)]
        running = stack.enter_context(ended_together())
        for rank in range(size):
            out, err = (subprocess.DEVNULL, said[rank]) if rank else (None, None)
            numbered = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-m", module, *words]
            running.append(subprocess.Popen(command, env=numbered, stdout=out, stderr=err))
        return _first_failure(running, said)


@contextmanager
def ended_together(patience_s: float = _PATIENCE_S) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Give a list for processes that this one starts: all in it end with the block, or when this one is sent SIGTERM.

    A process that is killed ends no other by this: see `end_with_parent`.

    Args:
        patience_s: Seconds from SIGTERM, which they are sent, to SIGKILL.

    Raises:
        Terminated: This process was sent SIGTERM; all of them have ended.
    """
    running: list[subprocess.Popen[bytes]] = []
    before = signal.signal(signal.SIGTERM, terminated)  # else they would go on without this process
    try:
        yield running
    finally:
        _end(running, patience_s)
        signal.signal(signal.SIGTERM, before)


def terminated(number: int, frame: object) -> None:
    """Raise `Terminated`, as the handler of SIGTERM: what a process has started ends in an orderly way then."""
    raise Terminated


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, even if that was killed.

    This process's stdin must be a pipe from it, into which nothing is written.
    """

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_each(size: int) -> dict[str, str]:
    """Return what tells each of several processes its share of the cores; what the user has set stays."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // size))}


def ending(exit_code: int | None) -> str:
    """Return how a process ended, in words."""
    if exit_code is not None and exit_code < 0:
        with suppress(ValueError):
            return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"


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


def _end(running: Sequence[subprocess.Popen[bytes]], patience_s: float) -> None:
    for process in running:
        process.terminate()
    until = time.monotonic() + patience_s
    for process in running:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_first_process() -> bool:
    """Return whether this process is the one of those that torchrun started that speaks for all."""
    return os.environ.get("RANK", "0") == "0"
