"""Callbacks beside the optimizer steps: the log, whole checkpoints, the bar, and a stop at the first NaN."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from transformers import TrainerCallback

from perpo.common.files import disk_error, disk_errors
from perpo.common.progress import progress
from perpo.errors import PerpoError
from perpo.records.training_record import LOG_NAME, log_line, write_log, write_record
from perpo.train.resuming import rotate, seal

_GO_ON = "then run the same command with --resume_from_checkpoint last; earlier checkpoints are intact"
_SHOWN = 10


class Log(TrainerCallback):
    """Keeps training.json and log.jsonl in a run's directory.

    Args:
        output: The directory.
        record: The record; what others add to it is written with it.
    """

    def __init__(self, output: Path, record: dict[str, Any]) -> None:
        self.output = output
        self.record = record

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Drop what a run that was cut off logged after its last checkpoint, since it comes again."""
        if state.is_world_process_zero:
            write_log(self.output, state.log_history)
            write_record(self.output, self.record)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            path = self.output / LOG_NAME
            with disk_errors(path), open(path, "a", encoding="utf-8") as file:
                file.write(log_line(state.log_history[-1]))


class Checkpoints(TrainerCallback):
    """Seals each checkpoint when all processes have written their files, and only then deletes older ones.

    Args:
        output: The run's directory.
        limit: How many to keep; None keeps all.
        add: Writes what else belongs into the checkpoint.
    """

    def __init__(self, output: Path, limit: int | None, add: Callable[[Path], None]) -> None:
        self.output = output
        self.limit = limit
        self.add = add

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            checkpoint = self.output / f"checkpoint-{state.global_step}"
            self.add(checkpoint)
            seal(checkpoint)
            rotate(self.output, self.limit)


class NotFinite(ArithmeticError):
    """A loss or a gradient is NaN or infinite.

    Args:
        what: Which of the two.
        step: The optimizer step that did not happen.
        numbers: Of the records that it came from.
    """

    def __init__(self, what: str, step: int, numbers: Sequence[int]) -> None:
        super().__init__(what)
        self.what = what
        self.step = step
        self.numbers = list(numbers)


class FiniteGuard(TrainerCallback):
    """Stops a run before it learns from a loss or a gradient that is NaN or infinite.

    DeepSpeed steps within backward, so there the losses alone are looked at in time.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._step = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._numbers.clear()
        self._step = state.global_step + 1

    def check_losses(self, losses: Tensor, numbers: Sequence[int]) -> None:
        """Look at the (B,) losses of a batch's lists before they are propagated back.

        Raises:
            NotFinite: Some are not finite; names their records alone.
        """
        finite = losses.detach().isfinite()
        if not finite.all():
            raise NotFinite(
                "loss", self._step, [n for n, good in zip(numbers, finite.tolist(), strict=True) if not good]
            )
        self._numbers += numbers

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        if gradients and not torch.nn.utils.get_total_norm(gradients).isfinite():
            raise NotFinite("gradient", self._step, self._numbers)


class EachEpochsOrder(TrainerCallback):
    """Tells the order of the lists its epoch.

    Of several processes that go on in the middle of an epoch, accelerate tells none: they would take the first epoch's.

    Args:
        order: The sampler.
    """

    def __init__(self, order: Any) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.order.set_epoch(int(state.epoch or 0))


class ProgressBar(TrainerCallback):
    """Shows the optimizer steps; closed with the stack that it is given."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.advance = self.stack.enter_context(progress(state.max_steps, "training", state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.advance(1)


@contextmanager
def plain_errors(output: Path, image_ids: Mapping[int, str | int]) -> Iterator[None]:
    """Within it a full disk, and a loss that is not finite, become sentences with exit code 3.

    Args:
        output: The run's directory.
        image_ids: The image of each record number.

    Raises:
        NotWritten: The disk does not take what a library writes.
    """
    hook = threading.excepthook  # TensorBoard writes in a thread; its next write says it again in ours
    threading.excepthook = lambda what: None if disk_error(what.exc_value, output) else hook(what)
    try:
        yield
    except NotFinite as error:
        named = error.numbers[:_SHOWN]
        names = ", ".join(f"record {number} (image_id {image_ids[number]})" for number in named)
        if len(error.numbers) > _SHOWN:
            names += f" and {len(error.numbers) - _SHOWN} more"
        raise PerpoError(
            f"the {error.what} of {names} is not finite in step {error.step}; the model was not updated in this step",
            f"check these records and --learning_rate, {_GO_ON}",
            exit_code=3,
        ) from error
    except PerpoError:
        raise
    except Exception as error:
        not_written = disk_error(error, output)
        if not_written is None:
            raise
        raise not_written from error
    finally:
        threading.excepthook = hook
