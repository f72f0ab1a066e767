"""Log-probabilities of candidates under a model.

The model's own top-level forward is called, so that wrappers (DDP, ZeRO, PEFT) stay in charge.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from perpo.models.prefix import (
    Packed,
    TokenIds,
    base_model,
    join_images,
    longest_shared,
    packed_inputs,
    plain_inputs,
    unpack,
)

# Positions whose logits are held at a time: enough to keep a GPU busy, and 0.3 GB in fp32 at 152,000 words.
_CHUNK = 512


def candidate_logps(model: Any, packed: Packed, images: Sequence[Mapping[str, Tensor]], *, candidates: int) -> Tensor:
    """Summed log-probabilities of each candidate's tokens, in one forward pass per batch.

    Neither this nor its backward pass ever holds the logits of more than a chunk of the answers' tokens.

    Args:
        model: A vision-language model, wrapped or not, with SDPA or eager attention.
        packed: What `pack` gave, on the model's device.
        images: For each list what the processor made of its image, such as pixel_values (1, ...).
        candidates: N, the most candidates of any list.

    Returns:
        (B, N) float32 nats; 0 where a list has fewer candidates.
    """
    longest = longest_shared(base_model(model))
    if longest is not None and packed["prefix_mask"].sum(1).max() + packed["offset"].max() + 1 > longest:
        _say_repeated(longest)
        logps = repeated_logps(model, *unpack(packed), images, pad_id=0)
        return functional.pad(logps, (0, candidates - logps.shape[1]))
    inputs = packed_inputs(model, packed, images)
    # from the prefix's last token on
    inputs |= {"logits_to_keep": packed["answer_ids"].shape[1] + 1, "use_cache": False}
    offset = packed["offset"]
    before = torch.where(offset == 0, 0, torch.arange(offset.shape[1], device=offset.device))
    if changes_logits(model):
        logps = _token_logps(model(**inputs).logits, before, packed["answer_ids"]).masked_fill(offset < 0, 0.0)
    else:
        with _head_gives_logps(model, before.masked_fill(offset < 0, -1), packed["answer_ids"]):
            logps = model(**inputs).logits
    sums = logps.new_zeros(len(logps), candidates + 1)
    return sums.scatter_add(1, packed["candidate"].clamp(min=0), logps)[:, 1:]


@functools.cache
def _say_repeated(longest: int) -> None:
    """Say once that this will be slow."""
    shared = f"candidates can share a prompt of up to {longest} tokens. For longer prompts, the prompt"
    told = f"with this model's attention, {shared}" if longest else "with layers that carry a state, the prompt"
    print(f"note: {told} is repeated for each candidate", file=sys.stderr)


def changes_logits(model: Any) -> bool:
    """Return whether the model caps the logits behind its head, as Gemma 2 does, so that all are needed at once."""
    return getattr(base_model(model).config.get_text_config(), "final_logit_softcapping", None) is not None


@contextmanager
def _head_gives_logps(model: Any, before: Tensor, answer_ids: Tensor) -> Iterator[None]:
    """Within it the model's head returns log-probabilities of the answers' tokens in place of logits.

    It is the head's own forward that is replaced, and the model's forward that calls it, so that everything which
    wraps or hooks into either (DDP, ZeRO, PEFT) sees an ordinary pass. Chunks are recomputed in the backward pass.

    Args:
        model: A model that hands out its head's result as it is.
        before: (B, C) for each token the place of the hidden state that predicts it; -1 for padding.
        answer_ids: (B, C) the tokens.
    """
    head = base_model(model).get_output_embeddings()
    held = vars(head).get("forward")  # by which others have replaced it before
    logits_of = head.forward
    row, place = (before >= 0).nonzero(as_tuple=True)

    def chunk_logps(hidden: Tensor, tokens: Tensor) -> Tensor:
        logits = logits_of(hidden).float()
        return logits.gather(1, tokens.unsqueeze(1)).squeeze(1) - logits.logsumexp(1)

    def logps(hidden: Tensor) -> Tensor:
        chunks = zip(hidden[row, before[row, place]].split(_CHUNK), answer_ids[row, place].split(_CHUNK), strict=True)
        logps_by_chunk = [checkpoint(chunk_logps, *chunk, use_reentrant=False) for chunk in chunks]
        result = logps_by_chunk[0].new_zeros(before.shape)
        return result.index_put((row, place), torch.cat(logps_by_chunk))

    head.forward = logps
    try:
        yield
    finally:
        del head.forward
        if held is not None:
            head.forward = held


def repeated_logps(
    model: Any,
    prefixes: Sequence[TokenIds],
    candidates: Sequence[Sequence[TokenIds]],
    images: Sequence[Mapping[str, Tensor]],
    *,
    pad_id: int,
    padding_side: Literal["left", "right"] = "left",
) -> Tensor:
    """Return what `candidate_logps` is measured against: prefix and image once more for every candidate.

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
        **plain_inputs(base_model(model), ids, mask, is_answer),
        logits_to_keep=columns - 1,
        use_cache=False,
        **join_images([images[b] for b, _ in rows]),
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
