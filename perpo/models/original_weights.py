"""The weights of LLaVA's own checkpoints, by the names that they have there and in transformers' models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor
from transformers import AutoConfig

from perpo.models.original import hugging_face_config
from perpo.models.original_files import TOWER_KEY, holds_tower, read_file, tower_folder, weight_files

_TABLE = (
    (f"{TOWER_KEY}vision_tower.vision_model.", "model.vision_tower."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.image_newline", "model.image_newline"),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.layers.", "model.language_model.layers."),
    ("model.norm.", "model.language_model.norm."),
    ("lm_head.", "lm_head."),
)
"""What names begin with in LLaVA's files, and in memory."""

_BUFFERS = re.compile(r"rotary_emb\.inv_freq$|embeddings\.position_ids$")
_TOWER_ONLY = re.compile(r"(text_model\.|visual_projection\.|text_projection\.|logit_|.*embeddings\.position_ids$)")
_CLASSES = {
    "llava": "LlavaForConditionalGeneration",
    "llava_next": "LlavaNextForConditionalGeneration",
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
}


def in_memory(name: str) -> str | None:
    """Return the name that a weight of LLaVA's files has in memory; None where the table has none."""
    return next((ours + name[len(theirs) :] for theirs, ours in _TABLE if name.startswith(theirs)), None)


def in_files(name: str) -> str:
    """Return the name that a weight in memory has in LLaVA's files.

    Raises:
        KeyError: It has none there.
    """
    for theirs, ours in _TABLE:
        if name.startswith(ours):
            return theirs + name[len(ours) :]
    raise KeyError(name)


def read_config(directory: str | Path) -> Any:
    """Return the configuration of transformers' model for an original checkpoint.

    Raises:
        PerpoError: It cannot be read.
    """
    return AutoConfig.for_model(**hugging_face_config(directory))


def read_weights(directory: str | Path, config: Any) -> dict[str, Tensor]:
    """Return an original checkpoint's weights by their names in memory, with those of its vision tower.

    Args:
        directory: The checkpoint.
        config: What `read_config` gave.

    Raises:
        PerpoError: Some cannot be read.
    """
    weights: dict[str, Tensor] = {}
    for path in weight_files(directory):
        for name, tensor in read_file(path).items():
            if not _BUFFERS.search(name):
                weights[in_memory(name) or name] = tensor
    if not holds_tower(directory):
        weights |= _tower(tower_folder(directory))
    # SigLIP's last layer and its pooling head are taken off by LLaVA's code.
    last = f"model.vision_tower.encoder.layers.{config.vision_config.num_hidden_layers}."
    off = (last, "model.vision_tower.head.") if config.vision_config.model_type == "siglip_vision_model" else ()
    if config.model_type == "llava":
        off = (*off, "model.image_newline")  # LLaVA's code does not read it there
    return {name: tensor for name, tensor in weights.items() if not (off and name.startswith(off))}


def _tower(folder: Path) -> dict[str, Tensor]:
    """A tower's own weights; those of the text beside it are left out."""
    tower = {}
    for path in weight_files(folder):
        for name, tensor in read_file(path).items():
            if not _TOWER_ONLY.match(name):
                tower["model.vision_tower." + name.removeprefix("vision_model.")] = tensor
    return tower


def load_original(directory: Path, config: Any, **how: Any) -> tuple[Any, Any]:
    """Return transformers' model with an original checkpoint's weights, and its report of what had no place.

    Args:
        directory: The checkpoint.
        config: What `read_config` gave.
        how: What `from_pretrained` takes besides.

    Raises:
        PerpoError: The weights cannot be read, or are not those of the configuration.
    """
    weights = read_weights(directory, config)
    # By its own class: one that is chosen by `model_type` could be another.
    kind: Any = getattr(transformers, _CLASSES[config.model_type])
    how |= {"state_dict": weights, "output_loading_info": True, "ignore_mismatched_sizes": True}  # the report has them
    model, report = kind.from_pretrained(None, config=config, **how)
    if (directory / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(directory)
    return model, report


def original_weights(model: Any, *, tower: bool) -> Iterator[tuple[str, Tensor]]:
    """Yield a model's weights by the names of LLaVA's files.

    Args:
        model: Transformers' model.
        tower: Whether its vision tower is among them.
    """
    tied = bool(model.config.tie_word_embeddings)
    for name, tensor in model.state_dict().items():
        if (tied and name == "lm_head.weight") or (not tower and name.startswith("model.vision_tower.")):
            continue
        yield in_files(name), tensor
