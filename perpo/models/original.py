"""LLaVA's own checkpoint directories (haotian-liu/LLaVA, LLaVA-NeXT), told in Hugging Face's words. Needs no torch.

`model_type` says nothing: their config.json often has "llava", which is also a type of transformers, whose defaults
would then stand in for a 7B. They are known by their architecture and by `mm_vision_tower`.
"""

from __future__ import annotations

import json
import os
import re
from ast import literal_eval
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from perpo.errors import PerpoError
from perpo.models.hub import download

TOWER_VARIABLE = "PERPO_VISION_TOWER"

_CONVERT_HINT = (
    "use its Hugging Face conversion (llava-hf/llava-1.5-7b-hf for LLaVA-1.5 7B), or convert it with "
    "src/transformers/models/llava/convert_llava_weights_to_hf.py of the transformers repository"
)
TOWER_HINT = (
    "give --vision_tower to perpo-train, or name the tower's folder or hub id in the environment variable "
    f"{TOWER_VARIABLE}"
)
_KINDS = {"LlavaLlamaForCausalLM": "llama", "LlavaMistralForCausalLM": "mistral", "LlavaQwenForCausalLM": "qwen2"}
_NEEDED = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"),
    *("max_position_embeddings", "rms_norm_eps", "mm_hidden_size", "mm_vision_select_layer"),
)
_TEXT = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("vocab_size", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "hidden_act"),
    *("attention_bias", "attention_dropout", "initializer_range", "sliding_window", "use_sliding_window"),
    *("max_window_layers", "head_dim", "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"),
)
_VISION = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size"),
    *("hidden_act", "layer_norm_eps", "num_channels", "attention_dropout", "projection_dim"),
)
_VISION_NEEDED = _VISION[:6]
_CLIP_LARGE = {
    **{"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24},
    **{"num_attention_heads": 16, "patch_size": 14, "projection_dim": 768},
}
_TOWERS: dict[str, dict[str, Any]] = {
    "clip-vit-large-patch14-336": {**_CLIP_LARGE, "image_size": 336},
    "clip-vit-large-patch14": {**_CLIP_LARGE, "image_size": 224},
    "siglip-so400m-patch14-384": {
        **{"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304},
        **{"num_hidden_layers": 27, "num_attention_heads": 16, "patch_size": 14, "image_size": 384},
    },
}
"""Towers by the last part of their names, as their own config.json files describe them."""


def is_original(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json is that of LLaVA's own code."""
    names = (config.get("model_type"), *(config.get("architectures") or ()))
    return "mm_vision_tower" in config or any(
        re.fullmatch(r"llava_(llama|mistral|qwen)|Llava\w*ForCausalLM", str(name)) for name in names
    )


def is_original_at(directory: str | Path) -> bool:
    """Return whether a directory holds a checkpoint of LLaVA's own code."""
    path = Path(directory, "config.json")
    return path.is_file() and is_original(json.loads(path.read_text()))


def use_vision_tower(name: str) -> None:
    """Read the vision tower of original checkpoints that lack theirs from here, in this process and those it starts.

    Args:
        name: A directory or a hub id.
    """
    os.environ[TOWER_VARIABLE] = name


def check_original(directory: str | Path, config: Mapping[str, Any]) -> None:
    """Refuse an original checkpoint that would not be read as LLaVA's code reads it.

    Raises:
        PerpoError: It would not.
    """
    if (said := _refusal(config)) is not None:
        raise PerpoError(f"{directory} is an original LLaVA checkpoint that cannot be read: {said}", _CONVERT_HINT)


def with_hugging_face_type(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json with the `model_type` of the Hugging Face layout; an original one that is not read has none.

    No other file of the checkpoint is needed.
    """
    if not is_original(config):
        return dict(config)
    return {**config, "model_type": _kind(config) if _refusal(config) is None else ""}


def _kind(config: Mapping[str, Any]) -> str:
    return {"pad": "llava", "anyres": "llava_next"}.get(config["image_aspect_ratio"], "llava_onevision")


def _refusal(config: Mapping[str, Any]) -> str | None:
    architecture = next(iter(config.get("architectures") or ()), None)
    if architecture not in _KINDS:
        return f"its config.json has the architecture {architecture}, and known are {', '.join(_KINDS)}"
    if "mm_vision_tower" not in config:
        return "its config.json names no mm_vision_tower"
    if absent := [name for name in _NEEDED if config.get(name) is None]:
        return f"its config.json lacks {absent[0]}"
    for name, usual in (
        ("mm_projector_type", "mlp2x_gelu"),
        ("mm_use_im_start_end", False),
        ("mm_resampler_type", None),
        ("s2", False),
        ("use_s2", False),
    ):
        value = config.get(name, "linear" if name == "mm_projector_type" else usual)
        if value != usual and (value or usual):
            return f"{name} is {value}, and only {usual} is read"
    if re.search(r"[-_]s2$", str(config["mm_vision_tower"])):
        return f"its vision tower {config['mm_vision_tower']} looks at several scales"
    if config.get("mm_vision_select_feature", "patch") not in ("patch", "cls_patch"):
        return f"mm_vision_select_feature is {config['mm_vision_select_feature']}"
    return _refused_pictures(config)


def _refused_pictures(config: Mapping[str, Any]) -> str | None:
    """What is not known of how it reads pictures: a square, or a grid of tiles without their padding."""
    ratio = config.get("image_aspect_ratio")
    merge = config.get("mm_patch_merge_type") or "flat"
    if ratio == "pad":
        return None if merge == "flat" else f"image_aspect_ratio is pad, and mm_patch_merge_type {merge}"
    if ratio == "anyres" or re.fullmatch(r"anyres_max_[1-9]\d*", str(ratio)):
        if merge != "spatial_unpad":
            return f"image_aspect_ratio is {ratio}, and mm_patch_merge_type is {merge}, not spatial_unpad"
        return None if config.get("image_grid_pinpoints") else "its config.json lacks image_grid_pinpoints"
    return f"image_aspect_ratio is {ratio}, and known are pad, anyres and anyres_max_<number>"


def hugging_face_config(directory: str | Path) -> dict[str, Any]:
    """Return the config.json that the Hugging Face layout has for an original checkpoint.

    The image token has the id behind the vocabulary's rows; that of the tokenizer is put in where it is known.

    Raises:
        PerpoError: It, or its vision tower, cannot be read.
    """
    config = read_original(directory)
    vision = vision_config(directory)
    siglip, ratio = vision["model_type"] == "siglip_vision_model", config["image_aspect_ratio"]
    kind = _kind(config)
    text = {name: config[name] for name in _TEXT if config.get(name) is not None}
    text |= {"model_type": _KINDS[config["architectures"][0]], "rope_theta": config.get("rope_theta", 10000.0)}
    if "sliding_window" in config:
        text["sliding_window"] = config["sliding_window"]  # null is none, and its absence is the class's default
    text.setdefault("num_key_value_heads", config["num_attention_heads"])
    side = vision["image_size"]
    whole = siglip or config.get("mm_vision_select_feature", "patch") == "cls_patch"
    more: dict[str, Any] = {}
    if kind != "llava":
        more["image_grid_pinpoints"] = _grids(config["image_grid_pinpoints"], side)
    if kind == "llava_onevision":
        more["vision_aspect_ratio"] = ratio
    return {
        "model_type": kind,
        "text_config": text,
        "vision_config": vision,
        # LLaVA's code takes the last layer off a SigLIP tower, and reads what is then the last one.
        "vision_feature_layer": -1 if siglip else config["mm_vision_select_layer"],
        "vision_feature_select_strategy": "full" if whole else "default",
        "projector_hidden_act": "gelu",
        "image_token_index": config["vocab_size"],
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        **({} if kind == "llava_onevision" else {"image_seq_length": (side // vision["patch_size"]) ** 2}),
        **more,
    }


def read_original(directory: str | Path) -> dict[str, Any]:
    """Return an original checkpoint's own config.json.

    Raises:
        PerpoError: It is none that is read.
    """
    config: dict[str, Any] = json.loads(Path(directory, "config.json").read_text())
    check_original(directory, config)
    return config


def _grids(pinpoints: Any, side: int) -> list[list[int]]:
    """The grids of tiles, in pixels, as (height, width): LLaVA's code has them the other way round."""
    if isinstance(pinpoints, str):
        tiles = [(int(x), int(y)) for x, y in re.findall(r"\((\d+)x(\d+)\)", pinpoints)]
        if tiles:
            (x0, y0), (x1, y1) = tiles[0], tiles[-1]
            pinpoints = [(x * side, y * side) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)]
        else:
            pinpoints = literal_eval(pinpoints)
    grids = [[int(height), int(width)] for width, height in pinpoints]
    if any(length % side for grid in grids for length in grid):
        raise PerpoError(
            f"image_grid_pinpoints are not whole tiles of the vision tower's {side} pixels", "check its config.json"
        )
    return grids


def vision_config(directory: str | Path) -> dict[str, Any]:
    """Return the settings of an original checkpoint's vision tower, as far as its features are read.

    Raises:
        PerpoError: They cannot be had, or are those of another tower.
    """
    config = json.loads(Path(directory, "config.json").read_text())
    name = tower_name(directory)
    if not Path(name, "config.json").is_file() and Path(name).name in _TOWERS:
        vision = dict(_TOWERS[Path(name).name])
    else:
        path = fetched_tower(name, ("*.json",)) / "config.json"
        if not path.is_file():
            raise PerpoError(f"the vision tower {name} has no config.json", TOWER_HINT)
        whole = json.loads(path.read_text())
        part = whole.get("vision_config") or whole
        kind = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
        model_type = kind.get(whole.get("model_type"), whole.get("model_type"))
        if model_type not in kind.values():
            raise PerpoError(f"the vision tower {name} is of the type {model_type}, not CLIP or SigLIP", TOWER_HINT)
        if absent := [key for key in _VISION_NEEDED if part.get(key) is None]:
            raise PerpoError(f"the config.json of the vision tower {name} lacks {absent[0]}", TOWER_HINT)
        vision = {"model_type": model_type} | {key: part[key] for key in _VISION if part.get(key) is not None}
    if vision["hidden_size"] != config["mm_hidden_size"]:
        raise PerpoError(
            f"{directory} was trained on a vision tower of width {config['mm_hidden_size']}, and {name} has "
            f"{vision['hidden_size']}",
            TOWER_HINT,
        )
    if vision["model_type"] == "siglip_vision_model":
        vision |= {"num_hidden_layers": vision["num_hidden_layers"] - 1, "vision_use_head": False}
    return vision


def tower_name(directory: str | Path) -> str:
    """Return the vision tower that an original checkpoint is read with: a directory or a hub id.

    The one that the user names goes before that of its config.json.
    """
    said = json.loads(Path(directory, "config.json").read_text())["mm_vision_tower"]
    within = Path(directory, said)
    return os.environ.get(TOWER_VARIABLE) or (str(within) if within.is_dir() else said)


@lru_cache(maxsize=16)
def fetched_tower(name: str, patterns: tuple[str, ...]) -> Path:
    """Return the folder of a vision tower, a directory or a hub id; of the latter, what matches the patterns.

    Raises:
        PerpoError: It cannot be found.
    """
    if Path(name).is_dir():
        return Path(name)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise PerpoError(f"there is no folder of the vision tower {name}", TOWER_HINT)
    try:
        return download(name, patterns)
    except PerpoError as error:
        raise PerpoError(
            f"the vision tower of this checkpoint: {error}", TOWER_HINT, exit_code=error.exit_code
        ) from error
