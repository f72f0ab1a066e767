"""perpo-train from data to adapter: what is used, what trains, what the reference is, resuming."""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import perpo.train.trainer
from perpo.cli.train import main
from perpo.errors import PerpoError
from perpo.losses import lipo_loss
from perpo.methods import METHODS, Method, best_and_worst
from perpo.models.loading import load_model
from perpo.models.logps import candidate_logps
from perpo.records.training_record import read_record
from perpo.train import run as training
from perpo.train.arguments import TrainArguments
from perpo.train.lists import Collator, ListDataset, choose, tokenize
from perpo.train.policy import load_policy
from perpo.train.resuming import last_checkpoint
from perpo.train.run import train

RECORDS = 6
QUESTION = "Please provide the bounding box coordinate of the region this sentence describes: it"


def box(generator):
    return "[" + ", ".join(f"{generator.random():.2f}" for _ in range(4)) + "]"


def make_records(root, *, records=RECORDS, candidates=4):
    """Preference records with noise for images, and lists of unequal length."""
    generator = random.Random(0)
    rows = []
    for number in range(records):
        name = f"{number}.png"
        noise = np.random.default_rng(number).integers(0, 256, (24, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / name)
        count = candidates - number % 2
        rows.append(
            {
                "image_path": name,
                "question": f"<image>\n{QUESTION}{' again' * number}",
                "answer": box(generator),
                "answers_gen": [box(generator) for _ in range(count)],
                "rewards": [round(generator.random(), 3) for _ in range(count)],
                "reward_name": "iou",
            }
        )
    return rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write(root / "records.jsonl", make_records(root))
    return root


@pytest.fixture
def options(data, small_model, tmp_path):
    """The arguments of a run of 3 steps."""
    return {
        "model": str(small_model),
        "data": str(data / "records.jsonl"),
        "image_root": str(data),
        "output_dir": str(tmp_path / "run"),
        "lora_r": 4,
        "lora_alpha": 8,
        "learning_rate": 1e-2,
        "mm_projector_lr": 1e-2,
        "save_steps": 0,
        "probe_lists": 0,
    }


def run(options, **changes):
    return train(TrainArguments(**(options | changes)))


def weights(directory):
    return load_file(Path(directory) / "adapter_model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def events(directory):
    accumulator = EventAccumulator(str(Path(directory) / "tensorboard"))
    accumulator.Reload()
    return {tag: [event.value for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def make_policy(args):
    """A policy and one batch of all its data, as the trainer sees them."""
    from perpo.data import read_preferences

    choices, _ = choose(args, read_preferences(args.data))
    torch.manual_seed(0)
    policy = load_policy(args)
    dataset = ListDataset(tokenize(policy.loaded, choices, args.image_root), policy.loaded)
    batch = Collator(policy.loaded.tokenizer.pad_token_id)([dataset[i] for i in range(len(dataset))])
    return policy, batch


@torch.no_grad()
def logps(model, batch):
    return candidate_logps(model, batch["packed"], batch["images"], candidates=batch["mask"].shape[1])


def shake(model):
    """Move everything that trains far from where it was."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_trains_and_writes_its_files(options, method):
    output = run(options, method=method)
    assert {path.name for path in output.iterdir()} >= {
        "adapter_model.safetensors",
        "adapter_config.json",
        "processor_config.json",
        "tokenizer.json",
        "training.json",
        "tensorboard",
    }
    record = read_record(output)
    assert record["status"] == "complete"
    assert record["steps"] == 3
    assert record["attention"] == "split"
    assert record["arguments"]["method"] == method
    assert load_model(options["model"], str(output)).adapter_sha256 == record["adapter_sha256"]
    logged = events(output)
    assert len(logged["train/loss"]) == 3
    ranking = {"train/pair_accuracy", "train/margin", "train/kl", "train/no_spread"}
    assert ranking & logged.keys() == (ranking if METHODS[method].ranks else set())


def test_a_new_method_is_a_row_a_loss_and_an_entry(options, tmp_path, monkeypatch):
    """Nothing else has to know it: its arguments, what is learnt, the loss and its scales, the log and the card."""

    def twice(policy, reference, rewards, *, beta, mask):
        return 2 * lipo_loss(policy, reference, rewards, beta=beta, mask=mask)

    row = Method(
        "both", "Both", ("beta",), picks=best_and_worst, ranks=True, described="twice ({paper})", paper="1", colour=0
    )
    monkeypatch.setitem(METHODS, row.name, row)
    monkeypatch.setitem(perpo.train.trainer.LOSSES, row.name, partial(perpo.train.trainer.of_candidates, twice))
    losses = [
        events(run(options, method=name, beta=1.0, output_dir=str(tmp_path / name)))["train/loss"]
        for name in ("dpo", "both")
    ]
    assert losses[1][0] == pytest.approx(2 * losses[0][0])
    assert "- Method: twice ([arXiv 1](https://arxiv.org/abs/1)).\n" in (tmp_path / "both" / "README.md").read_text()
    with pytest.raises(PerpoError, match="--gamma has no effect with --method both"):
        run(options, method="both", gamma=0.5)


def test_the_first_loss_is_log_2_and_training_lowers_it(options):
    """At the start policy and reference agree, so every pair's loss is log 2."""
    output = run(options, beta=1.0, num_train_epochs=12.0, per_device_train_batch_size=RECORDS)
    losses = events(output)["train/loss"]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < 0.6 * losses[0]


def test_the_reference_keeps_the_original_projector(options, small_model):
    args = TrainArguments(**options)
    policy, batch = make_policy(args)
    expected = logps(load_model(str(small_model)).model, batch)
    shake(policy.model)
    trainable = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    moved = logps(policy.model, batch)
    with policy.as_reference():
        assert torch.equal(logps(policy.model, batch), expected)
    assert torch.equal(logps(policy.model, batch), moved)
    assert not torch.allclose(moved, expected, atol=0.1)
    assert {name for name, p in policy.model.named_parameters() if p.requires_grad} == trainable
    assert any("multi_modal_projector" in name for name in trainable)


def test_the_reference_of_a_continued_adapter_is_that_adapter(options, tmp_path):
    start = str(run(options, output_dir=str(tmp_path / "start")))
    args = TrainArguments(**(options | {"adapter": start, "mm_projector_lr": 0.0}))
    policy, batch = make_policy(args)
    expected = logps(load_model(options["model"], start).model, batch)
    torch.testing.assert_close(logps(policy.model, batch), expected)
    shake(policy.model)
    with policy.as_reference():
        torch.testing.assert_close(logps(policy.model, batch), expected)
    assert not torch.allclose(logps(policy.model, batch), expected, atol=0.1)
    trainable = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    assert trainable
    assert all(".lora_" in name and ".default." in name for name in trainable)


def test_a_continued_run_starts_at_its_adapter_and_saves_only_its_own(options, tmp_path):
    start = run(options, output_dir=str(tmp_path / "start"))
    output = run(options, adapter=str(start), learning_rate=1e-12, mm_projector_lr=1e-12)
    before, after = weights(start), weights(output)
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(after[name], before[name])
    assert not (output / "reference").exists()


def test_dropout_is_off_in_preference_training(options, small_model, tmp_path):
    model = shutil.copytree(small_model, tmp_path / "dropping")
    config = json.loads((model / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        config[part]["attention_dropout"] = 0.9
    (model / "config.json").write_text(json.dumps(config))
    policy, batch = make_policy(TrainArguments(**(options | {"model": str(model)})))
    quiet = logps(policy.model.eval(), batch)
    assert torch.equal(logps(policy.model.train(), batch), quiet)
    policy, batch = make_policy(TrainArguments(**(options | {"model": str(model), "method": "rft"})))
    assert not torch.equal(logps(policy.model.train(), batch), logps(policy.model.eval(), batch))


def test_the_vision_tower_sees_each_image_once_for_policy_and_reference(options, monkeypatch):
    seen = []

    def counting(args):
        policy = load_policy(args)
        policy._vision_tower.embeddings.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        return policy

    monkeypatch.setattr("perpo.train.run.load_policy", counting)
    run(options)
    assert seen == [2, 2, 2]  # 6 images of lists with 3 and 4 candidates, in batches of 2


def test_after_a_batch_the_vision_tower_is_as_it_was(options):
    policy, batch = make_policy(TrainArguments(**options))
    tower = policy._vision_tower
    with policy.encode_images_once():
        logps(policy.model, batch)
        assert "forward" in vars(tower)
    assert "forward" not in vars(tower)
    assert tower.forward.__func__ is type(tower).forward


@pytest.mark.parametrize(
    ("environment", "gpus", "device"),
    [({"LOCAL_RANK": "3"}, True, "cuda:3"), ({"LOCAL_RANK": "3"}, False, None), ({}, True, None)],
)
def test_each_process_of_torchrun_loads_to_its_own_gpu(options, monkeypatch, environment, gpus, device):
    class LoadedTo(Exception):
        pass

    def load(*args, device, **kwargs):
        raise LoadedTo(device)

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    monkeypatch.setattr("perpo.train.policy.load_model", load)
    with pytest.raises(LoadedTo) as caught:
        load_policy(TrainArguments(**options))
    assert caught.value.args == (device,)


def test_recorded_log_probs_replace_the_reference_pass(options, data, tmp_path, monkeypatch):
    """Those of the starting policy give the weights that computing them gives; one that is missing is left out."""
    start = run(options, output_dir=str(tmp_path / "start"))
    options |= {"adapter": str(start), "beta": 1.0}
    computed = weights(run(options, output_dir=str(tmp_path / "computed")))

    policy, batch = make_policy(TrainArguments(**options))
    digests = {"weights_sha256": policy.loaded.weights_sha256, "adapter_sha256": policy.loaded.adapter_sha256}
    rows = make_records(data)
    for row, values in zip(rows, logps(policy.model, batch).tolist(), strict=True):
        row |= {"sampling": digests | {"dtype": "float32"}, "reference_logps": values[: len(row["rewards"])]}
    passes = []
    monkeypatch.setattr(
        "perpo.train.trainer.candidate_logps",
        lambda *args, **kwargs: passes.append(1) or candidate_logps(*args, **kwargs),
    )
    options |= {"reference": "recorded", "data": write(tmp_path / "recorded.jsonl", rows)}
    recorded = weights(run(options, output_dir=str(tmp_path / "recorded")))
    assert len(passes) == 3  # one per step
    for name, value in computed.items():
        torch.testing.assert_close(recorded[name], value, atol=1e-3, rtol=1e-3)

    rows[0]["reference_logps"][1] = None
    options["data"] = write(tmp_path / "holes.jsonl", rows)
    counts = read_record(run(options))["data"]["counts"]
    assert counts["candidates_left_out_no_recorded_reference"] == 1


@pytest.mark.parametrize(("dtype", "bf16"), [("float32", True), ("bfloat16", False)])
def test_log_probs_that_were_recorded_in_another_precision_are_refused(options, data, tmp_path, dtype, bf16):
    loaded = load_model(options["model"])
    rows = make_records(data)
    for row in rows:
        row["sampling"] = {"weights_sha256": loaded.weights_sha256, "adapter_sha256": None, "dtype": dtype}
        row["reference_logps"] = [-1.0] * len(row["rewards"])
    options |= {"reference": "recorded", "data": write(tmp_path / "recorded.jsonl", rows)}
    with pytest.raises(PerpoError, match=f"record 1 was sampled in {dtype}, and training computes in ") as caught:
        run(options, bf16=bf16)
    assert "--bf16" in caught.value.hint


@pytest.mark.parametrize("method", ["perpo", "sft"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(options, tmp_path, method):
    dropout = {"lora_dropout": 0.3} if method == "sft" else {}
    options |= {"method": method, "save_steps": 2, "save_total_limit": None, "num_train_epochs": 2.0, **dropout}
    whole = run(options)
    for name in ("checkpoint-2", "checkpoint-4"):  # in the middle of an epoch of 3 steps
        cut = tmp_path / name
        shutil.copytree(whole / name, cut / name)
        record = read_record(whole) | {"status": "running"}
        (cut / "training.json").write_text(json.dumps(record))
        resumed = run(options, output_dir=str(cut), resume_from_checkpoint="last")
        assert same(weights(resumed), weights(whole))
        assert read_record(resumed)["steps"] == 6
    elsewhere = run(options, output_dir=str(tmp_path / "other"), resume_from_checkpoint=str(whole / "checkpoint-4"))
    assert same(weights(elsewhere), weights(whole))


def test_kill_in_the_middle_and_resume(options, tmp_path, capsys):
    options |= {"save_steps": 1, "num_train_epochs": 10.0}
    whole = run(options, output_dir=str(tmp_path / "whole"))
    words = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "perpo.cli.train", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while last_checkpoint(options["output_dir"]) is None:
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert read_record(options["output_dir"])["status"] == "running"

    assert main(words) == 2
    assert "--resume_from_checkpoint last" in capsys.readouterr().err
    assert main([*words, "--resume_from_checkpoint=last"]) == 0
    assert capsys.readouterr().out == options["output_dir"] + "\n"
    assert same(weights(options["output_dir"]), weights(whole))


def test_a_checkpoint_that_was_cut_off_while_written_is_passed_over(options):
    output = run(options, save_steps=1)
    (output / "checkpoint-3" / "trainer_state.json").write_text('{"global_step": 3')
    (output / "checkpoint-10").mkdir()
    assert last_checkpoint(output) == output / "checkpoint-2"


def test_a_finished_run_is_neither_repeated_nor_overwritten(options, capsys):
    output = run(options)
    before = (output / "training.json").read_bytes()
    assert run(options, resume_from_checkpoint="last") == output
    assert (output / "training.json").read_bytes() == before
    assert main([f"--{name}={value}" for name, value in options.items()]) == 2
    assert "holds a finished training" in capsys.readouterr().err


def test_resuming_with_other_arguments_or_data_is_refused(options, data, tmp_path, capsys):
    run(options)
    changed = write(tmp_path / "changed.jsonl", make_records(data, candidates=5))
    for change, message in (
        ({"learning_rate": 2e-2}, "started with learning_rate 0.01, not 0.02"),
        ({"data": changed}, "the data has changed"),
    ):
        words = [f"--{name}={value}" for name, value in (options | change).items()]
        assert main([*words, "--resume_from_checkpoint=last"]) == 2
        assert message in capsys.readouterr().err


def test_nothing_is_left_behind_in_the_process(options, tmp_path, monkeypatch):
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    with monkeypatch.context() as patch:  # as on a GPU, where bfloat16 is the default
        patch.setattr(training, "chosen_dtype", lambda dtype, device: dtype or "bfloat16")
        record = read_record(run(options))
    assert (record["precision"], record["arguments"]["bf16"]) == ("bfloat16", True)
    run(options, output_dir=str(tmp_path / "second"))
    found = torch.rand(1).item(), random.random(), np.random.random()
    torch.manual_seed(5)
    assert found == (torch.rand(1).item(), random.Random(5).random(), np.random.RandomState(5).random())


def test_a_part_of_a_schedule_goes_on_where_the_one_before_it_ended(options, tmp_path):
    rates = []
    for part in ("1/2", "2/2"):
        output = run(options, schedule_part=part, output_dir=str(tmp_path / part[0]), warmup_steps=2)
        rates += events(output)["train/learning_rate"]
    expected = [min(t / 2, 0.5 * (1 + math.cos(math.pi * (t - 2) / 4))) for t in range(6)]
    assert rates == pytest.approx([1e-2 * factor for factor in expected], abs=1e-8)


def test_accumulated_gradients_are_those_of_one_batch(options, tmp_path):
    options |= {"num_train_epochs": 2.0, "per_device_train_batch_size": 4}
    one = run(options, output_dir=str(tmp_path / "one"))  # steps of 4 and of 2 records
    many = run(options, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    assert read_record(one)["steps"] == read_record(many)["steps"] == 4
    assert events(one)["train/loss"] == pytest.approx(events(many)["train/loss"], abs=1e-5)
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(many)[name], value, atol=2e-4, rtol=1e-3)
