"""SIGTERM, which schedulers send some time before they kill: a training saves a checkpoint and ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback

from perpo.errors import Terminated
from perpo.train.distributed import summed


class Termination(TrainerCallback):
    """Ends a training that is sent SIGTERM: before its first step at once, later with a checkpoint after the step.

    If any process is sent it, all end together. Comes after the callback that seals checkpoints.
    """

    def __init__(self) -> None:
        self.asked = False
        self._steps = False
        self._ends = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Within it the signal is waited for, if this is the main thread, which alone may do so.

        Raises:
            Terminated: It came, and what is done is saved.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

    def _hear(self, *_: Any) -> None:
        self.asked = True
        if not self._steps:
            raise Terminated

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._steps = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if summed(torch.tensor(float(self.asked), device=args.device)) > 0:
            control.should_save = control.should_training_stop = self._ends = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._ends:
            raise Terminated


def let_parent_decide(start: Callable[[int], None], worker: int) -> None:
    """Start a process that loads data, and let it live on if the whole group is sent SIGTERM.

    The training, which needs it to the end of its step, stops it then.

    Args:
        start: What else starts it.
        worker: Its number.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    start(worker)
