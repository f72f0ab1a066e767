"""One sequence for all candidates of a list: they share the image and the prompt.

    columns    | padding, prefix | candidate 1 | candidate 2 | ... | padding
    segment    |   -1      0     |      1      |      2      |     |   -1
    position   |    0   0..p-1   | p, p+1, ... | p, p+1, ... |     |    0

A token sees those before it in the prefix and in its own candidate, so that each candidate is read as
if it stood alone behind the prefix. The last token of the prefix predicts the first token of *every*
candidate. Prefixes are padded on the left and candidates on the right: the answers of all rows then
begin in the same column, and the head runs on that part alone. Padding sees only itself, because a row
of the mask without any entry has no softmax.

`perpo.logps` gives this to a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor

TokenIds = Sequence[int]

# Added to the attention scores that must not count. Float16, bfloat16 and float32 all hold it, and no
# softmax in them gives such a score any weight. The mask is additive because eager attention would
# *add* a boolean one, as 0 and 1.
_HIDDEN = torch.finfo(torch.float16).min


class Packed(TypedDict):
    """Token ids of B lists; P is the longest prefix, C the most tokens that a list's candidates have.

    Attributes:
        prefix_ids: (B, P) prompts with their image placeholders, padded on the left.
        prefix_mask: (B, P) bool, False on padding.
        answer_ids: (B, C) the candidates, one behind the other, padded on the right.
        candidate: (B, C) which candidate a token belongs to, from 1 on; -1 on padding.
        offset: (B, C) its place in that candidate, from 0 on; -1 on padding.
    """

    prefix_ids: Tensor
    prefix_mask: Tensor
    answer_ids: Tensor
    candidate: Tensor
    offset: Tensor


def pack(prefixes: Sequence[TokenIds], candidates: Sequence[Sequence[TokenIds]], pad_id: int) -> Packed:
    """Lay out lists whose prefixes, numbers of candidates and candidates may all differ in length.

    Args:
        prefixes: Token ids of each list's image placeholders and prompt.
        candidates: Token ids of each list's candidates; each holds at least one token.
        pad_id: What stands in the padding.
    """
    width = max(map(len, prefixes))
    flat = [[token for answer in answers for token in answer] for answers in candidates]
    owner = [[k for k, answer in enumerate(answers, 1) for _ in answer] for answers in candidates]
    offset = [[place for answer in answers for place in range(len(answer))] for answers in candidates]
    return {
        "prefix_ids": torch.tensor([[pad_id] * (width - len(ids)) + list(ids) for ids in prefixes]),
        "prefix_mask": torch.tensor([[False] * (width - len(ids)) + [True] * len(ids) for ids in prefixes]),
        "answer_ids": _padded_right(flat, pad_id),
        "candidate": _padded_right(owner, -1),
        "offset": _padded_right(offset, -1),
    }


def attention_mask(segments: Tensor, dtype: torch.dtype, *, queries: int | None = None) -> Tensor:
    """The additive mask (B, 1, Q, T) for segments (B, T): 0 is the prefix, 1 to N candidates, -1 padding.

    Args:
        segments: What each token belongs to.
        dtype: The attention scores' type.
        queries: Q, where only the last tokens ask and the keys of all others are cached; by default all ask.
    """
    first = 0 if queries is None else segments.shape[1] - queries
    query, key = segments[:, first:].unsqueeze(2), segments.unsqueeze(1)
    visible = (key == query) | ((key == 0) & (query > 0))
    visible &= torch.ones_like(visible[0]).tril(first)
    return torch.zeros(visible.shape, dtype=dtype, device=segments.device).masked_fill(~visible, _HIDDEN).unsqueeze(1)


def packed_inputs(packed: Packed, images: Sequence[Mapping[str, Tensor]], dtype: torch.dtype) -> dict[str, Any]:
    """What a model's forward takes for packed lists.

    Args:
        packed: What `pack` gave.
        images: For each list what the processor made of its image, such as pixel_values (1, ...).
        dtype: The attention scores' type.
    """
    prefix_mask, offset = packed["prefix_mask"], packed["offset"]
    segments = torch.cat([prefix_mask.long() - 1, packed["candidate"]], dim=1)
    start = prefix_mask.sum(1, keepdim=True)
    positions = torch.cat([prefix_mask.cumsum(1) - 1, torch.where(offset < 0, -1, start + offset)], dim=1)
    return {
        "input_ids": torch.cat([packed["prefix_ids"], packed["answer_ids"]], dim=1),
        "attention_mask": attention_mask(segments, dtype),
        "position_ids": positions.clamp(min=0),
        **join_images(images),
    }


def join_images(images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One batch of what the processor made of single images."""
    return {name: torch.cat([image[name] for image in images]) for name in images[0]}


def _padded_right(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
