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

from perpo.errors import PerpoError
from perpo.models.adapters import put_adapter
from perpo.models.attention import set_attention
from perpo.models.families import Family
from perpo.models.loaded import LoadedModel
from perpo.models.loading import load_model
from perpo.models.lora import add_lora, is_projector_lora, projector_modules
from perpo.models.prefix import base_model
from perpo.train.arguments import TrainArguments
from perpo.train.quantization import quantization_config

_REFERENCE = "reference"


@dataclass
class Policy:
    """A model whose adapter "default" is trained, or all of it but the vision tower.

    Attributes:
        loaded: The base with its processor and digests.
        model: The PeftModel around it; or the base itself, if that is what is trained.
        trains_projector: Whether the projector is trained, the adapter's own if there is an adapter.
        trains_lora: Whether an adapter's LoRA is.
    """

    loaded: LoadedModel
    model: Any
    trains_projector: bool
    trains_lora: bool = True

    @property
    def has_adapter(self) -> bool:
        """Return whether an adapter is trained, which can be switched off, and not the base."""
        return isinstance(self.model, PeftModel)

    def set_trainable(self) -> None:
        """Let just the trained adapter have gradients; switching adapters on and off resets that."""
        if not self.has_adapter:
            self._let_all_but_the_tower_train()
            return
        for name, parameter in self.model.named_parameters():
            trained = ".default." in name and (".lora_" in name or ".modules_to_save." in name)
            wanted = self.trains_projector if self.in_projector(name) else self.trains_lora
            parameter.requires_grad_(trained and wanted)

    def saved_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the names and parameters that a checkpoint holds."""
        names = self.model.named_parameters()
        return ((name, each) for name, each in names if not self.has_adapter or ".default." in name)

    def in_projector(self, name: str) -> bool:
        """Return whether a parameter of that name is the projector's, of those that train."""
        if not self.has_adapter:
            return name.startswith(self._projector)
        return ".modules_to_save." in name or is_projector_lora(name, self.loaded.family)

    def _let_all_but_the_tower_train(self) -> None:
        tower = {id(each) for each in self._vision_tower.parameters()}
        for name, parameter in self.model.named_parameters():
            in_projector = self.in_projector(name)
            parameter.requires_grad_(self.trains_projector if in_projector else id(parameter) not in tower)

    @cached_property
    def _projector(self) -> tuple[str, ...]:
        """What the names of an unadapted model's projector begin with."""
        if self.loaded.family.projector is None and not self.trains_projector:
            return ()
        return tuple(f"{name}." for name in projector_modules(self.model, self.loaded.family))

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Within it the model is the reference: as it was before the training, its projector too.

        That is the adapter that training continues from, or else no adapter at all. Without any, this is
        so only as long as nothing has been learnt.
        """
        if not self.has_adapter:
            yield
            return
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
        tower = self._vision_tower
        adapted = any(isinstance(module, ModulesToSaveWrapper) for module in tower.modules())
        if not adapted and not any(each.requires_grad for each in tower.parameters()):
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
    # What trains is kept in float32; DeepSpeed keeps such a copy itself.
    whole = not args.lora_enable and args.deepspeed is None
    loaded = load_model(
        args.model,
        args.adapter,
        dtype="float32" if whole else args.dtype,
        device=_device(),
        trainable_adapter=True,
        quantization=quantization_config(args),
        frozen=args.lora_enable and args.deepspeed is None,
    )
    torch.manual_seed(args.seed)  # ZeRO-3 draws random numbers while it loads
    if not args.lora_enable:
        model = loaded.model
    elif args.adapter is None:
        model = add_lora(
            loaded,
            r=args.lora_r,
            alpha=args.lora_alpha,
            dropout=args.lora_dropout,
            train_projector=trains_projector,
            projector_lora=args.projector_lora,
        )
    else:
        model = loaded.model
        _check_adapter(args, model, loaded.family)
        if args.ranks and args.reference != "recorded":
            put_adapter(model, args.adapter, _REFERENCE)
    policy = Policy(loaded, model, trains_projector, trains_lora=not args.projector_only)
    policy.set_trainable()
    if args.deepspeed is not None:
        in_one_type(model)
    if args.ranks:
        switch_dropout_off(model)
    if loaded.family.prefix != "both_ways" and not loaded.family.recurrent:  # which keep the dense mask, or have none
        set_attention(base_model(model))
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return policy


def in_one_type(model: nn.Module) -> None:
    """Give what an adapter added the base's type: DeepSpeed computes in one, and keeps float32 of what trains."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and not hasattr(parameter, "ds_id"):
            parameter.data = parameter.data.to(base_model(model).dtype)


def _device() -> str | None:
    """This process's own GPU where torchrun started several; elsewhere `load_model` chooses."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank is not None and torch.cuda.is_available() else None


def _check_adapter(args: TrainArguments, model: PeftModel, family: Family) -> None:
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
    lora = [name for name, _ in model.named_parameters() if ".lora_" in name]
    on_projector = {name for name in lora if is_projector_lora(name, family)}
    if tower := [name for name in lora if f".{family.vision_tower}." in name and name not in on_projector]:
        raise PerpoError(
            f"the adapter {args.adapter} has LoRA in the vision tower, which perpo-train does not train: {tower[0]}",
            "give an adapter of the language model, or merge this one first: perpo-train merge",
        )
    if args.mm_projector_lr > 0:
        _check_projector(args, whole=bool(config.modules_to_save), lora=bool(on_projector))


def _check_projector(args: TrainArguments, *, whole: bool, lora: bool) -> None:
    """Refuse to train a projector in another way than the adapter has it: as a whole, or by LoRA."""
    if not whole and not lora:
        raise PerpoError(f"the adapter {args.adapter} has no projector to train", "give --mm_projector_lr 0")
    if args.projector_lora and not lora:
        raise PerpoError(f"the adapter {args.adapter} has no LoRA on the projector", "leave --projector_lora out")
    if lora and not args.projector_lora:
        raise PerpoError(f"the adapter {args.adapter} has LoRA on the projector", "give --projector_lora True")


def switch_dropout_off(model: nn.Module) -> None:
    """Set every dropout of a model to 0, also those that attention layers hold as a number."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
