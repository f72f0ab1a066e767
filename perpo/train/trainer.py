"""Training: transformers' Trainer with our losses, our reference and our files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from accelerate.utils import DistributedType
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled

from perpo.losses import BETA, GAMMA, dpo_loss, lipo_loss, perpo_loss, preference_metrics, sft_loss
from perpo.methods import METHODS
from perpo.models.logps import candidate_logps
from perpo.models.prefix import base_model, longest_shared
from perpo.train.arguments import TrainArguments
from perpo.train.callbacks import EachEpochsOrder, FiniteGuard
from perpo.train.distributed import Filled, full_weights, nanmeans, summed
from perpo.train.lists import Collator, ListDataset, SimilarLengths
from perpo.train.optimizing import adamw, logged_rate, schedule
from perpo.train.outputs.saving import load_checkpoint, save_checkpoint
from perpo.train.passes import split
from perpo.train.policy import Policy
from perpo.train.termination import let_parent_decide


def of_one_answer(policy: Tensor, reference: Tensor | None, inputs: dict[str, Any]) -> Tensor:
    """Return the (B,) losses of lists that are one answer each."""
    return sft_loss(policy[:, 0], inputs["token_counts"][:, 0]) * inputs["mask"][:, 0]


def of_candidates(
    loss: Callable[..., Tensor], policy: Tensor, reference: Tensor | None, inputs: dict[str, Any], **scales: float
) -> Tensor:
    """Return the (B,) losses of lists of candidates."""
    return loss(policy, reference, inputs["rewards"], mask=inputs["mask"], **scales)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "sft": of_one_answer,
    "rft": of_one_answer,
    "dpo": partial(of_candidates, dpo_loss),
    "lipo": partial(of_candidates, lipo_loss),
    "perpo": partial(of_candidates, perpo_loss),
}
"""The loss of each method of `perpo.methods`: from log-probabilities, those of the reference, the batch and scales."""

_SCALES = {"beta": BETA, "gamma": GAMMA}


def _scales(arguments: TrainArguments) -> dict[str, float]:
    """Return those scales that the method's loss takes, as they were given or as they are by default."""
    given = {name: getattr(arguments, name) for name in _SCALES if name in METHODS[arguments.method].takes}
    return {name: _SCALES[name] if value is None else value for name, value in given.items()}


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
        self.scales = _scales(arguments)
        self._since_last_log: list[dict[str, Tensor]] = []

    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Return the batch's share of the mean loss over all lists of the optimizer step."""
        with self.policy.encode_images_once():
            reference_logps = self._reference_logps(model, inputs)
            policy_logps = self._logps(model, inputs)
        return self._share(policy_logps, reference_logps, inputs, num_items_in_batch)

    def _share(self, policy: Tensor, reference: Tensor | None, inputs: dict[str, Any], num_items: Any) -> Tensor:
        losses = self._losses(policy, reference, inputs)
        self.guard.check_losses(losses, inputs["numbers"])
        return losses.sum() / (len(losses) if num_items is None else num_items)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Run one batch forward and backward, in as many passes as --max_tokens_per_pass makes of it."""
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
        logps = torch.zeros_like(inputs["token_counts"])
        for each in inputs["passes"]:
            each.put(each.logps(model), logps)
        return logps

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
        if reference is not None:
            beta, gamma = self.scales["beta"], self.scales.get("gamma", 0.0)  # 0: all pairs weigh the same
            rewards, mask = inputs["rewards"], inputs["mask"]
            metrics = preference_metrics(policy, reference, rewards, beta=beta, gamma=gamma, mask=mask)
            self._since_last_log.append(metrics)
        return LOSSES[self.arguments.method](policy, reference, inputs, **self.scales)

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
        """Return the loader; processes that load for it leave SIGTERM to this one."""
        loader: Any = super().get_train_dataloader()
        batches = loader.base_dataloader
        batches.worker_init_fn = partial(let_parent_decide, batches.worker_init_fn)
        return loader

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[dict[str, Any]], Tensor]:  # type: ignore[override]
        """Return the micro-batches of an optimizer step, and how many lists they hold together.

        Of several processes it is the mean number, for their gradients are averaged and not summed.
        """
        batches, _ = super().get_batch_samples(*args, **kwargs)
        lists = sum(float(batch["mask"].any(1).sum()) for batch in batches)
        return batches, summed(torch.tensor(lists, device=self.args.device)) / self.args.world_size

    def _get_learning_rate(self) -> float:
        return logged_rate(self.lr_scheduler, self.arguments.learning_rate)

    def create_optimizer(self, model: Any = None) -> Any:
        """Make AdamW with the projector at its own rate."""
        if self.optimizer is None:
            self.optimizer = adamw(self.arguments, self.policy)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the run's part of the learning-rate schedule."""
        if self.lr_scheduler is None:
            self.lr_scheduler = schedule(self.arguments, optimizer or self.optimizer, num_training_steps)
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
