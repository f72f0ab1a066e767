"""perpo-train export: an adapter, or its base with it, as LLaVA's own code writes and reads them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from perpo.common.arguments import arg
from perpo.common.files import atomic_write_text
from perpo.common.locks import new_folder
from perpo.errors import PerpoError
from perpo.models.checkpoints import (
    adapter_of,
    local_directory,
    processor_files,
    public_name,
    resolve_model,
    weights_digest,
)
from perpo.models.original import is_original_at, read_original
from perpo.models.original_files import holds_tower, read_file, weight_files, weight_names
from perpo.records.training_record import ADAPTER_WEIGHTS
from perpo.train.outputs.merge import base_dtype

DESCRIPTION = (
    "Write an adapter as LLaVA's own code reads it (load_pretrained_model of builder.py): LoRA, the projector in "
    "non_lora_trainables.bin and the base's config.json; or, with --merged True, a checkpoint of that layout."
)
_PREFIX = "base_model.model."
_TARGETS = r"model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"
_KEPT = ("r", "lora_alpha", "lora_dropout", "bias", "fan_in_fan_out", "inference_mode", "peft_type", "task_type")
"""Settings of an adapter that any version of PEFT knows."""

_NEUTRAL = (
    *("base_model_name_or_path", "target_modules", "modules_to_save", "revision", "peft_version", "auto_mapping"),
    *("init_lora_weights", "save_embedding_layers", "ensure_weight_tying"),
)
"""Those that are written anew, or that do not change how a saved adapter acts."""


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """The arguments of `perpo-train export`."""

    model: str = arg(help="base that the adapter was trained on: a folder or hub id in the layout of LLaVA's own code")
    adapter: str = arg(help="folder of the adapter")
    output: str = arg(help="folder to write, which must not exist yet; LLaVA's code tells by its name what is in it")
    layout: Literal["llava"] = arg("llava", "whose layout")
    merged: bool = arg(False, "write the base with the adapter in its weights, and not the adapter")


def export(args: ExportArguments) -> Path:
    """Write an adapter, or its base with it, in the layout of LLaVA's own code.

    Returns:
        The output directory. A crash leaves none.

    Raises:
        PerpoError: The output exists or has a name that LLaVA's code takes for something else; or base and adapter
            are not of that layout, or cannot be used together.
    """
    output = Path(args.output)
    with new_folder(output, "export") as new:
        base = local_directory(resolve_model(args.model))
        if not is_original_at(base):
            raise PerpoError(
                f"{args.model} is not in the layout of LLaVA's own code, so that nothing can be written in it",
                "give the original checkpoint that the adapter was trained on; or merge it: perpo-train merge",
            )
        config = read_original(base)
        adapter_of(weights_digest(base), args.adapter)
        lora = json.loads(Path(args.adapter, "adapter_config.json").read_text(encoding="utf-8"))
        _check_name(output.name, config, lora=not args.merged)
        new.mkdir(parents=True)
        if args.merged:
            _write_merged(args, base, new)
        else:
            _write_adapter(args, lora, base, new)
        _write_config(config, new, output.name if args.merged else None)
    return output


def _check_name(name: str, config: dict[str, Any], *, lora: bool) -> None:
    kind = config["architectures"][0].removeprefix("Llava").removesuffix("ForCausalLM").lower()
    wanted = ["llava", *([] if kind == "llama" else [kind]), *(["lora"] if lora else [])]
    others = [each for each in ("lora", "mistral", "mixtral", "qwen", "mpt", "gemma") if each not in wanted]
    if any(each not in name.lower() for each in wanted) or any(each in name.lower() for each in others):
        raise PerpoError(
            f"LLaVA's code tells by a folder's name what is in it, and would not read {name} as what it is",
            f"give an --output whose name has {' and '.join(wanted)} in it, and none of {', '.join(others)}",
        )


def _write_adapter(args: ExportArguments, lora: dict[str, Any], base: Path, folder: Path) -> None:
    """LoRA by LLaVA's names, and the projector apart: the base's, where the adapter has none."""
    import torch
    from safetensors.torch import load_file, save_file

    from perpo.models.original_weights import in_files

    own, layers, beside = _lora_settings(args, lora), {}, {}
    for name, tensor in load_file(Path(args.adapter, ADAPTER_WEIGHTS)).items():
        plain = name.removeprefix(_PREFIX)
        if ".lora_" in name and plain.startswith("model.language_model.layers."):
            layers[_PREFIX + in_files(plain)] = tensor
        elif plain.startswith("model.multi_modal_projector.") and ".lora_" not in name:
            beside[_PREFIX + in_files(plain)] = tensor
        else:
            raise PerpoError(
                f"the adapter {args.adapter} has {name}, which LLaVA's layout has no place for",
                "write its base with it: --merged True",
            )
    for path in [] if beside else weight_files(base):
        beside |= {
            _PREFIX + name: tensor.clone()
            for name, tensor in read_file(path).items()
            if name.startswith("model.mm_projector.")
        }
    save_file(layers, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    torch.save(beside, folder / "non_lora_trainables.bin")
    atomic_write_text(folder / "adapter_config.json", json.dumps(own, indent=2) + "\n")


def _lora_settings(args: ExportArguments, lora: dict[str, Any]) -> dict[str, Any]:
    if lora.get("peft_type") != "LORA" or lora.get("bias", "none") != "none":
        raise PerpoError(
            f"the adapter {args.adapter} is no LoRA without biases", "write its base with it: --merged True"
        )
    from peft import LoraConfig

    usual = LoraConfig().to_dict()
    own = {name: value for name, value in lora.items() if name not in (*_KEPT, *_NEUTRAL)}
    if other := sorted(name for name, value in own.items() if value and value != usual.get(name)):
        raise PerpoError(
            f"the adapter {args.adapter} sets {other[0]}, which the PEFT of LLaVA's code may not know",
            "write its base with it: --merged True",
        )
    return {
        **{name: lora[name] for name in _KEPT if name in lora},
        **{"task_type": "CAUSAL_LM", "inference_mode": True, "modules_to_save": None, "target_modules": _TARGETS},
        "base_model_name_or_path": public_name(args.model),
    }


def _write_merged(args: ExportArguments, base: Path, folder: Path) -> None:
    """The sum, computed in float32 and rounded once, by the names that the base's files have."""
    import torch
    from huggingface_hub import save_torch_state_dict

    from perpo.models.loading import load_model
    from perpo.models.original_weights import original_weights

    loaded = load_model(args.model, args.adapter, dtype="float32", device="cpu")
    merged = loaded.model.merge_and_unload(safe_merge=True).to(getattr(torch, base_dtype(base)))
    names = set(weight_names(base))
    weights = {name: each for name, each in original_weights(merged, tower=holds_tower(base)) if name in names}
    save_torch_state_dict(weights, folder)
    for path in processor_files(base):
        if path.name != "config.json":
            shutil.copyfile(path, folder / path.name)


def _write_config(config: dict[str, Any], folder: Path, name: str | None) -> None:
    """The base's config.json, which LLaVA's code reads; of a whole checkpoint by its new name."""
    named = {} if name is None else {"_name_or_path": name}
    atomic_write_text(folder / "config.json", json.dumps(config | named, indent=2) + "\n")
