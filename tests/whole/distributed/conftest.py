"""What the tests of several processes share: a model, lists of unequal lengths, and runs by torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpo.tiny.model import ModelShape, save_random_model

SCRIPT = Path(__file__).with_name("train_quickly.py")
LISTS = 7  # which neither two processes nor batches of two divide
OPTIONS = {
    "lora_r": 4,
    "lora_alpha": 8,
    "learning_rate": 1e-3,
    "mm_projector_lr": 5e-4,
    "num_train_epochs": 3,
    "save_steps": 0,
}


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder with a small model, seven lists of three or four answers to noise, and their images."""
    root = tmp_path_factory.mktemp("world")
    save_random_model(root / "model", ModelShape(32, 16, 32, 1, -1, 32, 1, 128))
    generator = np.random.default_rng(0)
    records = []
    for number in range(LISTS):
        Image.fromarray(generator.integers(0, 256, (24, 40, 3), dtype=np.uint8)).save(root / f"{number}.png")
        count = 4 - number % 2
        records.append(
            {
                "image_path": f"{number}.png",
                "question": "where is it?" + " here?" * number,
                "answer": "[0.10, 0.20, 0.30, 0.40]",
                "answers_gen": [str(box) for box in generator.integers(0, 100, (count, 4)).tolist()],
                "rewards": generator.random(count).round(3).tolist(),
                "reward_name": "iou",
            }
        )
    (root / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return root


@pytest.fixture(scope="session")
def launch(world):
    """Runs perpo-train by torchrun, or in one plain process; returns its output directory."""

    def run(name: str, *, processes: int = 1, expect: int = 0, **options) -> Path:
        values = OPTIONS | {"model": world / "model", "data": world / "records.jsonl", "output_dir": world / name}
        words = [word for key, value in (values | options).items() for word in (f"--{key}", str(value))]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *(launcher if processes > 1 else []), str(SCRIPT), *words]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert (done.returncode != 0) == (expect != 0), done.stderr
        run.stdout, run.stderr = done.stdout, done.stderr
        return world / name

    return run
