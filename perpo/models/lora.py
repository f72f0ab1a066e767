"""The parts of a model that train: LoRA on the language model, and the projector."""

from __future__ import annotations

import re
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model

from perpo.errors import PerpoError
from perpo.models.families import Family
from perpo.models.loaded import LoadedModel


def add_lora(loaded: LoadedModel, *, r: int, alpha: int, dropout: float, train_projector: bool) -> PeftModel:
    """Put a new LoRA adapter on the linear layers of the language model.

    Args:
        loaded: A model without an adapter.
        r: Rank.
        alpha: Scale; the update is multiplied by alpha / r.
        dropout: Dropout before the adapter, in [0, 1).
        train_projector: Whether a copy of the projector is trained (and saved with the adapter).
            The original stays and is what runs when the adapter is off.

    Returns:
        The PeftModel; its adapter is called "default".

    Raises:
        PerpoError: The projector is to be trained, and it is not known which module that is.
    """
    projector = None
    if train_projector:
        projector = projector_modules(loaded.model, loaded.family)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=loaded.family.lora_targets,
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


def in_full_precision(model: Any) -> Any:
    """Return what trains is kept in float32, also over a base in half precision (PEFT does so for LoRA only)."""
    for parameter in model.parameters():
        if parameter.requires_grad and not hasattr(parameter, "ds_id"):  # which ZeRO-3 gives those that it parts
            parameter.data = parameter.data.float()
    return model
