"""What the tests of training share: a model that runs in milliseconds."""

from __future__ import annotations

import gc
import json

import numpy as np
import pytest
from PIL import Image

from perpo.tiny.model import ModelShape, save_random_model

# 4 image tokens, one layer each, room for 128 tokens.
SHAPE = ModelShape(32, 16, 32, 1, -1, 32, 1, 128)


@pytest.fixture(scope="session", autouse=True)
def _frozen_imports():
    """Every run collects garbage once; walking all that was ever imported would take longer than the run."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """A checkpoint with random weights, as small as LLaVA gets."""
    return save_random_model(tmp_path_factory.mktemp("small"), SHAPE)


@pytest.fixture(scope="session")
def write_records():
    """Call it with a folder and rows: writes them as JSON lines, and an image of noise for each."""

    def write(folder, rows, name="records.jsonl"):
        lines = []
        for number, row in enumerate(rows):
            noise = np.random.default_rng(number).integers(0, 256, (24, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"{number}.png")
            lines.append(json.dumps({"image_path": f"{number}.png"} | row) + "\n")
        (folder / name).write_text("".join(lines))
        return str(folder / name)

    return write


@pytest.fixture(scope="session")
def small_run(small_model):
    """Arguments of a run whose few steps move the small model far."""
    return {
        "model": str(small_model),
        "lora_r": 4,
        "lora_alpha": 8,
        "learning_rate": 3e-2,
        "mm_projector_lr": 3e-2,
        "save_steps": 0,
    }
