"""Training: transformers' Trainer with our losses, our reference and our files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from accelerate.utils import DistributedType
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, get_scheduler
from transformers.integrations import is_deepspeed_zero3_enabled

from perpo.losses import BETA, GAMMA, dpo_loss, lipo_loss, perpo_loss, preference_metrics, sft_loss
from perpo.models.adapters import shape_of
from perpo.models.logps import candidate_logps
from perpo.models.prefix import base_model, longest_shared
from perpo.train.arguments import TrainArguments
from perpo.train.callbacks import EachEpochsOrder, FiniteGuard
from perpo.train.distributed import Filled, deepspeed_config, full_weights, nanmeans, summed
from perpo.train.lists import Collator, ListDataset, SimilarLengths
from perpo.train.outputs.saving import load_checkpoint, save_checkpoint
from perpo.train.passes import split
from perpo.train.policy import Policy
from perpo.train.termination import let_parent_decide


class PreferenceTrainer(Trainer):
    """Trains a policy on lists of candidates (or on single answers) behind shared prefixes.

    Args:
        arguments: The run's arguments.
        training: What `training_arguments` made of them, before the policy was loaded.
        policy: What is trained, and its reference.
        dataset: The lists.
        callbacks: Who is told of the progress.
    """

    def __init__(
        self,
        arguments: TrainArguments,
        training: TrainingArguments,
        policy: Policy,
        dataset: ListDataset,
        callbacks: list[TrainerCallback],
    ) -> None:
        super().__init__(
            model=policy.model,
            args=training,
            data_collator=Collator(policy.loaded.tokenizer.pad_token_id),
            train_dataset=dataset,
            callbacks=[*callbacks, guard := FiniteGuard()],
        )
        self.remove_callback(PrinterCallback)  # stdout is for results
        self.model_accepts_loss_kwargs = True  # compute_loss divides by the whole step's number of lists
        self.guard = guard
        self.arguments = arguments
        self.policy = policy
        self.dataset = dataset
        self.beta = BETA if arguments.beta is None else arguments.beta
        self.gamma = GAMMA if arguments.gamma is None else arguments.gamma
        self._since_last_log: list[dict[str, Tensor]] = []

    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The batch's share of the mean loss over all lists of the optimizer step."""
        with self.policy.encode_images_once():
            reference_logps = self._reference_logps(model, inputs)
            policy_logps = self._logps(model, inputs)
        return self._share(policy_logps, reference_logps, inputs, num_items_in_batch)

    def _share(self, policy: Tensor, reference: Tensor | None, inputs: dict[str, Any], num_items: Any) -> Tensor:
        losses = self._losses(policy, reference, inputs)
        self.guard.check_losses(losses, inputs["numbers"])
        return losses.sum() / (len(losses) if num_items is None else num_items)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One batch forward and backward, in as many passes as --max_tokens_per_pass makes of it."""
        inputs = self._with_passes(inputs)
        if inputs["passes"]:
            return self._step_in_passes(model, inputs, num_items_in_batch)
        return super().training_step(model, inputs, num_items_in_batch)

    def _step_in_passes(self, model: Any, inputs: dict[str, Any], num_items: Any) -> Tensor:
        """The step of `compute_loss`, with the memory of one pass (see `perpo.train.passes`)."""
        model.train()
        passes = inputs["passes"]
        with self._images_once(inputs):
            with self.compute_loss_context_manager(), torch.no_grad():
                reference = self._reference_logps(model, inputs)
                policy = self._logps(model, inputs)
            loss = self._share(policy.requires_grad_(), reference, inputs, num_items)
            (weights,) = torch.autograd.grad(loss, policy)
            for number, each in enumerate(passes, 1):
                with nullcontext() if number == len(passes) else self._without_sync(model):
                    with self.compute_loss_context_manager():
                        logps = each.logps(model)
                    self._backward((each.take(weights) * logps).sum())
        return loss.detach()

    def _with_passes(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A batch on its device, with its `passes`: none where it is read at once.

        All processes have as many as the one with the most, because ZeRO-3 gathers weights in each, from all of them.
        """
        inputs, budget = self._prepare_inputs(inputs), self.arguments.max_tokens_per_pass
        if budget is None:
            return inputs | {"passes": []}
        longest = longest_shared(base_model(self.policy.model))
        passes = split(inputs["packed"], inputs["images"], budget, longest)
        if self.accelerator.num_processes > 1:
            counts = self.accelerator.gather(torch.tensor([len(passes)], device=self.args.device))
            passes += [replace(passes[0], counts=False)] * (int(counts.max()) - len(passes))
        return inputs | {"passes": passes if len(passes) > 1 else []}

    def _images_once(self, inputs: dict[str, Any]) -> AbstractContextManager[None]:
        """Within it each image is encoded once, unless processes have to do that equally often.

        ZeRO-3 gathers the vision tower, too, and the passes of one process may need it where another's do not.
        """
        in_step = is_deepspeed_zero3_enabled() and inputs["passes"]
        return nullcontext() if in_step else self.policy.encode_images_once()

    @contextmanager
    def _without_sync(self, model: Any) -> Iterator[None]:
        """Within it gradients stay with their process, and DeepSpeed makes no step of them."""
        state, synced = self.accelerator.gradient_state, self.accelerator.sync_gradients
        state._set_sync_gradients(False)  # which accelerate hands on to DeepSpeed
        deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        try:
            with nullcontext() if deepspeed else self.accelerator.no_sync(model):
                yield
        finally:
            state._set_sync_gradients(synced)

    def _backward(self, loss: Tensor) -> None:
        deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        # our share of the step's mean needs no division by the number of micro-batches
        self.accelerator.backward(loss, **({"scale_wrt_gas": False} if deepspeed else {}))

    @torch.no_grad()
    def logps_of(self, places: Sequence[int]) -> tuple[list[list[float]], list[list[float]] | None]:
        """Log-probabilities of some lists by the policy as it is now, and by the reference if there is one.

        Args:
            places: Their places in the data set.

        Returns:
            Twice (B, N), the most candidates of any of them; all processes take part.
        """
        with self._looking_at(self.dataset, places) as inputs:
            reference = self._reference_logps(self.model_wrapped, inputs)
            policy = self._logps(self.model_wrapped, inputs)
        return policy.tolist(), None if reference is None else reference.tolist()

    @torch.no_grad()
    def reference_logps_of(self, dataset: ListDataset, places: Sequence[int]) -> list[list[float]]:
        """(B, N) log-probabilities of some lists by the reference; all processes take part."""
        with self._looking_at(dataset, places) as inputs, self.policy.as_reference():
            return self._logps(self.model_wrapped, inputs).tolist()

    @contextmanager
    def _looking_at(self, dataset: ListDataset, places: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Within it the model computes as in training, but drops nothing out; gives a batch of lists."""
        self.policy.model.eval()
        inputs = self._with_passes(self.data_collator([dataset[place] for place in places]))
        with self.compute_loss_context_manager(), self._images_once(inputs):
            yield inputs

    def _logps(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if not inputs["passes"]:
            candidates = inputs["mask"].shape[1]
            return candidate_logps(model, inputs["packed"], inputs["images"], candidates=candidates)
        found = torch.zeros_like(inputs["token_counts"])
        for each in inputs["passes"]:
            each.put(each.logps(model), found)
        return found

    def _reference_logps(self, model: Any, inputs: dict[str, Any]) -> Tensor | None:
        """The reference's log-probabilities; comes first, because it switches adapters off and on."""
        if not self.arguments.ranks:
            return None
        if "reference_logps" in inputs:
            return inputs["reference_logps"]
        with torch.no_grad(), self.policy.as_reference():
            return self._logps(model, inputs)

    def _losses(self, policy: Tensor, reference: Tensor | None, inputs: dict[str, Any]) -> Tensor:
        """(B,) losses by the method; also takes down what is to be logged."""
        if reference is None:
            return sft_loss(policy[:, 0], inputs["token_counts"][:, 0]) * inputs["mask"][:, 0]
        rewards, mask = inputs["rewards"], inputs["mask"]
        gamma = self.gamma if self.arguments.method == "perpo" else 0.0
        self._since_last_log.append(
            preference_metrics(policy, reference, rewards, beta=self.beta, gamma=gamma, mask=mask)
        )
        if self.arguments.method == "perpo":
            return perpo_loss(policy, reference, rewards, beta=self.beta, gamma=gamma, mask=mask)
        loss = dpo_loss if self.arguments.method == "dpo" else lipo_loss
        return loss(policy, reference, rewards, beta=self.beta, mask=mask)

    def _prepare_input(self, data: Any) -> Any:
        # Only moved: DeepSpeed's type would round rewards and log-probabilities, and so tie them.
        return data.to(self.args.device) if isinstance(data, Tensor) else super()._prepare_input(data)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        lists, together = self.train_dataset.lists, self.args.train_batch_size * self.args.world_size  # type: ignore[union-attr]
        if self.arguments.group_by_modality_length:
            order: Any = SimilarLengths(lists, together * self.args.gradient_accumulation_steps, self.args.seed)
        else:  # in which accelerate would put any other random order
            order = SeedableRandomSampler(lists, data_seed=self.args.seed)
        order = order if self.args.world_size == 1 else Filled(order, together)
        self.add_callback(EachEpochsOrder(order))
        return order

    def get_train_dataloader(self) -> Any:
        """The loader; processes that load for it leave SIGTERM to this one."""
        loader: Any = super().get_train_dataloader()
        batches = loader.base_dataloader
        batches.worker_init_fn = partial(let_parent_decide, batches.worker_init_fn)
        return loader

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[dict[str, Any]], Tensor]:  # type: ignore[override]
        """The micro-batches of an optimizer step, and how many lists they hold together.

        Of several processes it is the mean number, for their gradients are averaged and not summed.
        """
        batches, _ = super().get_batch_samples(*args, **kwargs)
        lists = sum(float(batch["mask"].any(1).sum()) for batch in batches)
        return batches, summed(torch.tensor(lists, device=self.args.device)) / self.args.world_size

    def _get_learning_rate(self) -> float:
        """What is logged: the language model's rate, not that of the projector, which may come first."""
        scheduler: Any = self.lr_scheduler
        rates = scheduler.get_last_lr()
        initial = [group["initial_lr"] for group in scheduler.optimizer.param_groups]
        wanted = self.arguments.learning_rate
        return float(rates[initial.index(wanted)] if wanted in initial else rates[0])

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW with the projector at its own rate."""
        if self.optimizer is None:
            self.optimizer = _optimizer(self.arguments, self.policy)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The run's part of the learning-rate schedule."""
        part, parts = self.arguments.part
        total = num_training_steps * parts
        if self.lr_scheduler is None:
            whole: Any = get_scheduler(
                self.arguments.lr_scheduler_type,
                optimizer or self.optimizer,  # type: ignore[arg-type]
                num_warmup_steps=self.arguments.warmup_steps or math.ceil(self.arguments.warmup_ratio * total),
                num_training_steps=total,
            )
            (factor, *_) = whole.lr_lambdas  # the same for every group of parameters
            done = num_training_steps * (part - 1)
            self.lr_scheduler = LambdaLR(whole.optimizer, lambda step: factor(step + done))
        return self.lr_scheduler

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean metrics since the last entry; one that no list defines is left out."""
        if "loss" in logs and self._since_last_log:
            logs |= nanmeans(self._since_last_log)
            self._since_last_log.clear()
        super().log(logs, *args, **kwargs)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not estimated: the formula knows nothing of shared prefixes."""
        return 0

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write what is trained, and the processor; all processes call it, and the first one writes."""
        weights = full_weights(self.policy.saved_parameters()) if self.is_deepspeed_enabled else None
        if self.args.should_save:
            directory = self.arguments.output_dir if output_dir is None else output_dir
            save_checkpoint(self.policy.model, self.policy.loaded.processor, directory, weights)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_checkpoint(self.policy.model, resume_from_checkpoint)


def training_arguments(args: TrainArguments) -> TrainingArguments:
    """What transformers' Trainer takes. ZeRO-3 shards just the models that are loaded while it exists."""
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


def _optimizer(args: TrainArguments, policy: Policy) -> AdamW:
    """AdamW with the projector at its own rate; biases are not decayed."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in policy.model.named_parameters():
        if parameter.requires_grad:
            rate = args.mm_projector_lr if policy.in_projector(name) else args.learning_rate
            decay = args.weight_decay if len(shape_of(parameter)) > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return AdamW([{"params": ps, "lr": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()])
