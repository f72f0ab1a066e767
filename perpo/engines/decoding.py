"""Sample N answers to each question from one prefill: the image and the prompt are run once.

The N branches of a question are N tokens of one row at every step. Their keys and values are
appended to the row's one cache, and an additive 4-D mask lets a branch see the prefix and its own
tokens only, so nothing is ever copied N times.

Layers that carry a state (`perpo.models.families.Family.recurrent`) know no masks. What the prefix left is copied N
times there, and every branch is a row of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from perpo.engines.growing_cache import growing_cache
from perpo.engines.stopping import Loops, is_looked_at
from perpo.models.prefix import attention_mask, base_model, check_shared, is_recurrent, prefix_positions

# Stands for a branch where a row has fewer live ones than another.
_NOBODY = -2


@dataclass(frozen=True)
class SampledAnswer:
    """One sampled answer.

    Attributes:
        token_ids: Its tokens, the end token included where it was reached.
        logp: Sum of the tokens' log-probabilities under the model itself: temperature 1, no top-p.
        truncated: Whether it was cut, so that there is no end token: by the token limit, or as it looped.
    """

    token_ids: list[int]
    logp: float
    truncated: bool


@dataclass(frozen=True)
class _Drawn:
    """What B rows of N branches have drawn so far: tokens (B, N, T), and their number and summed logp, both (B, N)."""

    tokens: Tensor
    lengths: Tensor
    logps: Tensor

    @classmethod
    def none(cls, rows: int, branches: int, steps: int, device: torch.device) -> _Drawn:
        tokens = torch.zeros(rows, branches, steps, dtype=torch.long, device=device)
        return cls(tokens, torch.zeros_like(tokens[..., 0]), torch.zeros_like(tokens[..., 0], dtype=torch.float64))

    def add(self, row: Tensor, branch: Tensor, step: int, chosen: Tensor, logp: Tensor) -> None:
        """Take down a token of each of these branches."""
        self.tokens[row, branch, step] = chosen
        self.lengths[row, branch] = step + 1
        self.logps[row, branch] += logp

    def looping(self, row: Tensor, branch: Tensor, live: Tensor, loops: Loops) -> Tensor:
        """Return which of these branches loop, where they are live."""
        looping = torch.zeros_like(live)
        lengths = self.lengths[row, branch]
        for place in live.nonzero().tolist():
            at = tuple(place)
            looping[at] = loops(self.tokens[row.expand_as(branch)[at], branch[at], : int(lengths[at])].tolist())
        return looping

    def candidates(self, ends: set[int]) -> list[list[SampledAnswer]]:
        """Cut each branch's tokens to its length; a branch without an end token was truncated."""
        rows = zip(self.tokens.tolist(), self.lengths.tolist(), self.logps.tolist(), strict=True)
        return [
            [
                SampledAnswer(ids[:size], logp, ids[size - 1] not in ends)
                for ids, size, logp in zip(*of_row, strict=True)
            ]
            for of_row in rows
        ]


def question_uniforms(seed: int, question: int, branches: int, steps: int) -> np.ndarray:
    """Return the random numbers of one question, from its own counter-based stream.

    They depend on no other question and not on the number of branches, so that batch size, resuming
    and the number of candidates change no answer.

    Args:
        seed: The run's seed, from 0 to 2^64 - 1.
        question: Index of the question in its file.
        branches: Number of candidates.
        steps: Most tokens of an answer.

    Returns:
        (branches, steps) float64 in [0, 1).
    """
    key = np.array([seed, question], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random((branches, steps))


@torch.inference_mode()
def sample_candidates(
    model: Any,
    inputs: Mapping[str, Tensor],
    uniforms: Tensor,
    *,
    temperature: float,
    top_p: float,
    end_ids: Collection[int],
    loops: Loops | None = None,
) -> list[list[SampledAnswer]]:
    """Sample answers to a batch of questions, one prefill per question.

    Args:
        model: A Hugging Face image-text-to-text model (or its PeftModel) in eval mode, with eager or SDPA attention.
        inputs: What the processor gives for B left-padded prompts: input_ids, attention_mask (B, P), pixel_values.
        uniforms: (B, N, T) in [0, 1): branch n of row b draws its token t with `uniforms[b, n, t]`;
            T is the token limit.
        temperature: Divides the logits; 0 takes the most probable token.
        top_p: Only the fewest tokens whose probabilities reach this are drawn from; 1 is all.
        end_ids: Tokens that end an answer.
        loops: Stops a branch whose tokens loop; None lets all run on. The tokens until then are the same.

    Returns:
        For each row its N candidates, in the order of the branches.
    """
    rows, branches, steps = uniforms.shape
    device = inputs["input_ids"].device
    uniforms = uniforms.to(device)
    ends = torch.tensor(sorted(end_ids), dtype=torch.long, device=device)
    alone = is_recurrent(base_model(model))
    cache: Any = DynamicCache(config=base_model(model).config) if alone else growing_cache()
    logits, next_position, axes = _prefill(model, inputs, cache, steps)
    drawn = _Drawn.none(rows, branches, steps, device)
    # Of the rows in work: their number, each key's segment (branch n's is n + 1, as in perpo.models.prefix), each
    # query's branch.
    row = torch.arange(rows, device=device)[:, None]
    segments = inputs["attention_mask"].bool().long() - 1
    branch = torch.arange(branches, device=device).expand(rows, -1)
    if alone:
        branch = branch.reshape(-1, 1)
        cache.reorder_cache(row.repeat_interleave(branches))
        row, segments, next_position, logits = (
            each.repeat_interleave(branches, 0) for each in (row, segments, next_position, logits)
        )
    logits = logits.expand(-1, branch.shape[1], -1)
    for step in range(steps):
        chosen, logp = _choose(logits, uniforms[row, branch.clamp(min=0), step], temperature, top_p)
        live = branch >= 0
        drawn.add(row.expand_as(branch)[live], branch[live], step, chosen[live], logp[live])
        live &= ~torch.isin(chosen, ends)
        if step + 1 < steps and loops is not None and is_looked_at(step + 1):
            live &= ~drawn.looping(row, branch, live, loops)
        if step + 1 == steps or not live.any():
            break
        # A row whose branches have all ended leaves the batch; within a row the live ones move to the front.
        keep = live.any(1)
        if not keep.all():
            (cache.reorder_cache if alone else cache.batch_select_indices)(keep.nonzero()[:, 0])
            row, segments, next_position = row[keep], segments[keep], next_position[keep]
            branch, chosen, live = branch[keep], chosen[keep], live[keep]
        order = live.long().argsort(dim=1, descending=True, stable=True)[:, : int(live.sum(1).max())]
        branch = torch.where(live, branch, _NOBODY).gather(1, order)
        segments = torch.cat([segments, branch + 1], 1)
        logits = model(
            input_ids=chosen.gather(1, order),
            attention_mask=(segments >= 0).long()
            if alone
            else attention_mask(segments, logits.dtype, queries=branch.shape[1]),
            position_ids=(next_position + step).expand(*axes, *branch.shape),
            past_key_values=cache,
            use_cache=True,
        ).logits
    return drawn.candidates(set(end_ids))


def _prefill(
    model: Any, inputs: Mapping[str, Tensor], cache: DynamicCache, steps: int
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Run the prompts into the cache.

    Returns:
        The logits of the next token (B, 1, V), its position, and the axes that positions have before those of rows
        and tokens.
    """
    base = base_model(model)
    if not is_recurrent(base):
        check_shared(base, inputs["attention_mask"].shape[1] + steps)
    # A left-padded prompt counts from its first real token, as generate() does.
    positions, next_position = prefix_positions(base, inputs["input_ids"], inputs["attention_mask"], inputs)
    prefill = {**inputs, "position_ids": positions, "past_key_values": cache, "logits_to_keep": 1}
    return model(**prefill, use_cache=True).logits, next_position, tuple(positions.shape[:-2])


def _choose(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Draw a token of each query by inverting the cumulated distribution.

    Args:
        logits: (R, W, V).
        uniforms: (R, W) in [0, 1).
        temperature: As in `sample_candidates`.
        top_p: As in `sample_candidates`.

    Returns:
        The tokens and their log-probabilities at temperature 1 without top-p, both (R, W).
    """
    logits = logits.float()
    if temperature == 0:
        chosen = logits.argmax(-1)
    else:
        probabilities = (logits / temperature).softmax(-1)
        if top_p < 1:
            probabilities = _nucleus(probabilities, top_p)
        # float64, and below the total: rounding must not step over the last token that has a probability.
        cumulated = probabilities.cumsum(-1, dtype=torch.float64)
        total = cumulated[..., -1:]
        target = (uniforms[..., None] * total).minimum(total.nextafter(torch.zeros_like(total)))
        chosen = torch.searchsorted(cumulated, target, right=True)[..., 0]
    return chosen, logits.log_softmax(-1).gather(-1, chosen[..., None])[..., 0]


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Set to 0 all but the fewest most probable tokens whose sum reaches `top_p` (Holtzman et al. 2020)."""
    ordered, index = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(probabilities).scatter(-1, index, ordered.masked_fill(before >= top_p, 0.0))
