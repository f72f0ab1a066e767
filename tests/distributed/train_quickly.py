"""perpo-train without the minute in which DeepSpeed compiles its communication through shared memory."""

from __future__ import annotations

import os
import sys
from importlib import import_module

if "--deepspeed" in sys.argv:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    vars(import_module("deepspeed.comm.torch"))["build_shm_op"] = lambda: None

from perpo.cli.train import main

sys.exit(main())
