"""A loss or a gradient that is not finite ends the run before anything is learnt from it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

import perpo.train.trainer
from perpo.cli.train import main
from perpo.records.training_record import read_record
from perpo.train.callbacks import FiniteGuard, NotFinite
from perpo.train.resuming import last_checkpoint


@pytest.fixture
def words(small_run, write_records, tmp_path):
    """A run of 4 steps of one record each."""
    answers = {"question": "?", "answer": "x", "answers_gen": ["left", "right"], "rewards": [0.1, 0.9]}
    flags = small_run | {
        "data": write_records(tmp_path, [{"image_id": 70 + number} | answers for number in range(4)]),
        "output_dir": tmp_path / "run",
        "per_device_train_batch_size": 1,
        "save_steps": 1,
    }
    return [f"--{name}={value}" for name, value in flags.items()]


def test_the_run_names_the_record_and_keeps_the_checkpoint_before(words, tmp_path, monkeypatch, capsys):
    """Weights of 1e30 after the first step: what the second makes of them overflows."""
    seen = []
    check = FiniteGuard.check_losses
    monkeypatch.setattr(FiniteGuard, "check_losses", lambda self, *a: seen.append(list(a[1])) or check(self, *a))
    assert main([*words, "--learning_rate=1e30", "--mm_projector_lr=1e30"]) == 3
    ((_,), (number,)) = seen
    said = f"the loss of record {number} (image_id {69 + number}) is not finite in step 2"
    said += "; the model was not updated in this step"
    assert (
        f"error: {said}\nhint: check these records and --learning_rate, then run the same command with "
        in capsys.readouterr().err
    )
    assert last_checkpoint(tmp_path / "run") == tmp_path / "run" / "checkpoint-1"
    record = read_record(tmp_path / "run")
    assert (record["status"], record["error"]) == ("failed", said)


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_no_step_is_taken(words, tmp_path, monkeypatch, bad):
    """sqrt(0 * x) has the value 0 and the gradient 0 / 0."""
    trainers = []
    first = perpo.train.trainer.LOSSES["perpo"]

    def loss(*args, **kwargs):
        good = first(*args, **kwargs)
        if trainers[0].state.global_step < 2:
            return good
        return good * torch.nan if bad == "loss" else good + (0 * good).sqrt()

    class Kept(perpo.train.trainer.PreferenceTrainer):
        def __init__(self, *args):
            super().__init__(*args)
            trainers.append(self)

    monkeypatch.setitem(perpo.train.trainer.LOSSES, "perpo", loss)
    monkeypatch.setattr("perpo.train.run.PreferenceTrainer", Kept)
    assert main(words) == 3
    saved = load_file(last_checkpoint(tmp_path / "run") / "adapter_model.safetensors")
    assert last_checkpoint(tmp_path / "run").name == "checkpoint-2"
    trainers[0].save_model(str(tmp_path / "now"))
    now = load_file(tmp_path / "now" / "adapter_model.safetensors")
    assert all(torch.equal(now[name], value) for name, value in saved.items())


def test_only_the_lists_whose_losses_are_not_finite_are_named():
    guard = FiniteGuard()
    guard.check_losses(torch.tensor([1.0, 0.0]), [3, 4])
    with pytest.raises(NotFinite) as caught:
        guard.check_losses(torch.tensor([1.0, torch.nan, -torch.inf, 2.0]), [5, 6, 7, 8])
    assert caught.value.numbers == [6, 7]
