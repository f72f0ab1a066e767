"""Batches that fit the memory: one that does not is halved, and so are all that follow."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from perpo.errors import PerpoError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class BatchLimit:
    """A limit on how many questions are run at once.

    Attributes:
        size: At most so many; halved where memory runs out, and never raised again.
    """

    size: int

    def run(
        self, batch: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]]
    ) -> Iterator[tuple[Sequence[Item], Sequence[Result]]]:
        """Work on a batch, in parts where memory does not suffice for the whole.

        Args:
            batch: What is to be done.
            work: Gives a result for each item of a part.

        Yields:
            Each part with its results, in order.

        Raises:
            PerpoError: The memory does not suffice for one item (exit code 3).
        """
        parts = deque(batch[start : start + self.size] for start in range(0, len(batch), self.size))
        while parts:
            part = parts.popleft()
            try:
                results = work(part)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                parts.extendleft(reversed(self._halves(part, error)))
                continue
            yield part, results

    def _halves(self, part: Sequence[Item], error: Exception) -> list[Sequence[Item]]:
        if len(part) == 1:
            raise PerpoError(
                "there is not enough memory even for one question",
                "use a smaller --dtype, a smaller --max_new_tokens, or a larger device",
                exit_code=3,
            ) from error
        half = len(part) // 2
        size = min(self.size, len(part) - half)
        if size < self.size:
            print(f"note: memory ran out; from now on at most {size} questions are answered at once", file=sys.stderr)
        self.size = size
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return [part[:half], part[half:]]


def out_of_memory(error: Exception) -> bool:
    """Return whether an error says that a device or the machine has no memory left."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in said for words in ("out of memory", "not enough memory", "can't allocate", "alloc_failed")
    )
