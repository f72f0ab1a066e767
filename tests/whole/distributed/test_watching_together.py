"""Validation, probe, best adapter and whole checkpoints of two processes are as one has them, and nobody waits."""

from __future__ import annotations

import json
import os

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from perpo.models.loading import load_model
from perpo.records.training_record import read_log, read_record
from perpo.train.resuming import damage, last_checkpoint

WATCHED = {"eval_steps": 4, "eval_reward": "edit", "eval_max_new_tokens": 6, "save_steps": 2}


@pytest.fixture(scope="module")
def held_out(world):
    """Questions that two processes share unevenly, and whose answers end after different numbers of tokens."""
    rows = [json.loads(line) for line in (world / "records.jsonl").read_text().splitlines()][:5]
    (world / "held-out.jsonl").write_text("".join(json.dumps(row | {"answer": "a" + 2 * ":"}) + "\n" for row in rows))
    return world / "held-out.jsonl"


@pytest.fixture(scope="module")
def alone(launch, held_out):
    return launch("watched-alone", per_device_train_batch_size=4, eval_data=held_out, **WATCHED)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "zero3"])
def test_two_processes_see_what_one_sees(launch, world, held_out, alone, mode):
    options = WATCHED | ({} if mode == "ddp" else {"deepspeed": mode})
    output = launch(
        f"watched-{mode}",
        processes=2,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        eval_data=held_out,
        **options,
    )
    found, expected = read_record(output), read_record(alone)
    assert found["world_size"] == 2
    assert [score["step"] for score in found["validation"]["scores"]] == [0, 4, 6]
    for one, other in zip(found["validation"]["scores"], expected["validation"]["scores"], strict=True):
        assert one["reward"] == pytest.approx(other["reward"], abs=1e-6)
    assert found["validation"]["best"]["reward"] > 0
    best = read_record(output / "best")
    assert best["steps"] == found["validation"]["best"]["step"]
    load_model(str(world / "model"), str(output / "best"))
    ours, theirs = (pq.read_table(path / "probe.parquet").to_pydict() for path in (output, alone))
    for name in ("logp_before", "logp_after", "reference_logp"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-3)
    assert [entry["step"] for entry in read_log(output) if "loss" in entry] == [1, 2, 3, 4, 5, 6]

    checkpoint = last_checkpoint(output)
    assert checkpoint == output / "checkpoint-6"
    assert damage(output / "checkpoint-4") is None
    (output / "training.json").write_text(json.dumps(found | {"status": "running"}))
    torn = next(checkpoint.rglob("*optim_states.pt" if mode == "zero3" else "optimizer.pt"))
    os.truncate(torn, torn.stat().st_size // 2)
    whole = load_file(output / "adapter_model.safetensors")
    launch(
        f"watched-{mode}",
        processes=2,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        eval_data=held_out,
        resume_from_checkpoint="last",
        **options,
    )
    assert launch.stderr.count("warning: checkpoint-6 cannot be used: ") == 1
    again = load_file(output / "adapter_model.safetensors")
    for name, value in whole.items():
        assert float((again[name] - value).abs().max()) <= 1e-6, name
    assert read_record(output)["validation"] == found["validation"]
