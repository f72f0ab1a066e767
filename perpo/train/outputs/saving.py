"""Save what a training made: an adapter with its processor, or a whole checkpoint where all weights were trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from perpo.models.adapters import fill_adapter
from perpo.models.loading import check_loaded
from perpo.records.training_record import ADAPTER_WEIGHTS


def save_checkpoint(
    model: Any, processor: Any, directory: str | Path, weights: dict[str, Tensor] | None = None
) -> None:
    """Write a PeftModel's "default" adapter, or all of another model, as safetensors; and the processor.

    Whether the vocabulary was resized is not asked, because PEFT would ask the hub.

    Args:
        model: The PeftModel, or the model.
        processor: Its processor.
        directory: Where to.
        weights: What is to be saved by parameter name, where the model's own are parted among processes.
    """
    if isinstance(model, PeftModel):
        model.save_pretrained(
            str(directory), selected_adapters=["default"], save_embedding_layers=False, state_dict=weights
        )
    else:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        if weights is not None:
            weights |= {name: value for name, value in model.state_dict().items() if name not in parameters}
            # Loading under ZeRO-3 notes renamings that the files did not need, and saving would undo them.
            vars(model).pop("_weight_conversions", None)
        model.save_pretrained(directory, state_dict=weights)
    processor.save_pretrained(directory)


def load_checkpoint(model: Any, directory: str | Path) -> None:
    """Put what `save_checkpoint` wrote back into a model."""
    if isinstance(model, PeftModel):
        fill_adapter(model, load_file(Path(directory, ADAPTER_WEIGHTS)), directory)
        return
    # the names in the files are not those in memory, and transformers knows both
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        directory, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    saved, report = loaded
    check_loaded(str(directory), report)
    model.load_state_dict(saved.state_dict())
