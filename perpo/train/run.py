"""A training run from its arguments to its files."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback, set_seed
from transformers.integrations import TensorBoardCallback, WandbCallback
from transformers.utils import is_torch_tf32_available

from perpo.common.locks import only_process
from perpo.common.processes import is_first_process
from perpo.common.redact import without_secrets
from perpo.data import (
    Question,
    check_images,
    image_root_of,
    read_preferences,
    read_questions,
)
from perpo.data.truths import check_bounds, other_format
from perpo.errors import PerpoError
from perpo.models.answer_format import own_resize
from perpo.models.attention import attention_of
from perpo.models.checkpoints import (
    digests_of,
    files_digest,
    grounding_prompt,
    known_family,
    refused_pictures,
)
from perpo.models.hub import use_hub_cache
from perpo.models.loading import chosen_dtype
from perpo.models.prefix import base_model, is_recurrent
from perpo.records.provenance import hardware, peak_memory
from perpo.records.training_record import TRAINING_FILE, read_record, write_record
from perpo.rewards.asked import QuestionSet
from perpo.train.arguments import TrainArguments
from perpo.train.callbacks import Checkpoints, Log, ProgressBar, plain_errors
from perpo.train.distributed import deepspeed_config, processes
from perpo.train.lists import ChosenAnswers, ListDataset, choose, tokenize
from perpo.train.optimizing import training_arguments
from perpo.train.outputs.card import write_card
from perpo.train.outputs.services import check_services, push, start_wandb
from perpo.train.passes import check_budget
from perpo.train.policy import load_policy
from perpo.train.quantization import check_machine
from perpo.train.recording import new_record
from perpo.train.reference_cache import Precompute, ReferenceCache
from perpo.train.resuming import Start, check_same_held_out, check_same_images, find_start, step_of
from perpo.train.samplers import check_sampler
from perpo.train.termination import Termination
from perpo.train.trainer import PreferenceTrainer
from perpo.train.watching.policy_engine import policy_engine
from perpo.train.watching.probe import Probe
from perpo.train.watching.validation import Validation, read_held_out


def train(args: TrainArguments) -> Path:
    """Train as the arguments say; may be called many times in one process.

    Returns:
        The output directory: adapter, processor, training.json, TensorBoard events.

    Raises:
        PerpoError: The data, the images, the model or the arguments cannot be used; or another process is
            training in the output directory.
        Terminated: The process was sent SIGTERM; after the first step a checkpoint is written before.
    """
    began = time.monotonic()
    if args.bf16 is None:
        args = replace(args, bf16=chosen_dtype(None, None) == "bfloat16")
    _check_means(args)
    output = Path(args.output_dir)
    termination = Termination()
    with ExitStack() as stack:
        stack.enter_context(termination.heard())
        # The data come first: the record asks for the model, which may have to be downloaded and takes time to hash.
        records = _records(args)
        choices, counts = choose(args, records)
        if any(record.box_resize is not None for record in records):
            check_bounds(records, own_resize(args.model))
        held_out = read_held_out(args, records)
        record = new_record(args)
        record["data"]["counts"] = counts
        if is_first_process():
            stack.enter_context(only_process(output, "training"))
        start = find_start(args, record)
        if not start.finished:
            image_root = _check_data(args, records, choices, record, start)
            AcceleratorState._reset_state()  # an earlier run in this process may have used another precision
            if is_first_process():
                stack.enter_context(_failure_recorded(output, record))
            stack.enter_context(plain_errors(output, {choice.number: choice.record.image_id for choice in choices}))
            stack.enter_context(processes(args.deepspeed is not None))
            trainer = _trainer(args, record, choices, image_root, termination, stack)
            if args.precomputes:  # first, for what watches may ask for references
                cache = ReferenceCache(args, record, trainer.policy.loaded)
                trainer.add_callback(Precompute(cache, trainer))
            for callback in _watchers(args, trainer, record, start, choices, held_out, stack):
                trainer.add_callback(callback)
            trainer.train(resume_from_checkpoint=str(start.checkpoint) if start.checkpoint else None)
            trainer.save_model(args.output_dir)
            if trainer.is_world_process_zero():
                _finish(trainer, record, time.monotonic() - began)
    _push(args)
    return output


def _check_means(args: TrainArguments) -> None:
    """Refuse what this machine, or a service, could not do."""
    if args.tf32 and not is_torch_tf32_available():
        raise PerpoError("--tf32 needs an NVIDIA GPU (Ampere or newer), but this machine has none", "leave --tf32 out")
    if args.cache_dir is not None:
        use_hub_cache(args.cache_dir)
    if args.deepspeed is not None:
        deepspeed_config(args.deepspeed)  # to be told now if it can't be used
    check_machine(args)
    check_services(args)


def _records(args: TrainArguments) -> Sequence[Question]:
    """What is trained on; whoever learns the data's own answers asks for an expression as the model's family does."""
    if args.samples:
        return read_preferences(args.data)
    return read_questions(args.data, grounding_prompt=grounding_prompt(args.model))


def _check_data(
    args: TrainArguments,
    records: Sequence[Question],
    choices: Sequence[ChosenAnswers],
    record: dict[str, Any],
    start: Start,
) -> Path:
    """Refuse records of another model, and images that cannot be used or have changed; returns where images are."""
    family = known_family(args.model)
    warnings = (
        check_sampler(args, records, record["model"]),
        other_format(records, None if family is None else family.boxes),
    )
    for warning in warnings if is_first_process() else ():
        if warning is not None:
            print(f"warning: {warning}", file=sys.stderr)
    image_root = Path(args.image_root or image_root_of(args.data))
    check_images([choice.record for choice in choices], image_root, refused_pictures(args.model))
    paths = dict.fromkeys(Path(image_root, choice.record.image_path) for choice in choices)
    record["data"]["images_sha256"] = files_digest(list(paths))
    if start.checkpoint is not None:
        check_same_images(record, start.checkpoint)
        if args.eval_data is not None:
            check_same_held_out(args.eval_data, start.checkpoint)
    return image_root


def _trainer(
    args: TrainArguments,
    record: dict[str, Any],
    choices: Sequence[ChosenAnswers],
    image_root: Path,
    termination: Termination,
    stack: ExitStack,
) -> PreferenceTrainer:
    """The model with its adapter, the tokenized lists and who trains on them."""
    training = training_arguments(args)
    stack.enter_context(_own_random_numbers(args.seed))
    policy = load_policy(args)
    lists = tokenize(
        policy.loaded, choices, image_root, max_length=args.max_length, max_prompt_length=args.max_prompt_length
    )
    if args.max_tokens_per_pass is not None:
        check_budget(lists, args.max_tokens_per_pass)
    dataset, callbacks = ListDataset(lists, policy.loaded), _callbacks(args, record, termination, stack)
    trainer = PreferenceTrainer(args, training, policy, dataset, callbacks)
    record["hardware"] = hardware(str(trainer.args.device))
    base = base_model(policy.model)
    record["attention"] = "repeated" if is_recurrent(base) else attention_of(base)
    return trainer


def _finish(trainer: PreferenceTrainer, record: dict[str, Any], seconds: float) -> None:
    """Write what came of it: training.json and the model card."""
    output = Path(trainer.arguments.output_dir)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    record |= {
        "status": "complete",
        "steps": trainer.state.global_step,
        "last_log": logged[-1] if logged else None,
        "duration_s": round(seconds, 3),
        "peak_memory_bytes": peak_memory(trainer.args.device),
        **digests_of(output),
    }
    write_record(output, record)
    write_card(output, record, record["steps"])


def _callbacks(
    args: TrainArguments, record: dict[str, Any], termination: Termination, stack: ExitStack
) -> list[TrainerCallback]:
    output = Path(args.output_dir)

    def add_card(checkpoint: Path) -> None:
        write_card(checkpoint, record, step_of(checkpoint))

    checkpoints = Checkpoints(output, args.save_total_limit, add_card)
    return [Log(output, record), checkpoints, termination, ProgressBar(stack)]


def _watchers(
    args: TrainArguments,
    trainer: PreferenceTrainer,
    record: dict[str, Any],
    start: Start,
    choices: Sequence[ChosenAnswers],
    held_out: QuestionSet | None,
    stack: ExitStack,
) -> Iterator[TrainerCallback]:
    """What needs the trainer: TensorBoard or W&B, the probe, validation."""
    if trainer.is_world_process_zero() and args.report_to == "tensorboard":
        writer = SummaryWriter(Path(args.output_dir, "tensorboard"))
        stack.callback(writer.close)  # also after a run that does not come to its end
        yield TensorBoardCallback(writer)
    if trainer.is_world_process_zero() and args.report_to == "wandb":
        start_wandb(args, stack)
        yield WandbCallback()
    if args.probe_lists:
        earlier = start.checkpoint and start.checkpoint.parent
        yield Probe(trainer, choices, args.probe_lists, record, earlier)
    if held_out is not None:
        yield Validation(args, held_out, policy_engine(trainer), trainer, record, start.checkpoint)


def _push(args: TrainArguments) -> None:
    record = read_record(args.output_dir)
    if args.push_to_hub and is_first_process() and record is not None:
        push(args, record)


@contextmanager
def _failure_recorded(output: Path, record: dict[str, Any]) -> Iterator[None]:
    """An error that ends a run that has begun is kept in training.json, if that can be written."""
    try:
        yield
    except PerpoError as error:
        if error.exit_code == 3 and (output / TRAINING_FILE).is_file():
            with suppress(OSError, PerpoError):
                write_record(output, record | {"status": "failed", "error": without_secrets(error.message)})
        raise


@contextmanager
def _own_random_numbers(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch, and give back the states that they had."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
