"""perpo.engines.growing_cache holds what transformers' own cache holds, step by step."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from perpo.engines.growing_cache import GrowingLayer, growing_cache


@pytest.mark.parametrize("steps", [(7, 1, 1, 1, 1, 1, 1, 1), (5, 4, 4, 3, 2, 1), (1, 9, 30)])
def test_it_holds_what_the_plain_cache_holds(steps) -> None:
    torch.manual_seed(0)
    plain, growing = DynamicCache(), growing_cache()
    rows = 4
    for number, size in enumerate(steps):
        if number == 3:  # a row leaves
            kept = torch.tensor([0, 1, 3])
            for cache in (plain, growing):
                cache.batch_select_indices(kept)
            rows = 3
        for layer in range(2):
            new = [torch.randn(rows, 2, size, 3) for _ in range(2)]
            for one, other in zip(plain.update(*new, layer), growing.update(*new, layer), strict=True):
                torch.testing.assert_close(one, other, atol=0, rtol=0)
        assert plain.get_seq_length() == growing.get_seq_length()
        assert plain.get_mask_sizes(1, 0) == growing.get_mask_sizes(1, 0)
    assert {type(layer) for layer in growing.layers} == {GrowingLayer}


def test_tokens_are_seldom_copied() -> None:
    """Of 1,000 steps some tens make new tensors."""
    cache, places = growing_cache(), set()
    for _ in range(1000):
        keys, _ = cache.update(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), 0)
        places.add(keys.data_ptr())
    assert len(places) < 30
