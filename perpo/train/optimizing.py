"""Settings of the optimization: what transformers' Trainer is told, the optimizer, the learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainingArguments, get_scheduler

from perpo.models.adapters import shape_of
from perpo.train.arguments import TrainArguments
from perpo.train.distributed import deepspeed_config
from perpo.train.policy import Policy


def training_arguments(args: TrainArguments) -> TrainingArguments:
    """Return what transformers' Trainer takes. ZeRO-3 shards just the models that are loaded while it exists."""
    cuda = torch.cuda.is_available()
    training = TrainingArguments(
        output_dir=args.output_dir,
        per_device_train_batch_size=args.per_device_train_batch_size,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        num_train_epochs=args.num_train_epochs,
        max_steps=args.max_steps,
        max_grad_norm=args.max_grad_norm,
        bf16=bool(args.bf16),
        tf32=args.tf32,
        logging_steps=args.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy=args.save_strategy if args.save_steps else "no",
        save_steps=args.save_steps or 500,
        save_total_limit=None,  # the callbacks delete, once the new one is whole
        seed=args.seed,
        dataloader_num_workers=args.dataloader_num_workers,
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        deepspeed=deepspeed_config(args.deepspeed) if args.deepspeed else None,
        # Everything that trains takes part in every pass, and no buffer changes.
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        report_to="none",  # the callbacks do it
        disable_tqdm=True,
        use_cpu=not cuda,
    )
    training._n_gpu = min(training.n_gpu, 1)  # one process drives one device; torchrun starts several
    return training


def adamw(args: TrainArguments, policy: Policy) -> AdamW:
    """Return AdamW with the projector at its own rate; biases are not decayed."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in policy.model.named_parameters():
        if parameter.requires_grad:
            rate = args.mm_projector_lr if policy.in_projector(name) else args.learning_rate
            decay = args.weight_decay if len(shape_of(parameter)) > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return AdamW([{"params": ps, "lr": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()])


def schedule(args: TrainArguments, optimizer: Any, steps: int) -> LambdaLR:
    """Return the run's part of the learning-rate schedule.

    Args:
        args: The run's arguments.
        optimizer: Whose rates change.
        steps: Optimizer steps of this run.
    """
    part, parts = args.part
    total, done = steps * parts, steps * (part - 1)
    whole: Any = get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=args.warmup_steps or math.ceil(args.warmup_ratio * total),
        num_training_steps=total,
    )
    (factor, *_) = whole.lr_lambdas  # the same for every group of parameters
    return LambdaLR(whole.optimizer, lambda step: factor(step + done))


def logged_rate(scheduler: Any, wanted: float) -> float:
    """Return what is logged: the language model's rate, not that of the projector, which may come first.

    Args:
        scheduler: As it is now.
        wanted: The language model's rate before it was changed.
    """
    rates = scheduler.get_last_lr()
    initial = [group["initial_lr"] for group in scheduler.optimizer.param_groups]
    return float(rates[initial.index(wanted)] if wanted in initial else rates[0])
