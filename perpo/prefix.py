"""One sequence for all candidates of a list: they share the image and the prompt.

    columns    | padding, prefix | candidate 1 | candidate 2 | ... | padding
    segment    |   -1      0     |      1      |      2      |     |   -1
    position   |    0   0..p-1   | p, p+1, ... | p, p+1, ... |     |    0

A token sees those before it in the prefix and in its own candidate, so that each candidate is read as
if it stood alone behind the prefix. The last token of the prefix predicts the first token of *every*
candidate. Prefixes are padded on the left and candidates on the right: the answers of all rows then
begin in the same column, and the head runs on that part alone. Padding sees only itself, because a row
of the mask without any entry has no softmax.

The model's own top-level forward is called, so that wrappers (DDP, ZeRO, PEFT) stay in charge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

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


def candidate_logps(model: Any, packed: Packed, image_inputs: Mapping[str, Tensor], *, candidates: int) -> Tensor:
    """Summed log-probabilities of each candidate's tokens, in one forward pass per batch.

    Args:
        model: A vision-language model, wrapped or not, with SDPA or eager attention.
        packed: What `pack` gave, on the model's device.
        image_inputs: What else the processor made for the model, such as pixel_values (B, ...).
        candidates: N, the most candidates of any list.

    Returns:
        (B, N) float32 nats; 0 where a list has fewer candidates.
    """
    prefix_mask, answer_ids, offset = packed["prefix_mask"], packed["answer_ids"], packed["offset"]
    length = answer_ids.shape[1]
    segments = torch.cat([prefix_mask.long() - 1, packed["candidate"]], dim=1)
    start = prefix_mask.sum(1, keepdim=True)
    positions = torch.cat([prefix_mask.cumsum(1) - 1, torch.where(offset < 0, -1, start + offset)], dim=1)
    logits = model(
        input_ids=torch.cat([packed["prefix_ids"], answer_ids], dim=1),
        attention_mask=attention_mask(segments, next(model.parameters()).dtype),
        position_ids=positions.clamp(min=0),
        logits_to_keep=length + 1,  # from the prefix's last token on
        use_cache=False,
        **image_inputs,
    ).logits
    before = torch.where(offset == 0, 0, torch.arange(length, device=offset.device))
    logps = _token_logps(logits, before, answer_ids).masked_fill(offset < 0, 0.0)
    sums = logps.new_zeros(len(logps), candidates + 1)
    return sums.scatter_add(1, packed["candidate"].clamp(min=0), logps)[:, 1:]


def repeated_logps(
    model: Any,
    prefixes: Sequence[TokenIds],
    candidates: Sequence[Sequence[TokenIds]],
    image_inputs: Mapping[str, Tensor],
    *,
    pad_id: int,
    padding_side: Literal["left", "right"] = "left",
) -> Tensor:
    """What `candidate_logps` is measured against: prefix and image once more for every candidate.

    Arguments as in `pack` and `candidate_logps`; the result is the same (B, N).
    """
    rows = [(b, n) for b, answers in enumerate(candidates) for n in range(len(answers))]
    sequences = [[*prefixes[b], *candidates[b][n]] for b, n in rows]
    width = max(map(len, sequences))
    pads = [width - len(ids) if padding_side == "left" else 0 for ids in sequences]
    device = next(model.parameters()).device
    ids = torch.full((len(rows), width), pad_id, device=device)
    mask, is_answer = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, ((b, _), sequence, pad) in enumerate(zip(rows, sequences, pads, strict=True)):
        stop = pad + len(sequence)
        ids[row, pad:stop] = torch.tensor(sequence, device=device)
        mask[row, pad:stop] = 1
        is_answer[row, pad + len(prefixes[b]) : stop] = True
    columns = is_answer.any(0).nonzero().squeeze(1)
    list_of_row = torch.tensor([b for b, _ in rows], device=device)
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        logits_to_keep=columns - 1,
        use_cache=False,
        **{name: value[list_of_row] for name, value in image_inputs.items()},
    ).logits
    before = torch.arange(len(columns), device=device).expand(len(rows), -1)
    logps = _token_logps(logits, before, ids[:, columns]) * is_answer[:, columns]
    result = logps.new_zeros(len(prefixes), max(map(len, candidates)))
    return result.index_put((list_of_row, torch.tensor([n for _, n in rows], device=device)), logps.sum(1))


def _token_logps(logits: Tensor, place: Tensor, token: Tensor) -> Tensor:
    """Log-probability (B, C) of token[b, c] by the logits (B, K, V) at place[b, c]; no softmax is stored."""
    logits = logits.float()
    row = torch.arange(len(logits), device=logits.device).unsqueeze(1)
    return logits[row, place, token] - logits.logsumexp(-1)[row, place]


def _padded_right(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
