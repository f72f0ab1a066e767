"""Stop an answer that loops: the same rule for both ways in which a Hugging Face model is asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from perpo.models.loaded import LoadedModel
from perpo.texts.repetition import ends_in_loop

CHECKED_EVERY = 32
"""Tokens of an answer between two looks at it, which cost little then. The place of a stop depends on nothing else."""

Loops = Callable[[Sequence[int]], bool]
"""Whether what an answer's tokens say so far ends in a loop."""


def loops_of(loaded: LoadedModel) -> Loops:
    """Return the rule of `perpo.texts.repetition` for tokens of a model."""
    return lambda ids: ends_in_loop(loaded.answer_text(ids))


def is_looked_at(tokens: int) -> bool:
    """Return whether answers of so many tokens are looked at."""
    return tokens % CHECKED_EVERY == 0


class StopLoops(StoppingCriteria):
    """Ends the rows of `generate` that loop.

    Args:
        loops: What a loop is.
        start: Tokens of the prompts, padding included.
        ends: Tokens that end an answer.

    Attributes:
        lengths: Tokens of the answers that were stopped, by row.
    """

    def __init__(self, loops: Loops, start: int, ends: Collection[int]) -> None:
        self.lengths: dict[int, int] = {}
        self._loops, self._start, self._ends = loops, start, frozenset(ends)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Return which rows are done, as transformers asks at each step."""
        made = input_ids.shape[1] - self._start
        if is_looked_at(made):
            for row, ids in enumerate(input_ids[:, self._start :].tolist()):
                if row not in self.lengths and self._ends.isdisjoint(ids) and self._loops(ids):
                    self.lengths[row] = made
        done: Tensor = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        done[list(self.lengths)] = True
        return done
