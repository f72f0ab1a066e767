"""The policy as an engine, while it trains."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from perpo.engines.base import Engine
from perpo.engines.hf import HfEngine

if TYPE_CHECKING:
    from perpo.train.trainer import PreferenceTrainer


def policy_engine(trainer: PreferenceTrainer) -> Engine:
    """Return what answers with the weights as they are at each moment."""
    policy = trainer.policy
    model = _SameLogits(policy.model) if in_step(trainer) else policy.model
    return HfEngine(loaded=dataclasses.replace(policy.loaded, model=model), dtype=trainer.arguments.dtype)


def in_step(trainer: PreferenceTrainer) -> bool:
    """Return whether the processes have to run every layer together, as with ZeRO-3."""
    return trainer.is_deepspeed_enabled and trainer.accelerator.state.deepspeed_plugin.zero_stage == 3


class _SameLogits:
    """A model whose logits are the first process's, so that all choose the same tokens and stop together."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, **inputs: Any) -> Any:
        # What ZeRO-3 gathers for a layer is trained later, which inference mode would forbid.
        with torch.inference_mode(False), torch.no_grad():
            logits = self.model(**inputs).logits.contiguous()
            dist.broadcast(logits, 0)
        return SimpleNamespace(logits=logits)
