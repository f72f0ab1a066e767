"""Runs training programs, each in a process of its own, from one that has done the imports.

Reads a line of JSON for each: {"words": what perpo-train is given, "kill": null or where the process
is killed}. Answers with {"code": its exit code, negative for a signal, "err": its stderr}.

Where it can be killed with SIGKILL: "step:K" after the optimizer's K-th step of this process; "save:K:NAME" within
the K-th checkpoint, when half of the file NAME is written; "seal:K" before the K-th manifest; "rename:K" before
the K-th time that a folder is renamed. With "term:K" it and its children are sent SIGTERM as the K-th loss is
computed, or for 0 as the model is loaded.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile

import torch

from perpo.cli.train import main
from perpo.common import files
from perpo.train import callbacks
from perpo.train import run as training
from perpo.train.trainer import PreferenceTrainer


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(where: str) -> None:
    """Make this process kill itself at a place."""
    place, _, rest = where.partition(":")
    count, _, name = rest.partition(":")
    seen = 0

    def at_last(*args, **kwargs):
        nonlocal seen
        seen += 1
        return seen == int(count)

    if place == "step":
        step = callbacks.ProgressBar.on_step_end
        callbacks.ProgressBar.on_step_end = lambda *a, **k: kill() if at_last() else step(*a, **k)
    elif place == "term":
        os.setpgrp()
        owner, name = (training, "load_policy") if count == "0" else (PreferenceTrainer, "_losses")
        count, work = str(max(int(count), 1)), getattr(owner, name)

        def terminated(*a):
            if at_last():
                os.killpg(0, signal.SIGTERM)
            return work(*a)

        setattr(owner, name, terminated)
    elif place == "rename":
        rename = os.rename
        files.os.rename = lambda *a: kill() if at_last() else rename(*a)
    elif place == "seal":
        seal = callbacks.seal
        callbacks.seal = lambda checkpoint: kill() if at_last() else seal(checkpoint)
    else:
        save = PreferenceTrainer._save_checkpoint

        def save_half(self, *args):
            save(self, *args)
            if at_last():
                folder = f"{self.args.output_dir}/checkpoint-{self.state.global_step}"
                os.truncate(f"{folder}/{name}", os.path.getsize(f"{folder}/{name}") // 2)
                kill()

        PreferenceTrainer._save_checkpoint = save_half


def run(job: dict) -> dict:
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if job["kill"]:
                arm(job["kill"])
            code = main(job["words"])
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        return {"code": os.waitstatus_to_exitcode(status), "err": said.read().decode()}


if __name__ == "__main__":
    torch.set_num_threads(1)  # threads of the parent would not be there after fork
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
