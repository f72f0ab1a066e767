"""A cache of keys and values that has room for more: a new token is written into it, and the others are not copied."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 1.5
"""Where the room is used up, so many times the tokens get room; all are copied then."""


class GrowingLayer(DynamicLayer):
    """The keys and values of one layer, in larger tensors of which those in use are a view.

    transformers' own layer makes new tensors at each step, so that n tokens are copied n times. Here n tokens are
    copied some log n times. What `keys` and `values` hold is the same.
    """

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """See `DynamicLayer`."""
        super().lazy_initialization(key_states, value_states)
        self._whole: list[Tensor] = [key_states[..., :0, :], value_states[..., :0, :]]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write new keys and values (B, heads, Q, width) behind those that are there; return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if after > self._whole[0].shape[-2]:
            # The first fill is the prompt: what follows it gets room when it comes.
            room = after if before == 0 else int(after * _ROOM)
            self._whole = [
                _with_room(new, held, room) for new, held in zip((key_states, value_states), self._held(), strict=True)
            ]
        for whole, new in zip(self._whole, (key_states, value_states), strict=True):
            whole[..., before:after, :] = new
        self.keys, self.values = (whole[..., :after, :] for whole in self._whole)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows of the batch, with their room."""
        after = self.get_seq_length()
        self._whole = [whole[indices] for whole in self._whole]
        self.keys, self.values = (whole[..., :after, :] for whole in self._whole)

    def _held(self) -> tuple[Tensor, Tensor]:
        length = self.get_seq_length()
        return self._whole[0][..., :length, :], self._whole[1][..., :length, :]


def _with_room(new: Tensor, held: Tensor, room: int) -> Tensor:
    whole = new.new_empty(*new.shape[:-2], room, new.shape[-1])
    whole[..., : held.shape[-2], :] = held
    return whole


def growing_cache() -> DynamicCache:
    """Return an empty cache whose layers have room for more."""
    cache = DynamicCache()
    cache.layer_class_to_replicate = GrowingLayer
    return cache
