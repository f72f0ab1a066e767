"""Real training processes that are really killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from perpo.tiny.model import ModelShape, save_random_model

STEPS = 6


@pytest.fixture(scope="session")
def runs():
    """Call it with the words of perpo-train, and where to kill it; gives exit code and stderr."""
    command = [sys.executable, str(Path(__file__).with_name("forks.py"))]
    quiet = os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet) as process:

        def run(words, kill=None):
            print(json.dumps({"words": words, "kill": kill}), file=process.stdin, flush=True)
            answer = json.loads(process.stdout.readline())
            return answer["code"], answer["err"]

        yield run
        process.stdin.close()


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A model that runs in milliseconds, and 3 records: with batches of 1 an epoch is 3 steps."""
    root = tmp_path_factory.mktemp("inputs")
    save_random_model(root / "model", ModelShape(32, 16, 32, 1, -1, 32, 1, 128))
    rows = []
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (24, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{number}.png")
        rows.append(
            {
                "image_path": f"{number}.png",
                "image_id": 100 + number,
                "question": "where?",
                "answer": "here",
                "answers_gen": ["left", "right", "above"],
                "rewards": [0.1 * number, 0.9, 0.4],
                "reward_name": "edit",
            }
        )
    (root / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture(scope="session")
def words(inputs):
    """The words of a run of 6 steps into a directory, with a checkpoint at every second."""

    def of(output, *more):
        flags = {
            "model": inputs / "model",
            "data": inputs / "records.jsonl",
            "output_dir": output,
            "lora_r": 2,
            "lora_alpha": 4,
            "learning_rate": 1e-2,
            "mm_projector_lr": 1e-2,
            "per_device_train_batch_size": 1,
            "max_steps": STEPS,
            "save_steps": 2,
        }
        return [*(f"--{name}={value}" for name, value in flags.items()), *more]

    return of


@pytest.fixture(scope="session")
def uninterrupted(runs, words, tmp_path_factory):
    """The weights that a run ends with."""
    output = tmp_path_factory.mktemp("whole") / "run"
    code, err = runs(words(output))
    assert code == 0, err
    return weights(output)


def weights(directory):
    return load_file(directory / "adapter_model.safetensors")


@pytest.fixture
def same_end(uninterrupted):
    """Says whether a run ended with the weights of the uninterrupted one, bit by bit."""

    def same(output):
        found = weights(output)
        return found.keys() == uninterrupted.keys() and all(
            np.array_equal(found[name], uninterrupted[name]) for name in found
        )

    return same
