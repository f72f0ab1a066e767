"""Model types that are not in the table of families: what can be found out, and what has to be refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perpo.errors import PerpoError
from perpo.models.families import FAMILIES, Family
from perpo.models.logps import candidate_logps
from perpo.models.prefix import PER_TOKEN, longest_shared, pack

_EXPERTS = "its experts are no linear layers that LoRA adapts, and no test reads a shared prefix with it"
REFUSED = {
    "gemma3": "the tokens of a picture see each other both ways between texts that are read forwards, which no shared "
    "prefix of ours does",
    "molmo2": "its authors tell of points, not of boxes, and the tokens of a picture see each other both ways",
    "minicpmv4_6": "its slices of a picture, behind Qwen3.5's recurrent layers, are not tested here",
    "qwen3_vl_moe": _EXPERTS,
    "qwen3_5_moe": _EXPERTS,
    "glm4v_moe": _EXPERTS,
}
"""Model types that transformers knows, and why they are not taken; docs/families.md has them too."""

_HINT = f"these are known: {', '.join(FAMILIES)}"


def unlisted_family(model: Any) -> Family:
    """Return a row for a model type that the table lacks; what its boxes mean and what its projector is stay
    unknown.
    """
    names = {module: name for name, module in model.named_modules()}
    text, vision = model.get_decoder(), model.get_encoder(modality="image")
    linear = sorted({name.rpartition(".")[2] for name, part in text.named_modules() if isinstance(part, nn.Linear)})
    return Family(
        model.config.model_type,
        "",
        vision_tower=names[vision].removeprefix("model."),
        projector=None,
        boxes=None,
        language_model=names[text].removeprefix("model."),
        linear_layers=f"({'|'.join(linear)})",
    )


def check_not_refused(model_type: str) -> None:
    """Refuse a model type of which it is known that it cannot be taken, before its weights are read.

    Raises:
        PerpoError: It is one.
    """
    if model_type in REFUSED:
        raise PerpoError(f"the model type '{model_type}' is not supported: {REFUSED[model_type]}", _HINT)


def check_unlisted(model: Any, family: Family, encode: Callable[[], Sequence[Mapping[str, Tensor]]]) -> None:
    """See that a model of unknown type reads a shared prefix as its own forward reads single sequences.

    Args:
        model: The model.
        family: Its row, as far as that could be found out.
        encode: Gives what the processor makes of each of several prompts with an image.

    Raises:
        PerpoError: It does not, or its inputs say that it would not.
    """
    unlike = f"the model type '{model.config.model_type}' is not in the table of families, and "
    if not (family.language_model and family.vision_tower):
        raise PerpoError(f"{unlike}its language model and image encoder do not have the usual names", _HINT)
    try:
        each = encode()
    except Exception as error:  # whatever a processor raises that takes other things
        raise PerpoError(f"{unlike}its processor gives nothing: {type(error).__name__}: {error}", _HINT) from error
    if extra := sorted(set(each[0]) & PER_TOKEN - {"input_ids", "attention_mask"}):
        raise PerpoError(f"{unlike}its processor gives {extra[0]}, so not all tokens are read in the same way", _HINT)
    if longest_shared(model) is not None:
        raise PerpoError(f"{unlike}its attention is not causal over the whole sequence", _HINT)
    prefixes = [inputs["input_ids"][0].tolist() for inputs in each]
    images = [{name: value for name, value in inputs.items() if name not in PER_TOKEN} for inputs in each]
    words = [token for token in prefixes[0] if token != model.config.image_token_id]
    candidates = [[words[:3], words[-1:], words[1:6]]] * len(each)
    try:
        shared_logps, expected = _both_ways(model, prefixes, candidates, images)
    except Exception as error:  # whatever a model raises that is built in another way
        raise PerpoError(f"{unlike}it cannot read a shared prefix: {type(error).__name__}: {error}", _HINT) from error
    absolute, relative = (1e-3, 1e-3) if model.dtype == torch.float32 else (0.1, 0.02)
    if not torch.allclose(shared_logps, expected, atol=absolute, rtol=relative):
        raise PerpoError(f"{unlike}its answers after a shared prefix are not those of its own forward pass", _HINT)


@torch.no_grad()
def _both_ways(
    model: Any,
    prefixes: Sequence[list[int]],
    candidates: Sequence[Sequence[list[int]]],
    images: Sequence[Mapping[str, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Log-probabilities behind shared prefixes, and one by one from a forward that is given nothing but tokens."""
    device = model.device
    images = [{name: value.to(device) for name, value in image.items()} for image in images]
    packed: Any = pack(prefixes, candidates, 0)
    packed = {name: value.to(device) for name, value in packed.items()}
    shared_logps = candidate_logps(model, packed, images, candidates=len(candidates[0]))
    expected = torch.zeros_like(shared_logps)
    for row, (prefix, image) in enumerate(zip(prefixes, images, strict=True)):
        for place, answer in enumerate(candidates[row]):
            ids = torch.tensor([[*prefix, *answer]], device=device)
            logits = model(input_ids=ids, **image).logits[0, len(prefix) - 1 : -1].float()
            expected[row, place] = logits.log_softmax(-1)[range(len(answer)), answer].sum()
    return shared_logps, expected
