"""Compare what the authors' flags say with the model and the run, before any weights are loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError
from perpo.models.checkpoints import resolve_model, small_files
from perpo.models.families import FAMILIES, Family
from perpo.models.hub import first_line, use_hub_cache
from perpo.models.original import is_original_at, read_original, use_vision_tower
from perpo.train.arguments import TrainArguments

# What a turn of the user and the answer begin with in the conversations that LLaVA's code names.
_VERSIONS = {
    **dict.fromkeys(("v1", "vicuna_v1", "llava_v1"), ("USER:", "ASSISTANT:")),
    **dict.fromkeys(("qwen_1_5", "qwen_2", "chatml_direct", "mpt"), ("<|im_start|>user", "<|im_start|>assistant")),
    **dict.fromkeys(("llama_2", "llava_llama_2", "mistral_instruct"), ("[INST]", "[/INST]")),
}
# Their projector is a linear layer, an activation and another linear layer.
_TWO_LAYERS = ("llava", "llava_next", "llava_onevision")


def check_seed_flags(args: TrainArguments, checks: Mapping[str, str]) -> None:
    """Refuse flags of the authors' command that contradict the model or the run.

    Args:
        args: The run's arguments.
        checks: Values by flag, as `perpo.train.authors.flags.translate` gives them.

    Raises:
        PerpoError: One of them does; or the model's small files cannot be read.
    """
    if args.cache_dir is not None:
        use_hub_cache(args.cache_dir)
    if "vision_tower" in checks and is_original_at(small_files(resolve_model(args.model))):
        use_vision_tower(checks["vision_tower"])
    model = _Model(args.model)
    for name, value in checks.items():
        if name in _RUN_CHECKS:
            said = _RUN_CHECKS[name](value, args)
            hint = "leave one of them out"
        else:
            said = _MODEL_CHECKS[name](value, model)
            hint = f"leave --{name} out, or give the model that it belongs to"
        if said is not None:
            raise PerpoError(f"--{name} {value} contradicts {said}", hint)


class _Model:
    """What is known of a model without its weights."""

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def folder(self) -> Path:
        return small_files(resolve_model(self.name))

    @cached_property
    def config(self) -> Any:
        return _config(self.folder, self.name)

    @cached_property
    def family(self) -> Family:
        kind = self.config.model_type
        return FAMILIES.get(kind) or Family(kind, "", vision_tower="", projector=None, boxes=None)

    @cached_property
    def processor(self) -> Any:
        from perpo.models.loading import read_processor

        try:
            return read_processor(self.folder)
        except PerpoError:
            raise
        except Exception as error:  # the library raises many kinds for damaged files
            raise PerpoError(
                f"the processor of {self.name} cannot be loaded: {first_line(error)}",
                "check that the download is complete",
            ) from error

    @cached_property
    def prompt(self) -> str:
        from perpo.models.loaded import LoadedModel, render_prompt

        return render_prompt(LoadedModel(None, self.processor, self.family, self.name, ""), "Where?")

    @property
    def aspect_ratio(self) -> str:
        """What becomes of pictures that are no squares, in the words of LLaVA's code."""
        if self.family.pads_images:
            return "pad"
        if getattr(self.config, "image_grid_pinpoints", None):
            return str(getattr(self.config, "vision_aspect_ratio", "anyres"))
        return "none of LLaVA's ways"


def _config(folder: Path, name: str) -> Any:
    from perpo.models.loading import read_config

    try:
        return read_config(folder)
    except PerpoError:
        raise
    except Exception as error:  # as above
        raise PerpoError(f"the config.json of {name} cannot be used: {first_line(error)}", "check the path") from error


def _version(value: str, model: _Model) -> str | None:
    if value not in _VERSIONS:
        raise PerpoError(f"--version {value} is not a conversation that is known", did_you_mean(value, _VERSIONS))
    if all(mark in model.prompt for mark in _VERSIONS[value]):
        return None
    return f"the chat template of {model.name}, which writes {model.prompt!r}"


def _vision_tower(value: str, model: _Model) -> str | None:
    own = model.config.vision_config
    if Path(value, "config.json").is_file():
        config = _config(Path(value), value)
        tower = getattr(config, "vision_config", config)
        said = {key: getattr(tower, key, None) for key in ("patch_size", "image_size", "hidden_size")}
    else:
        numbers = re.search(r"patch(\d+)(?:-(\d+))?", Path(value).name)
        if numbers is None:
            raise PerpoError(
                f"--vision_tower {value} is not a folder with a config.json, and its name does not give a patch size",
                "leave --vision_tower out: the tower is part of the model",
            )
        said = {"patch_size": int(numbers[1]), "image_size": numbers[2] and int(numbers[2])}
    for key, size in said.items():
        if size is not None and size != getattr(own, key, size):
            return f"the tower of {model.name}: {key} {getattr(own, key)}, not {size}"
    return None


def _projector_type(value: str, model: _Model) -> str | None:
    if model.config.model_type not in _TWO_LAYERS:
        return f"{model.name}: the projector of the type {model.config.model_type} is none of LLaVA's"
    projector = f"mlp2x_{model.config.projector_hidden_act}"
    return None if value == projector else f"{model.name}, whose projector is {projector}"


def _select_layer(value: str, model: _Model) -> str | None:
    layer = getattr(model.config, "vision_feature_layer", None)
    if is_original_at(model.folder):  # LLaVA's code takes the layer of SigLIP that it names otherwise
        layer = read_original(model.folder)["mm_vision_select_layer"]
    return None if value == str(layer) else f"{model.name}, whose vision_feature_layer is {layer}"


def _start_and_end(value: str, model: _Model) -> str | None:
    has_start = "<im_start>" in model.prompt
    return (
        None if _truth("mm_use_im_start_end", value) == has_start else f"the prompt of {model.name}: {model.prompt!r}"
    )


def _patch_token(value: str, model: _Model) -> str | None:
    has_token = "<im_patch>" in model.processor.tokenizer.get_vocab()
    if _truth("mm_use_im_patch_token", value) == has_token:
        return None
    return f"the tokenizer of {model.name}, which has {'' if has_token else 'no '}<im_patch>"


def _aspect_ratio(value: str, model: _Model) -> str | None:
    ratio = model.aspect_ratio
    return None if value == ratio else f"{model.name}, whose family makes it {ratio}"


def _frozen_backbone(value: str, args: TrainArguments) -> str | None:
    frozen = _truth("freeze_backbone", value)  # which LoRA leaves as it is either way
    return "--lora_enable False, which trains the backbone" if frozen and not args.lora_enable else None


def _strategy(value: str, args: TrainArguments) -> str | None:
    if value not in ("no", "steps"):
        raise PerpoError(f"validation is by steps, or not at all, not by {value}", "give --eval_data and --eval_steps")
    if (value == "no") == (args.eval_data is None):
        return None
    return "--eval_data, which is validated on" if args.eval_data else "the run: there is no --eval_data"


def _local_rank(value: str, args: TrainArguments) -> str | None:
    rank = os.environ.get("LOCAL_RANK", "-1")
    return None if value in (rank, "-1") else f"LOCAL_RANK, which the launcher set to {rank}"


def _truth(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise PerpoError(f"--{name} expects True or False, got {value!r}", "see docs/training.md")
    return value.lower() == "true"


_MODEL_CHECKS: dict[str, Callable[[str, _Model], str | None]] = {
    "version": _version,
    "vision_tower": _vision_tower,
    "mm_projector_type": _projector_type,
    "mm_vision_select_layer": _select_layer,
    "mm_use_im_start_end": _start_and_end,
    "mm_use_im_patch_token": _patch_token,
    "image_aspect_ratio": _aspect_ratio,
}
_RUN_CHECKS: dict[str, Callable[[str, TrainArguments], str | None]] = {
    "freeze_backbone": _frozen_backbone,
    "local_rank": _local_rank,
    "evaluation_strategy": _strategy,
    "eval_strategy": _strategy,
}
