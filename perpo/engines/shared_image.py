"""Greedy answers to many questions about few images, each image read once.

What stands before the question (system text, image tokens) is the same for every question about an
image. It is run once per image, its keys and values are repeated for the image's questions, and
`generate` continues from there. Where a model does not read it alike before every question, or counts
positions in another way, `generate` is given everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import StoppingCriteriaList

from perpo.engines.growing_cache import growing_cache
from perpo.engines.stopping import StopLoops, loops_of
from perpo.errors import PerpoError
from perpo.models.loaded import LoadedModel
from perpo.models.prefix import base_model, longest_shared


@torch.inference_mode()
def answer(
    loaded: LoadedModel,
    prompts: Sequence[str],
    images: Sequence[Image.Image],
    image_of: Sequence[int],
    settings: Mapping[str, Any],
) -> list[list[int]]:
    """Answer one batch of prompts.

    Args:
        loaded: A model whose processor pads on the left.
        prompts: B rendered prompts with one image placeholder each; prompts about one image share
            everything before the question.
        images: The U different images.
        image_of: (B,) the number of each prompt's image; every image is used.
        settings: For `generate`: max_new_tokens, and do_sample False. With stop_on_repetition True an answer ends where
            it loops.

    Returns:
        The generated tokens of each prompt, its end token included where it was reached. They are the same with and
        without `stop_on_repetition` up to where an answer is stopped.

    Raises:
        PerpoError: A prompt that does not fit the model's context together with its answer.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    if not _heads_are_alike(loaded):
        inputs = _encoded(loaded, prompts, [images[number] for number in image_of], settings["max_new_tokens"])
        return _generated(loaded, settings, **inputs)
    heads = _heads(loaded, prompts, images, image_of)
    tails = _tails(loaded, prompts)
    repeat = torch.tensor(image_of, device=model.device)
    ids, mask = _joined(heads["input_ids"][repeat], heads["attention_mask"][repeat], tails, tokenizer.pad_token_id)
    lengths = mask.sum(1)
    _check_context(loaded, prompts, lengths, settings["max_new_tokens"])
    cache = growing_cache()
    positions = (heads["attention_mask"].cumsum(1) - 1).clamp(min=0)
    model(**heads, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_select_indices(repeat)
    behind = {"input_ids": ids, "attention_mask": mask}
    return _generated(loaded, settings, past_key_values=cache, **behind)


def _generated(loaded: LoadedModel, settings: Mapping[str, Any], **inputs: Any) -> list[list[int]]:
    """The tokens of each row behind its prompt, up to its end or to where it was stopped."""
    start = inputs["input_ids"].shape[1]
    own = {name: value for name, value in settings.items() if name != "stop_on_repetition"}
    stop = StopLoops(loops_of(loaded), start, loaded.end_ids) if settings.get("stop_on_repetition") else None
    stopping = {} if stop is None else {"stopping_criteria": StoppingCriteriaList([stop])}
    out = loaded.model.generate(**inputs, **own, **stopping)
    stopped = {} if stop is None else stop.lengths
    rows = enumerate(out[:, start:].tolist())
    return [_until_end(ids[: stopped.get(row)], loaded.end_ids) for row, ids in rows]


def _heads_are_alike(loaded: LoadedModel) -> bool:
    """Whether what stands before a question is read in one way and takes as many positions as tokens."""
    listed = bool(loaded.family.example)
    return listed and loaded.family.prefix == "causal" and longest_shared(base_model(loaded.model)) is None


def _encoded(
    loaded: LoadedModel, prompts: Sequence[str], images: Sequence[Image.Image], longest_answer: int
) -> Mapping[str, Tensor]:
    inputs = loaded.encode(prompts, images).to(loaded.model.device, loaded.model.dtype)
    _check_context(loaded, prompts, inputs["attention_mask"].sum(1), longest_answer)
    return inputs


def _check_context(loaded: LoadedModel, prompts: Sequence[str], lengths: Tensor, longest_answer: int) -> None:
    longest = int(lengths.max())
    room = loaded.context_length - longest
    if longest_answer > room:
        smaller = f"give --max_new_tokens {room} or less, " if room > 0 else ""
        raise PerpoError(
            f"a prompt of {longest} tokens and an answer of up to {longest_answer} tokens exceed the model's "
            f"context of {loaded.context_length} tokens. The prompt ends with "
            f"{prompts[int(lengths.argmax())][-60:]!r}",
            f"{smaller}leave that row out, or use a model with a longer context; nothing is cut without saying so",
        )


def _heads(
    loaded: LoadedModel, prompts: Sequence[str], images: Sequence[Image.Image], image_of: Sequence[int]
) -> Mapping[str, Tensor]:
    """The processor's inputs for the prompts up to their image, one row per image."""
    placeholder = loaded.processor.image_token
    firsts = [prompts[image_of.index(number)] for number in range(len(images))]
    texts = [prompt[: prompt.index(placeholder) + len(placeholder)] for prompt in firsts]
    inputs = loaded.encode(texts, images)
    return inputs.to(loaded.model.device, loaded.model.dtype)


def _tails(loaded: LoadedModel, prompts: Sequence[str]) -> list[list[int]]:
    """The tokens behind each prompt's image placeholder, which is one token of its own."""
    image = loaded.tokenizer.convert_tokens_to_ids(loaded.processor.image_token)
    return [ids[ids.index(image) + 1 :] for ids in loaded.token_ids(prompts)]


def _joined(heads: Tensor, seen: Tensor, tails: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """[padding][head][padding][tail] with its mask: the cached heads stay in columns of their own."""
    rows, start = heads.shape
    end = start + max(map(len, tails))
    ids = heads.new_full((rows, end), pad)
    mask = seen.new_zeros((rows, end))
    ids[:, :start], mask[:, :start] = heads, seen
    for row, tail in enumerate(tails):
        ids[row, end - len(tail) :] = ids.new_tensor(tail)
        mask[row, end - len(tail) :] = 1
    return ids, mask


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    place = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return ids[: place + 1]
