"""Two processes end with the weights of one that sees the same lists per optimizer step."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from perpo.records.training_record import read_record


def weights(directory):
    return load_file(directory / "adapter_model.safetensors")


def difference(one, other):
    """The largest difference of any weight."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def alone(launch):
    """One process, four lists a step: the last step of an epoch has three."""
    return launch("alone", per_device_train_batch_size=4)


@pytest.mark.parametrize(
    "mode",
    [
        "ddp",
        "zero3",
        pytest.param("zero2", marks=pytest.mark.slow),
        pytest.param("zero2_offload", marks=pytest.mark.slow),
        pytest.param("zero3_offload", marks=pytest.mark.slow),
    ],
)
def test_two_processes_end_with_the_weights_of_one(launch, alone, mode):
    options = {} if mode == "ddp" else {"deepspeed": mode}
    output = launch(mode, processes=2, per_device_train_batch_size=2, **options)
    found = difference(weights(output), weights(alone))
    print(f"\n{mode}: largest difference of a weight {found:.1e}")
    assert found < 1e-5
    record, expected = read_record(output), read_record(alone)
    assert record["steps"] == expected["steps"] == 6
    for name, value in expected["last_log"].items():
        assert record["last_log"][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    assert launch.stdout == f"{output}\n"


@pytest.mark.parametrize("mode", ["ddp", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("zero2", "zero3"))])
def test_two_processes_whose_batches_take_unequal_numbers_of_passes(launch, alone, mode):
    """Lists of three or four answers and longer and longer prompts, one or two answers a pass."""
    options = {} if mode == "ddp" else {"deepspeed": mode}
    output = launch(f"{mode}-passes", processes=2, per_device_train_batch_size=2, max_tokens_per_pass=80, **options)
    assert difference(weights(output), weights(alone)) < 1e-5
    assert read_record(output)["last_log"]["loss"] == pytest.approx(read_record(alone)["last_log"]["loss"], rel=1e-3)
