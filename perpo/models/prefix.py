"""One sequence for all candidates of a list: they share the image and the prompt.

    columns    | padding, prefix | candidate 1 | candidate 2 | ... | padding
    segment    |   -1      0     |      1      |      2      |     |   -1
    position   |    0   0..p-1   | p, p+1, ... | p, p+1, ... |     |    0

A token sees those before it in the prefix and in its own candidate, so that each candidate is read as
if it stood alone behind the prefix. The last token of the prefix predicts the first token of *every*
candidate. Prefixes are padded on the left and candidates on the right: the answers of all rows then
begin in the same column, and the head runs on that part alone. Padding sees only itself, because a row
of the mask without any entry has no softmax.

`perpo.models.logps` gives this to a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor
from torch.nn import functional

from perpo.errors import PerpoError
from perpo.models.attention import sparse_mask
from perpo.models.families import FAMILIES

TokenIds = Sequence[int]

# What a processor gives for each token of a prompt; all else is the image's.
PER_TOKEN = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})

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


def unpack(packed: Packed) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Return the prefixes and candidates that `pack` laid out."""
    prefixes = [ids[mask].tolist() for ids, mask in zip(packed["prefix_ids"], packed["prefix_mask"], strict=True)]
    candidates = [
        [ids[owner == k].tolist() for k in range(1, int(owner.max()) + 1)]
        for ids, owner in zip(packed["answer_ids"], packed["candidate"], strict=True)
    ]
    return prefixes, candidates


def attention_mask(
    segments: Tensor, dtype: torch.dtype, *, queries: int | None = None, both_ways: bool = False
) -> Tensor:
    """Return the additive mask (B, 1, Q, T) for segments (B, T): 0 is the prefix, 1 to N candidates, -1 padding.

    Args:
        segments: What each token belongs to.
        dtype: The attention scores' type.
        queries: Q, where only the last tokens ask and the keys of all others are cached; by default all ask.
        both_ways: Whether a token of the prefix sees those behind it in the prefix, too.
    """
    first = 0 if queries is None else segments.shape[1] - queries
    query, key = segments[:, first:].unsqueeze(2), segments.unsqueeze(1)
    visible = (key == query) | ((key == 0) & (query > 0))
    earlier = torch.ones_like(visible[0]).tril(first)
    visible &= (earlier | ((key == 0) & (query == 0))) if both_ways else earlier
    return torch.zeros(visible.shape, dtype=dtype, device=segments.device).masked_fill(~visible, _HIDDEN).unsqueeze(1)


def packed_inputs(model: Any, packed: Packed, images: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
    """Return what a model's forward takes for packed lists.

    Args:
        model: The model, wrapped or not; its family says how positions and attention run in a prefix.
        packed: What `pack` gave.
        images: For each list what the processor made of its image, such as pixel_values (1, ...).
    """
    base = base_model(model)
    joined = join_images(images)
    prefix_mask, offset = packed["prefix_mask"], packed["offset"]
    segments = torch.cat([prefix_mask.long() - 1, packed["candidate"]], dim=1)
    positions, start = prefix_positions(base, packed["prefix_ids"], prefix_mask, joined)
    answers = torch.where(offset < 0, 0, start + offset)
    both_ways = _rule(base) == "both_ways"
    mask = None if both_ways else sparse_mask(base, segments)
    return {
        "input_ids": torch.cat([packed["prefix_ids"], packed["answer_ids"]], dim=1),
        "attention_mask": attention_mask(segments, base.dtype, both_ways=both_ways) if mask is None else mask,
        "position_ids": torch.cat([positions, answers.expand(*positions.shape[:-1], -1)], dim=-1),
        **joined,
    }


def prefix_positions(
    base: Any, prefix_ids: Tensor, prefix_mask: Tensor, joined: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the positions of left-padded prefixes, and where answers go on.

    Args:
        base: The model without wrappers.
        prefix_ids: (B, P).
        prefix_mask: (B, P), 0 on padding.
        joined: What the processor made of all images.

    Returns:
        Positions (B, P), or (3, B, P) of a model that places its images in three dimensions; and (B, 1).
    """
    if _rule(base) == "mrope":
        positions, deltas = base.model.get_rope_index(
            prefix_ids,
            mm_token_type_ids=image_tokens(base, prefix_ids),
            image_grid_thw=joined["image_grid_thw"],
            attention_mask=prefix_mask,
        )
        return positions, prefix_mask.sum(1, keepdim=True) + deltas
    first = _first_position(base)
    return (prefix_mask.cumsum(1) - 1).clamp(min=0) + first, prefix_mask.sum(1, keepdim=True) + first


def plain_inputs(base: Any, ids: Tensor, mask: Tensor, is_answer: Tensor) -> dict[str, Tensor]:
    """Return what forward takes beside the images for sequences (B, T) of one prefix and one answer each.

    Here the model's own code makes masks and, in three dimensions, positions.

    Args:
        base: The model without wrappers.
        ids: (B, T).
        mask: (B, T), 0 on padding.
        is_answer: (B, T) bool.
    """
    inputs = {"input_ids": ids, "attention_mask": mask}
    if _rule(base) == "mrope":
        return inputs | {"mm_token_type_ids": image_tokens(base, ids)}
    if _rule(base) == "both_ways":
        inputs["token_type_ids"] = is_answer.long()
    return inputs | {"position_ids": (mask.cumsum(1) - 1).clamp(min=0) + _first_position(base)}


def longest_shared(base: Any) -> int | None:
    """Up to how many tokens of a prefix and one answer together may a prefix be shared; None if of any number.

    A layer that looks back through a window sees a whole sequence that is no longer than the window. A mask of ours
    would reach layers with and without a window alike, so what is longer is not shared; nor is anything by a
    model with layers of another kind.
    """
    if is_recurrent(base):
        return 0
    text = base.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    if kinds - {"full_attention", "sliding_attention"}:
        return 0
    windowed = "sliding_attention" in kinds if kinds else True
    return getattr(text, "sliding_window", None) if windowed else None


def is_recurrent(base: Any) -> bool:
    """Return whether layers of a model carry a state, so that its candidates have to be rows of their own."""
    family = FAMILIES.get(base.config.model_type)
    return family is not None and family.recurrent


def check_shared(base: Any, tokens: int) -> None:
    """Refuse what cannot be read as a shared prefix where there is no other way.

    Raises:
        PerpoError: The model's attention allows no shared prefix, or none so long.
    """
    longest = longest_shared(base)
    if longest is not None and tokens > longest:
        raise PerpoError(
            f"{tokens} tokens of a prompt and its answer are more than {longest}, up to which candidates can share "
            "a prompt with this model's attention",
            "leave that question out, or give a smaller --max_new_tokens",
        )


def base_model(model: Any) -> Any:
    """Return the Hugging Face model inside of DDP, DeepSpeed or PEFT."""
    model = extract_model_from_parallel(model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def image_tokens(base: Any, ids: Tensor) -> Tensor:
    """1 where a token stands for a part of an image, else 0; what processors call mm_token_type_ids."""
    return (ids == base.config.image_token_id).int()


def _rule(base: Any) -> str:
    family = FAMILIES.get(base.config.model_type)
    return "causal" if family is None else family.prefix


def _first_position(base: Any) -> int:
    return 1 if _rule(base) == "both_ways" else 0


def join_images(images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return one batch of what the processor made of single images; fewer tiles than another image has are filled up
    with 0.

    The models count tiles by the images' sizes, or pass over those that are 0 throughout.
    """
    joined = {}
    for name in images[0]:
        parts = [image[name] for image in images]
        largest = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
        joined[name] = torch.cat([_filled_up(part, largest) for part in parts])
    return joined


def _filled_up(part: Tensor, shape: Sequence[int]) -> Tensor:
    margins = [margin for size, now in zip(shape, part.shape[1:], strict=True) for margin in (size - now, 0)]
    return functional.pad(part, margins[::-1]) if any(margins) else part


def _padded_right(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
