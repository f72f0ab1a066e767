"""The policy that is trained, and the reference that it is compared with: two states of one model."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from perpo.attention import set_attention
from perpo.errors import PerpoError
from perpo.models import LoadedModel, add_lora, load_model
from perpo.prefix import base_model
from perpo.train_arguments import TrainArguments

_REFERENCE = "reference"


@dataclass
class Policy:
    """A model whose adapter "default" is trained.

    Attributes:
        loaded: The base with its processor and digests.
        model: The PeftModel around it.
        trains_projector: Whether the adapter's own projector is trained.
        trains_lora: Whether its LoRA is.
    """

    loaded: LoadedModel
    model: PeftModel
    trains_projector: bool
    trains_lora: bool = True

    def set_trainable(self) -> None:
        """Let just the trained adapter have gradients; switching adapters on and off resets that."""
        for name, parameter in self.model.named_parameters():
            is_lora = ".lora_" in name and ".default." in name
            is_projector = ".modules_to_save.default." in name
            parameter.requires_grad_((is_lora and self.trains_lora) or (is_projector and self.trains_projector))

    def saved_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The names and parameters that a checkpoint holds."""
        return ((name, each) for name, each in self.model.named_parameters() if ".default." in name)

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Within it the model is the reference: as it was before the training, its projector too.

        That is the adapter that training continues from, or else no adapter at all.
        """
        try:
            if _REFERENCE in self.model.peft_config:
                self.model.set_adapter(_REFERENCE, inference_mode=True)
                yield
            else:
                with self.model.disable_adapter():
                    yield
        finally:
            self.model.set_adapter("default")
            self.set_trainable()

    @contextmanager
    def encode_images_once(self) -> Iterator[None]:
        """Within it the frozen vision tower runs once per batch of images, whoever asks."""
        with run_once(*self._frozen_vision):
            yield

    @cached_property
    def _frozen_vision(self) -> tuple[list[nn.Module], set[int]]:
        """Modules of the vision tower that call one another in turn, and which of their outputs are used elsewhere.

        That is the tower as a whole, or its blocks where the trained projector is a part of it.
        """
        if not self.loaded.family.vision_tower:  # of a type that is not in the table
            return [], set()
        tower = self._vision_tower
        if not any(isinstance(module, ModulesToSaveWrapper) for module in tower.modules()):
            return [tower], {0}
        blocks = list(tower.blocks)
        return blocks, {len(blocks) - 1, *getattr(tower, "deepstack_visual_indexes", [])}

    @cached_property
    def _vision_tower(self) -> Any:
        ending = f".{self.loaded.family.vision_tower}"
        (tower,) = (module for name, module in self.model.named_modules() if name.endswith(ending))
        return tower


@contextmanager
def run_once(modules: Sequence[nn.Module], outputs: Collection[int]) -> Iterator[None]:
    """Within it frozen modules, each of which takes what the one before it gave, run once for the same input.

    What they gave is kept until the end and handed out again.

    Args:
        modules: The modules.
        outputs: Numbers of those whose output anything else uses; the last is among them.
    """
    kept: list[tuple[list[Any], dict[int, Any]]] = []
    given: dict[int, Any] = {}
    is_new = True

    def run(number: int, forward: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal given, is_new
        if number == 0:
            asked = tree_leaves((args, kwargs))
            given = next((outputs for inputs, outputs in kept if _same(inputs, asked)), {})
            is_new = not given
            if is_new:
                kept.append((asked, given))
        if is_new:
            with torch.no_grad():
                output = forward(*args, **kwargs)
            if number not in outputs:
                return output
            given[number] = output
        # a copy, because models write projected features into what they are given
        return copy.copy(given[number]) if number in given else args[0]

    for number, module in enumerate(modules):
        module.forward = functools.partial(run, number, module.forward)
    try:
        yield
    finally:
        for module in modules:
            del module.forward  # which uncovers the class's own


def _same(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return len(left) == len(right) and all(
        a.shape == b.shape and torch.equal(a, b)
        if isinstance(a, Tensor) and isinstance(b, Tensor)
        else a is b or a == b
        for a, b in zip(left, right, strict=True)
    )


def load_policy(args: TrainArguments) -> Policy:
    """Load what is trained: a new adapter on the model, or the one that training continues from.

    Raises:
        PerpoError: The model or adapter cannot be used, or the adapter was made with other settings
            than the arguments say.
    """
    trains_projector = args.mm_projector_lr > 0
    loaded = load_model(args.model, args.adapter, dtype=args.dtype, device=_device(), trainable_adapter=True)
    torch.manual_seed(args.seed)  # ZeRO-3 draws random numbers while it loads
    if args.adapter is None:
        model = add_lora(
            loaded,
            r=args.lora_r,
            alpha=args.lora_alpha,
            dropout=args.lora_dropout,
            train_projector=trains_projector,
        )
    else:
        model = loaded.model
        _check_adapter(args, model)
        if args.ranks and args.reference != "recorded":
            model.load_adapter(args.adapter, _REFERENCE)
    policy = Policy(loaded, model, trains_projector, trains_lora=not args.projector_only)
    policy.set_trainable()
    if args.ranks:
        switch_dropout_off(model)
    set_attention(base_model(model))
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return policy


def _device() -> str | None:
    """This process's own GPU where torchrun started several; elsewhere `load_model` chooses."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank is not None and torch.cuda.is_available() else None


def _check_adapter(args: TrainArguments, model: PeftModel) -> None:
    config: Any = model.peft_config["default"]
    made_with = {"lora_r": config.r, "lora_alpha": config.lora_alpha}
    if not args.ranks:  # which switch it off
        made_with["lora_dropout"] = config.lora_dropout
    for name, value in made_with.items():
        if value != getattr(args, name):
            raise PerpoError(
                f"the adapter {args.adapter} was made with {name} {value}, not {getattr(args, name)}",
                f"give --{name} {value} to continue from it",
            )
    if args.mm_projector_lr > 0 and not config.modules_to_save:
        raise PerpoError(
            f"the adapter {args.adapter} has no projector that could be trained", "give --mm_projector_lr 0"
        )


def switch_dropout_off(model: nn.Module) -> None:
    """Set every dropout of a model to 0, also those that attention layers hold as a number."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
