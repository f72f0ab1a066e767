"""Attention within shared prefixes that computes no more than its mask shows.

A dense mask over a prefix and N long answers hides most of what it costs: every candidate from all others,
and what comes later from what came before. Here a model's text layers get a function of our own, which

- on a GPU runs FlexAttention with a block mask, that skips the blocks of others' candidates and of padding;
- on the CPU splits a list in three: the prefix with itself, the answers with the prefix, and each candidate with
  itself. They are joined by their softmax's normalisers, and so is the gradient;
- leaves every other pass, such as the plain one, to SDPA as it was.

It serves prefixes that are plainly causal. Others, and lists so short that three calls cost more than the mask,
keep the dense mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "perpo_prefix"

# Entries of a list's mask that have to be hidden before three calls in its place pay, as benchmarks/attention.py
# finds it. Their share says less: causality alone hides as many as are visible, even in the shortest list.
_LEAST_HIDDEN = 200_000

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def set_attention(base: Any) -> None:
    """Let a model's text layers use this module's attention in place of SDPA.

    Layers that drop scores out keep SDPA, and those that SDPA does not serve (as it cannot cap scores) keep theirs.
    """
    drops = any(getattr(module, "attention_dropout", 0.0) for module in base.modules())
    if base.config.get_text_config()._attn_implementation == "sdpa" and not drops:
        base.set_attn_implementation({"text_config": NAME})


def attention_of(base: Any) -> str:
    """Return how a model attends within shared prefixes: flex, split (or dense where that is faster), or dense."""
    if base.config.get_text_config()._attn_implementation != NAME or base.device.type not in ("cuda", "cpu"):
        return "dense"
    return "flex" if base.device.type == "cuda" else "split"


def sparse_mask(base: Any, segments: Tensor) -> Tensor | BlockMask | None:
    """Return what the model takes for a mask in place of a dense one, or None where that is to be used.

    Args:
        base: The model without wrappers; its prefixes are causal.
        segments: (B, T) what each token belongs to: 0 is the prefix, 1 to N candidates, -1 padding.
    """
    way = attention_of(base)
    if way == "flex":
        return block_mask(segments)
    return segments[:, None, None] if way == "split" and splitting_pays(segments) else None


def splitting_pays(segments: Tensor) -> bool:
    """Return whether so much of the dense mask of segments (B, T) is hidden that to leave it out is worth more
    calls.
    """
    visible = 0.0
    for row in segments:
        _, prefix, counts = _parts(row)
        visible += prefix**2 / 2 + sum(prefix * count + count**2 / 2 for count in counts)
    return segments.shape[1] ** 2 - visible / len(segments) > _LEAST_HIDDEN


def block_mask(segments: Tensor) -> BlockMask:
    """FlexAttention's form of `perpo.models.prefix.attention_mask`, for segments (B, T); padding sees itself."""

    def visible(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        asking, asked = segments[b, query], segments[b, key]
        return (query >= key) & ((asking >= 0) & ((asked == asking) | (asked == 0)) | (query == key))

    rows, length = segments.shape
    compiled = segments.device.type == "cuda"  # elsewhere it would take longer than it saves
    return create_block_mask(visible, rows, None, length, length, device=segments.device, _compile=compiled)


def attention_forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Compute attention as transformers calls it; the kind of mask says which way is taken.

    Args:
        module: The attention layer.
        query: (B, H, T, D).
        key: (B, H', T, D), where each serves H / H' heads.
        value: Like keys.
        attention_mask: What `sparse_mask` gave, or anything that SDPA takes.
        **kwargs: Such as scaling and dropout.
    """
    if isinstance(attention_mask, BlockMask):
        return flex_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if attention_mask is None or attention_mask.dtype != torch.long:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    groups = query.shape[1] // key.shape[1]
    query, key = query.to(value.dtype), key.to(value.dtype)  # autocast leaves them apart
    parts = (query, repeat_kv(key, groups), repeat_kv(value, groups))
    rows = [
        _Split.apply(*(part[b : b + 1] for part in parts), _layout(attention_mask[b, 0, 0]), kwargs.get("scaling"))
        for b in range(len(query))
    ]
    return torch.cat(rows).transpose(1, 2), None


AttentionInterface.register(NAME, attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)


def _parts(segments: Tensor) -> tuple[int, int, list[int]]:
    """Tokens (T,) of padding on the left, of the prefix, and of each candidate."""
    values, counts = torch.unique_consecutive(segments, return_counts=True)
    runs = list(zip(values.tolist(), counts.tolist(), strict=True))
    left = runs[0][1] if runs[0][0] < 0 else 0
    return left, sum(n for value, n in runs if value == 0), [n for value, n in runs if value > 0]


@dataclass(frozen=True)
class _ListLayout:
    """Where the parts of one list are.

    Attributes:
        prefix: Columns of the prefix.
        answers: Columns of all candidates.
        place: (N, C) for each candidate the places of its tokens among the answers.
        filled: (N, C) False where a candidate has no more tokens.
    """

    prefix: slice
    answers: slice
    place: Tensor
    filled: Tensor

    def apart(self, answers: Tensor) -> Tensor:
        """(1, H, A, ...) of all answers as (N, H, C, ...), 0 where a candidate has no more tokens."""
        rows = answers[0].transpose(0, 1)[self.place]
        missing = ~self.filled
        rows[missing] = 0
        return rows.transpose(1, 2)

    def together(self, candidates: Tensor) -> Tensor:
        """Return the way back of `apart`."""
        return candidates.transpose(1, 2)[self.filled].transpose(0, 1).unsqueeze(0)


def _layout(segments: Tensor) -> _ListLayout:
    left, prefix, counts = _parts(segments)
    start = left + prefix
    lengths = torch.tensor(counts)
    column = torch.arange(max(counts))
    filled = column < lengths.unsqueeze(1)
    place = ((lengths.cumsum(0) - lengths).unsqueeze(1) + column).masked_fill(~filled, 0)
    return _ListLayout(slice(left, start), slice(start, start + sum(counts)), place, filled)


class _Split(torch.autograd.Function):
    """Attention of one list (1, H, T, D) with torch's CPU kernel, which SDPA runs too but which also gives normalisers.

    The kernel's backward pass takes the attention's result and normaliser, and from those of *all* keys computes
    the exact gradient of its part of them.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: _ListLayout, scale: float | None
    ) -> Tensor:
        prefix, answers = layout.prefix, layout.answers
        result, norm = torch.zeros_like(query), query.new_zeros(query.shape[:3], dtype=torch.float32)
        of_prefix = [part[:, :, prefix] for part in (query, key, value)]
        result[:, :, prefix], norm[:, :, prefix] = _forward(*of_prefix, is_causal=True, scale=scale)
        asking = query[:, :, answers]
        shared, shared_norm = _forward(asking, *of_prefix[1:], scale=scale)
        own = [layout.apart(part[:, :, answers]) for part in (query, key, value)]
        own_result, own_norm = (layout.together(part) for part in _forward(*own, is_causal=True, scale=scale))
        whole = torch.logaddexp(shared_norm, own_norm)
        joined = shared * (shared_norm - whole).exp().unsqueeze(-1) + own_result * (own_norm - whole).exp().unsqueeze(
            -1
        )
        result[:, :, answers], norm[:, :, answers] = joined.to(result.dtype), whole
        ctx.save_for_backward(query, key, value, result, norm)
        ctx.layout, ctx.scale = layout, scale
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, result, norm = ctx.saved_tensors
        layout, scale = ctx.layout, ctx.scale
        prefix, answers = layout.prefix, layout.answers
        of_prefix = [part[:, :, prefix] for part in (grad, query, key, value, result, norm)]
        asking = [part[:, :, answers] for part in (grad, query, key, value, result, norm)]
        own = [layout.apart(part) for part in asking]
        grads = [torch.zeros_like(part) for part in (query, key, value)]
        for total, part in zip(grads, _backward(*of_prefix, 0.0, True, scale=scale), strict=True):
            total[:, :, prefix] = part
        for total, part in zip(grads, _backward(*own, 0.0, True, scale=scale), strict=True):
            total[:, :, answers] = layout.together(part)
        shared = [*asking[:2], *of_prefix[2:4], *asking[4:]]
        columns = (answers, prefix, prefix)
        for total, where, part in zip(grads, columns, _backward(*shared, 0.0, False, scale=scale), strict=True):
            total[:, :, where] += part
        return *grads, None, None
