"""The parts of a model that train: LoRA on the language model, and the projector."""

from __future__ import annotations

import re
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from perpo.errors import PerpoError
from perpo.models.families import Family
from perpo.models.loaded import LoadedModel


def add_lora(
    loaded: LoadedModel, *, r: int, alpha: int, dropout: float, train_projector: bool, projector_lora: bool = False
) -> PeftModel:
    """Put a new LoRA adapter on the linear layers of the language model.

    Args:
        loaded: A model without an adapter.
        r: Rank.
        alpha: Scale; the update is multiplied by alpha / r.
        dropout: Dropout before the adapter, in [0, 1).
        train_projector: Whether the projector is trained: a copy of it, which is saved with the adapter. The
            original stays and is what runs when the adapter is off.
        projector_lora: Whether its linear layers get LoRA in place of that copy.

    Returns:
        The PeftModel; its adapter is called "default".

    Raises:
        PerpoError: The projector is to be trained, and it is not known which module that is, or it has no layer for
            LoRA.
    """
    projector, targets = None, loaded.family.lora_targets
    if projector_lora:
        targets = "|".join([targets, *map(re.escape, projector_layers(loaded.model, loaded.family))])
    elif train_projector:
        projector = projector_modules(loaded.model, loaded.family)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets,
        modules_to_save=projector,
    )
    return in_full_precision(get_peft_model(loaded.model, config))


def projector_modules(model: Any, family: Family) -> list[str]:
    """Return names of the modules that make up the projector.

    Raises:
        PerpoError: They are not known of this family.
    """
    if family.projector is None:
        raise PerpoError(
            f"it is not known which module of the model type '{family.model_type}' is the projector",
            "give --mm_projector_lr 0",
        )
    return [name for name, _ in model.named_modules() if re.fullmatch(rf"(.*\.)?{family.projector}", name)]


def projector_layers(model: Any, family: Family) -> list[str]:
    """Return names of the projector's linear layers.

    Raises:
        PerpoError: There are none, or it is not known which module the projector is.
    """
    parts = projector_modules(model, family)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    layers = [name for name in names if any(name == part or name.startswith(f"{part}.") for part in parts)]
    if not layers:
        raise PerpoError(
            f"the projector of the model type '{family.model_type}' has no linear layer that LoRA could be put on",
            "leave --projector_lora out",
        )
    return layers


def is_projector_lora(name: str, family: Family) -> bool:
    """Return whether a parameter of that name in a PeftModel is LoRA on the projector."""
    return family.projector is not None and re.search(rf"\.{family.projector}(\..*)?\.lora_", name) is not None


def in_full_precision(model: Any) -> Any:
    """Return what trains is kept in float32, also over a base in half precision (PEFT does so for LoRA only)."""
    for parameter in model.parameters():
        if parameter.requires_grad and not hasattr(parameter, "ds_id"):  # which ZeRO-3 gives those that it parts
            parameter.data = parameter.data.float()
    return model
