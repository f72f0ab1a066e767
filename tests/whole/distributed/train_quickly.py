"""perpo-train without the minute in which DeepSpeed compiles its communication through shared memory.

With --dump_weights True each process also writes what it has trained, to OUTPUT_DIR-rankN.pt. With --terminate K the
last process sends itself SIGTERM as its K-th optimizer step ends.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

if "--deepspeed" in sys.argv:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    vars(import_module("deepspeed.comm.torch"))["build_shm_op"] = lambda: None

from perpo.cli.train import main

words = sys.argv[1:]
if "--dump_weights" in words:
    place = words.index("--dump_weights")
    del words[place : place + 2]
    import torch

    from perpo.train.trainer import PreferenceTrainer

    save_model = PreferenceTrainer.save_model

    def dump(self: PreferenceTrainer, *args: object, **kwargs: object) -> None:
        save_model(self, *args, **kwargs)  # type: ignore[arg-type]
        trained = {name: each for name, each in self.model.named_parameters() if each.requires_grad}
        if self.is_deepspeed_enabled:
            import deepspeed

            with deepspeed.zero.GatheredParameters(list(trained.values())):
                trained = {name: each.detach().clone() for name, each in trained.items()}
        torch.save(trained, f"{self.arguments.output_dir}-rank{self.args.process_index}.pt")

    PreferenceTrainer.save_model = dump  # type: ignore[method-assign]

if "--terminate" in words:
    place = words.index("--terminate")
    step = int(words[place + 1])
    del words[place : place + 2]
    import signal

    from perpo.train.callbacks import Log

    def end_step(self: Log, args: object, state: Any, control: object, **kwargs: object) -> None:
        if state.global_step == step and not state.is_world_process_zero:
            os.kill(os.getpid(), signal.SIGTERM)

    Log.on_step_end = end_step  # type: ignore[method-assign,assignment]

sys.exit(main(words))
