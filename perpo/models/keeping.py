"""The weights of a base that several loads of one process share, within a block that somebody opens for it.

Whoever loads gets a model of its own, whose parameters lie on the same memory: adapters, flags, hooks and the way of
attention of one model never reach the next. Only who leaves the weights as they are may ask for them in this way.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

_SAMPLED = 1024
"""So many values of a parameter are looked at, evenly spread."""


class _Shelf:
    """One base at most, for two may not fit."""

    key: Hashable = None
    model: Any = None
    samples: Any = ()

    def clear(self) -> None:
        self.key, self.model, self.samples = None, None, ()


_shelves: list[_Shelf] = []
"""Those of the blocks that this process is within; the last one is used."""


@contextmanager
def keeping_base() -> Iterator[None]:
    """Within it the weights of the frozen base that was loaded last stay in memory, for whoever loads it again."""
    _shelves.append(_Shelf())
    try:
        yield
    finally:
        _shelves.pop()


def let_go() -> None:
    """Let go of a base that was kept, before something else needs the memory."""
    for shelf in _shelves:
        shelf.clear()


def kept_or_loaded(key: Hashable, load: Callable[[], Any], *, frozen: bool) -> Any:
    """Return a model that nobody else has; on the memory of the kept weights, if there are any of that key.

    Args:
        key: All that the model depends on.
        load: Loads it.
        frozen: Whether its weights will stay as they are. If not, they are its own, and nothing is kept.
    """
    if not frozen or not _shelves:
        let_go()
        return load()
    shelf = _shelves[-1]
    if shelf.key == key and not _is_unchanged(shelf.model, shelf.samples):
        print("warning: the weights that were kept have changed, so they are read again", file=sys.stderr)
        shelf.clear()
    if shelf.key != key:
        shelf.clear()
        model = load()
        try:
            again = _on_same_memory(model)
        except (RuntimeError, TypeError):  # it holds something that cannot be copied
            return model
        shelf.key, shelf.model, shelf.samples = key, model, _samples(model)
        return again
    return _on_same_memory(shelf.model)


def _on_same_memory(model: Any) -> Any:
    """A copy of a model that has everything for itself but the memory of its parameters."""
    from torch.nn import Parameter

    placed = {id(each): Parameter(each.data, requires_grad=each.requires_grad) for each in model.parameters()}
    return copy.deepcopy(model, placed)


def _samples(model: Any) -> list[Any]:
    """Some of each parameter's bits, by which a change of the weights would be noticed: an optimizer or an adapter that
    is merged changes matrices as a whole. All of them would take longer than reading the file again.
    """
    import torch

    of_size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

    def sample(values: Any) -> Any:
        taken = values.reshape(-1)[:: max(1, values.numel() // _SAMPLED)].clone()
        return taken.view(of_size[taken.element_size()])

    return [sample(each.data) for each in model.parameters()]


def _is_unchanged(model: Any, samples: list[Any]) -> bool:
    return all(now.equal(before) for now, before in zip(_samples(model), samples, strict=True))
