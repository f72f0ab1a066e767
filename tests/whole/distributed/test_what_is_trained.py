"""Two processes against one, whatever is trained: whole models, continued adapters, supervised, resumed."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from perpo.records.training_record import read_record

pytestmark = pytest.mark.slow
# The defaults again, which a whole model has no use for.
FULL = {"lora_enable": False, "lora_r": 128, "lora_alpha": 256}
MODES = ["ddp", "zero2", "zero3"]


def weights(directory):
    adapter = directory / "adapter_model.safetensors"
    return load_file(adapter if adapter.exists() else directory / "model.safetensors")


def difference(one, other):
    """The largest difference of any weight."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def compare(launch):
    """The largest difference of a run of one process, four lists a step, and one of two with two lists each."""

    def run(name, mode, *, alone=None, **options):
        alone, zero = alone or {}, {} if mode == "ddp" else {"deepspeed": mode}
        of_one = {"per_device_train_batch_size": 4, "resume_from_checkpoint": "last"} | options | alone
        of_two = {"per_device_train_batch_size": 2} | options | zero
        one, two = launch(f"{name}-alone", **of_one), launch(f"{name}-{mode}", processes=2, **of_two)
        found = difference(weights(two), weights(one))
        print(f"\n{name}, {mode}: largest difference of a weight {found:.1e}")
        return found

    return run


@pytest.mark.parametrize("mode", [*MODES, "zero3_offload"])
def test_a_whole_model(compare, mode):
    # Adam divides by the gradient's own size: where that is 0 but for rounding, so is the step's direction
    assert compare("full", mode, **FULL) < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_a_continued_adapter_with_the_first_one_as_reference(launch, compare, mode):
    start = launch("start", per_device_train_batch_size=4, resume_from_checkpoint="last")
    assert compare("continued", mode, adapter=start) < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_supervised_with_gradient_accumulation(compare, mode):
    """Seven answers by two processes, two batches of one each to a step: the last step has three of four."""
    options = {"method": "rft", "gradient_accumulation_steps": 2}
    assert (
        compare("rft", mode, per_device_train_batch_size=1, alone={"per_device_train_batch_size": 2}, **options) < 1e-5
    )


@pytest.mark.parametrize("mode", MODES)
def test_bfloat16_with_gradient_checkpointing(launch, mode):
    """Adam's steps are of the rate's size, so six of them that begin in another direction end that far apart."""
    options = {} if mode == "ddp" else {"deepspeed": mode}
    plain = launch("half-alone", per_device_train_batch_size=4, bf16=True, resume_from_checkpoint="last")
    output = launch(
        f"half-{mode}", processes=2, per_device_train_batch_size=2, bf16=True, gradient_checkpointing=True, **options
    )
    found, expected = weights(output), weights(plain)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert difference(found, expected) < 6e-3
    logged, one = read_record(output)["last_log"], read_record(plain)["last_log"]
    assert logged["loss"] == pytest.approx(one["loss"], abs=2e-2)


def test_gradient_checkpointing_with_zero3(compare):
    assert compare("recomputed", "zero3", gradient_checkpointing=True) < 1e-5


@pytest.mark.parametrize(("mode", "options"), [("zero2", {}), ("zero3", FULL), ("ddp", FULL)])
def test_a_run_that_was_cut_goes_on_to_the_same_weights(launch, mode, options):
    """In the middle of its second epoch, whose order of the lists is another than the first one's."""
    options = options | {"save_steps": 3} | ({} if mode == "ddp" else {"deepspeed": mode})
    whole = launch(f"whole-{mode}", processes=2, per_device_train_batch_size=2, **options)
    cut = whole.with_name(f"cut-{mode}")
    shutil.copytree(whole / "checkpoint-3", cut / "checkpoint-3")
    (cut / "training.json").write_text(json.dumps(read_record(whole) | {"status": "running"}))
    launch(cut.name, processes=2, per_device_train_batch_size=2, resume_from_checkpoint="last", **options)
    assert difference(weights(cut), weights(whole)) <= 1e-6
    assert read_record(cut)["steps"] == 6


@pytest.mark.parametrize("mode", ["zero2", "zero3"])
def test_deepspeed_without_a_launcher_is_one_process(launch, mode):
    plain = launch("plain", per_device_train_batch_size=4, resume_from_checkpoint="last")
    output = launch(f"single-{mode}", per_device_train_batch_size=4, deepspeed=mode)
    assert difference(weights(output), weights(plain)) < 1e-5


@pytest.mark.parametrize("mode", ["ddp", "zero3"])
def test_references_that_two_processes_kept_serve_one(launch, world, mode):
    """Each computes its share; the first one writes all."""
    data = world / f"{mode}.jsonl"
    shutil.copy(world / "records.jsonl", data)
    options = {"data": data, "precompute_reference": True}
    zero = {} if mode == "ddp" else {"deepspeed": mode}
    two = launch(f"kept-{mode}", processes=2, per_device_train_batch_size=2, **options, **zero)
    (path,) = world.glob(f"{data.name}.reference-*.jsonl")
    content = path.read_bytes()
    assert len(content.splitlines()) == 1 + 7
    one = launch(f"kept-{mode}-alone", per_device_train_batch_size=4, **options)
    assert path.read_bytes() == content
    assert difference(weights(two), weights(one)) < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_all_processes_have_the_same_weights_and_one_writes(launch, world, mode):
    options = {} if mode == "ddp" else {"deepspeed": mode}
    output = launch(f"same-{mode}", processes=2, per_device_train_batch_size=2, dump_weights=True, **options)
    first, second = (torch.load(output.with_name(f"{output.name}-rank{rank}.pt")) for rank in (0, 1))
    assert first
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(list((output / "tensorboard").iterdir())) == 1
    assert launch.stdout == f"{output}\n"
    assert launch.stderr.count("7 of 7 records") == 1
