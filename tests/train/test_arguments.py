"""Each argument of perpo-train acts, and what a method has no use for is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from perpo.errors import PerpoError
from perpo.records.training_record import read_log, read_record
from perpo.train.arguments import TrainArguments
from perpo.train.run import train
from perpo.train.trainer import PreferenceTrainer

# What changes the trained weights, as a change to the plain run (or to the options given with it).
CHANGES = {
    "method": ({"method": "lipo"}, {}),
    "beta": ({"beta": 1.0}, {}),
    "gamma": ({"gamma": 3.0}, {}),
    "num_candidates": ({"num_candidates": 2}, {}),
    "keep_truncated": ({"keep_truncated": True}, {}),
    "lora_alpha": ({"lora_alpha": 16}, {}),
    "lora_dropout": ({"lora_dropout": 0.5}, {"method": "sft"}),
    "learning_rate": ({"learning_rate": 2e-2}, {}),
    "mm_projector_lr": ({"mm_projector_lr": 2e-2}, {}),
    "per_device_train_batch_size": ({"per_device_train_batch_size": 1}, {}),
    "gradient_accumulation_steps": ({"gradient_accumulation_steps": 2}, {}),
    "num_train_epochs": ({"num_train_epochs": 2.0}, {}),
    "max_steps": ({"max_steps": 1}, {}),
    "lr_scheduler_type": ({"lr_scheduler_type": "constant"}, {}),
    "warmup_steps": ({"warmup_steps": 1}, {}),
    "warmup_ratio": ({"warmup_ratio": 0.5}, {}),
    "projector_only": ({"projector_only": True}, {}),
    "schedule_part": ({"schedule_part": "1/2"}, {}),
    "weight_decay": ({"weight_decay": 10.0}, {}),
    "max_grad_norm": ({"max_grad_norm": 1e-6}, {}),
    "bf16": ({"bf16": True}, {}),
    "seed": ({"seed": 1}, {}),
}
# What is shown to act elsewhere: below, or in tests/test_training.py (the reference, resuming, output).
ELSEWHERE = {
    "data",
    "output_dir",
    "model",
    "adapter",
    "image_root",
    "reference",
    "lora_r",
    "projector_lora",  # in test_projector_lora.py
    "gradient_checkpointing",
    "max_tokens_per_pass",
    "group_by_modality_length",
    "deepspeed",
    "lora_enable",
    "precompute_reference",
    "bits",
    "double_quant",
    "quant_type",
    "logging_steps",
    "save_steps",
    "save_total_limit",
    "resume_from_checkpoint",
    "dataloader_num_workers",
    "save_strategy",
    "max_length",
    "max_prompt_length",
    "tf32",
    "cache_dir",
    "estimate",
    "allow_other_sampler",  # in test_samplers.py
    # in test_validation.py, test_probe.py, test_services.py and test_card.py
    "eval_data",
    "eval_image_root",
    "eval_steps",
    "eval_reward",
    "eval_truth_frame",
    "eval_truth_scale",
    "eval_truth_order",
    "eval_box_frame",
    "eval_box_scale",
    "eval_box_order",
    "eval_max_new_tokens",
    "per_device_eval_batch_size",
    "probe_lists",
    "report_to",
    "run_name",
    "license",
    "push_to_hub",
    "hub_model_id",
}


@pytest.fixture(scope="module")
def options(tmp_path_factory, small_model):
    """A run of 2 steps on 4 records with 4 candidates, one of them truncated."""
    root = tmp_path_factory.mktemp("data")
    generator = random.Random(0)
    with (root / "records.jsonl").open("w") as file:
        for number in range(4):
            noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / f"{number}.png")
            row = {
                "image_path": f"{number}.png",
                "question": "where?",
                "answer": "[0.1, 0.2]",
                "answers_gen": [f"[{generator.random():.2f}]" for _ in range(4)],
                "rewards": [generator.random() for _ in range(4)],
                "truncated": [False, False, number == 1, False],
            }
            file.write(json.dumps(row) + "\n")
    return {
        "model": str(small_model),
        "data": str(root / "records.jsonl"),
        "image_root": str(root),
        "lora_r": 4,
        "lora_alpha": 8,
        "learning_rate": 1e-2,
        "mm_projector_lr": 1e-2,
        "save_steps": 0,
        "probe_lists": 0,
    }


@pytest.fixture(scope="module")
def trained(options, tmp_path_factory):
    """Trains with changed options; runs that were done before are not done again."""
    done = {}

    def run(**changes):
        key = json.dumps(changes, sort_keys=True)
        if key not in done:
            arguments = options | {"output_dir": str(tmp_path_factory.mktemp("run") / "out")} | changes
            done[key] = train(TrainArguments(**arguments))
        return done[key]

    return run


def weights(output):
    return load_file(output / "adapter_model.safetensors")


def test_no_argument_is_without_a_test():
    assert {field.name for field in dataclasses.fields(TrainArguments)} == CHANGES.keys() | ELSEWHERE


@pytest.mark.parametrize("name", CHANGES)
def test_an_argument_changes_the_weights(trained, name):
    change, besides = CHANGES[name]
    plain, changed = weights(trained(**besides)), weights(trained(**besides, **change))
    assert plain.keys() == changed.keys()
    assert any(not torch.equal(plain[key], changed[key]) for key in plain)


def test_the_same_arguments_give_the_same_weights(trained):
    plain, again = weights(trained()), weights(trained(logging_steps=2))
    assert all(torch.equal(plain[key], again[key]) for key in plain)


def test_lora_r_is_the_rank_and_a_projector_rate_of_0_leaves_it(trained):
    tensors = weights(trained(lora_r=3, mm_projector_lr=0.0))
    assert {tensor.shape[0] for name, tensor in tensors.items() if "lora_A" in name} == {3}
    assert not any("projector" in name for name in tensors)


def test_gradient_checkpointing_recomputes_and_gives_the_same_weights(trained, monkeypatch):
    from torch.utils import checkpoint

    calls = []
    original = checkpoint.checkpoint
    monkeypatch.setattr(checkpoint, "checkpoint", lambda *a, **k: calls.append(1) or original(*a, **k))
    monkeypatch.setattr("transformers.modeling_utils.checkpoint", checkpoint.checkpoint, raising=False)
    plain, other = weights(trained()), weights(trained(gradient_checkpointing=True))
    assert calls
    for key, tensor in plain.items():
        torch.testing.assert_close(other[key], tensor, atol=1e-5, rtol=1e-4)


def test_passes_of_few_tokens_give_the_same_weights_and_what_is_longer_is_refused(trained):
    plain, other = weights(trained()), weights(trained(max_tokens_per_pass=20))
    for key, tensor in plain.items():  # after two of Adam's steps, which make much of small differences
        torch.testing.assert_close(other[key], tensor, atol=1e-4, rtol=1e-3)
    with pytest.raises(PerpoError, match="exceed --max_tokens_per_pass 9"):
        trained(max_tokens_per_pass=9)


def test_lists_of_similar_lengths_share_a_batch_in_another_order_each_epoch(options, tmp_path):
    """Prefixes of 18 to 25 tokens or with 70 more; a run that is cut in the second epoch finds its order again."""
    rows = [json.loads(line) for line in Path(options["data"]).read_text().splitlines()] * 8
    rows = [row | {"question": "a b " * 35 * (number % 2) + "where?"} for number, row in enumerate(rows)]
    data = tmp_path / "records.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"data": str(data), "num_train_epochs": 2.0, "save_steps": 20}

    seen: list[list[int]] = []

    class Spy(PreferenceTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            seen.append(inputs["numbers"])
            return super().compute_loss(model, inputs, *args, **kwargs)

    def run(grouped, **more):
        seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("perpo.train.run.PreferenceTrainer", Spy)
            train(TrainArguments(**(options | changes | {"group_by_modality_length": grouped} | more)))
        return list(seen)

    def mixed(batches):
        return sum(one % 2 != other % 2 for one, other in batches)

    whole = run(True, output_dir=str(tmp_path / "whole"))
    epochs = [[number for numbers in part for number in numbers] for part in (whole[:16], whole[16:])]
    assert [sorted(epoch) for epoch in epochs] == [list(range(1, 33))] * 2
    assert epochs[0] != epochs[1]
    assert mixed(whole) <= 8  # one for each eight lists that are sorted together
    assert mixed(run(False, output_dir=str(tmp_path / "random"))) > 8

    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole" / "checkpoint-20", cut / "checkpoint-20")
    record = read_record(tmp_path / "whole") | {"status": "running"}
    (cut / "training.json").write_text(json.dumps(record))
    assert run(True, output_dir=str(cut), resume_from_checkpoint="last") == whole[20:]
    assert all(torch.equal(weights(cut)[key], tensor) for key, tensor in weights(tmp_path / "whole").items())


def test_saving_and_its_limit(trained):
    output = trained(save_steps=1, save_total_limit=1, num_train_epochs=2.0)
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-4"]
    assert len(list(trained(save_steps=1, num_train_epochs=2.0).glob("checkpoint-*"))) == 2
    assert not list(trained().glob("checkpoint-*"))


def test_checkpoints_at_the_end_of_epochs_or_never(trained):
    def steps(**flags):
        names = (path.name for path in trained(num_train_epochs=2.0, **options_without_saving, **flags).iterdir())
        return sorted(name for name in names if name.startswith("checkpoint-"))

    options_without_saving = {"save_steps": TrainArguments.save_steps}
    assert steps(save_strategy="epoch") == ["checkpoint-2", "checkpoint-4"]
    assert steps(save_strategy="no") == []


def test_warmup_as_a_share_of_the_steps(trained):
    by_share, by_steps = weights(trained(warmup_ratio=0.5)), weights(trained(warmup_steps=1))
    assert all(torch.equal(by_share[key], by_steps[key]) for key in by_steps)


def test_projector_only_leaves_lora_without_effect(trained):
    tensors = weights(trained(projector_only=True))
    assert not any(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)
    plain = weights(trained(mm_projector_lr=1e-9, projector_only=True))
    assert any(not torch.equal(tensors[name], plain[name]) for name in tensors if "projector" in name)


def test_the_longest_sequence_and_prompt_that_are_allowed(trained):
    # 4 image tokens; the prompt without its image and the longest answer with its end token are measured here.
    with pytest.raises(PerpoError) as caught:
        trained(max_prompt_length=1)
    prompt = int(caught.value.message.split(" has ")[1].split()[0])
    assert f"has {prompt} tokens, more than --max_prompt_length 1" in caught.value.message
    with pytest.raises(PerpoError) as caught:
        trained(max_length=1)
    assert f"image (4 tokens), prompt ({prompt})" in caught.value.message
    assert "exceed --max_length of 1 tokens" in caught.value.message
    longest = int(caught.value.message.split("answer (")[1].split(")")[0])
    trained(max_prompt_length=prompt, max_length=4 + prompt + longest)
    for too_short in ({"max_prompt_length": prompt - 1}, {"max_length": 4 + prompt + longest - 1}):
        with pytest.raises(PerpoError, match="record 1"):
            trained(**too_short)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_tf32_is_refused_where_nothing_could_use_it(trained):
    with pytest.raises(PerpoError, match="--tf32 needs an NVIDIA GPU"):
        trained(tf32=True)


def test_models_from_the_hub_lie_in_the_folder_that_was_given(trained, small_model, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE)
    monkeypatch.setenv("HF_HUB_CACHE", constants.HF_HUB_CACHE)
    repository = tmp_path / "models--owner--small"
    shutil.copytree(small_model, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    found, plain = (weights(trained(**flags)) for flags in ({"model": "owner/small", "cache_dir": str(tmp_path)}, {}))
    assert all(torch.equal(found[key], plain[key]) for key in plain)


def test_logging_steps(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps in (1, 2):
        accumulator = EventAccumulator(str(trained(logging_steps=steps) / "tensorboard")).Reload()
        assert [event.step for event in accumulator.Scalars("train/loss")] == list(range(steps, 3, steps))


def test_workers_load_the_images_also_where_they_are_begun_anew(trained, monkeypatch):
    """As on macOS, and by default since Python 3.14: they are handed the data set, which has to hold no model."""
    counts = []
    original = DataLoader.__init__

    def spy(self, *args, **kwargs):
        counts.append(kwargs.get("num_workers"))
        original(self, *args, **kwargs)

    monkeypatch.setattr(DataLoader, "__init__", spy)
    plain = trained(gradient_checkpointing=True)
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        other = trained(gradient_checkpointing=True, dataloader_num_workers=1)
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert 1 in counts
    for one, two in zip(read_log(plain), read_log(other), strict=True):
        assert one.get("loss") == two.get("loss")
    assert all(torch.equal(value, weights(other)[key]) for key, value in weights(plain).items())


def test_truncated_answers_are_left_out_by_default(trained):
    counts = read_record(trained())["data"]["counts"]
    assert counts == {"records": 4, "candidates_left_out_truncated": 1, "lists": 4, "candidates": 15}
    assert read_record(trained(keep_truncated=True))["data"]["counts"]["candidates"] == 16


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "dpo", "gamma": 0.5}, "--gamma has no effect with --method dpo"),
        ({"method": "sft", "beta": 0.1}, "--beta has no effect with --method sft"),
        ({"method": "rft", "reference": "start"}, "--reference has no effect with --method rft"),
        ({"method": "sft", "num_candidates": 3}, "--num_candidates has no effect with --method sft"),
        ({"method": "sft", "keep_truncated": True}, "--keep_truncated has no effect with --method sft"),
        ({"method": "perpo", "lora_dropout": 0.05}, "--lora_dropout has no effect with --method perpo"),
        ({"num_candidates": 1}, "--num_candidates 1 leaves nothing to compare"),
        ({"lr_scheduler_type": "constant", "warmup_steps": 3}, "--lr_scheduler_type constant has no warm-up"),
        ({"schedule_part": "3/2"}, "--schedule_part expects K/N"),
        ({"schedule_part": "half"}, "--schedule_part expects K/N"),
        ({"beta": 0.0}, "--beta must be above 0, got 0.0"),
        ({"gamma": -1.0}, "--gamma must be at least 0, got -1.0"),
        ({"lora_dropout": 1.0, "method": "sft"}, "--lora_dropout must be at least 0 and below 1, got 1.0"),
        ({"warmup_ratio": 1.0}, "--warmup_ratio must be at least 0 and below 1, got 1.0"),
        ({"warmup_ratio": 0.1, "warmup_steps": 1}, "--warmup_steps and --warmup_ratio both set the warm-up"),
        ({"warmup_ratio": 0.1, "lr_scheduler_type": "constant"}, "--lr_scheduler_type constant has no warm-up"),
        ({"save_strategy": "no", "save_steps": 5}, "--save_steps has no effect with --save_strategy no"),
        ({"projector_only": True, "mm_projector_lr": 0.0}, "trains nothing"),
        ({"max_steps": 0}, "--max_steps 0 trains nothing"),
        ({"per_device_train_batch_size": 0}, "--per_device_train_batch_size must be at least 1"),
        ({"num_train_epochs": 0.0}, "--num_train_epochs must be above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(given, message):
    with pytest.raises(PerpoError) as caught:
        TrainArguments(data="data", output_dir="out", **given)
    assert message in caught.value.message
    assert caught.value.hint


def test_parts_of_a_schedule():
    assert TrainArguments(data="", output_dir="", schedule_part="2/6").part == (2, 6)
    assert math.prod(TrainArguments(data="", output_dir="").part) == 1
