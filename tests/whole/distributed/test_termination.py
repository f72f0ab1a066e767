"""SIGTERM to one of several processes: all end after the same step, and the training goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from perpo.errors import Terminated
from perpo.train.resuming import last_checkpoint
from perpo.train.termination import Termination


def steps_of(rank, folder):
    """Three steps of a process, the second of two processes being sent SIGTERM in its second; which it ended after."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    termination, args = Termination(), SimpleNamespace(device=torch.device("cpu"))
    with termination.heard():
        for step in range(1, 4):
            control = SimpleNamespace(should_save=False, should_training_stop=False)
            termination.on_step_begin(args, None, control)
            if (rank, step) == (1, 2):
                os.kill(os.getpid(), signal.SIGTERM)
            termination.on_step_end(args, None, control)
            assert control.should_save == control.should_training_stop
            try:
                if control.should_save:
                    termination.on_save(args, None, control)
            except Terminated:
                return step
    return 0


@pytest.mark.timeout(60)
def test_all_processes_agree_on_the_step_that_they_end_after(tmp_path):
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            os._exit(steps_of(rank, tmp_path))
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [2, 2]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "zero3"])
def test_a_training_of_two_processes_goes_on_to_the_same_weights(launch, mode):
    options = {"processes": 2, "per_device_train_batch_size": 2} | ({} if mode == "ddp" else {"deepspeed": mode})
    whole = launch(f"whole-{mode}", **options)
    cut = launch(f"cut-{mode}", expect=1, terminate=3, **options)
    assert last_checkpoint(cut).name == "checkpoint-3"
    assert launch.stderr.count("terminated; run the same command with --resume_from_checkpoint last") == 2
    launch(f"cut-{mode}", resume_from_checkpoint="last", **options)
    ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (cut, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
