"""Rounds in one process, on one copy of the base, end with the bytes that programs by themselves write."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from perpo.common.arguments import command_line
from perpo.models import loading
from perpo.records.store import find_runs
from perpo_eval.cli.run import main
from perpo_eval.recipes.arguments import evaluate_arguments, sample_arguments, train_arguments
from perpo_eval.recipes.reading import read_recipe

PERPO = {"data": "exact", "rounds": 2, "train": {"method": "perpo"}}
RECIPE = {
    "name": "rounds",
    "data": {"exact": {"tiny": {"images": 8}}},
    "sample": {"num_candidates": 4, "max_new_tokens": 12, "batch_size": 8},
    "train": {"lora_r": 4, "lora_alpha": 8, "learning_rate": 1e-3, "mm_projector_lr": 1e-3, "save_steps": 0},
    "evaluate": {"data": "tiny", "tasks": ["refshapes_val"], "limit": 6},
    "experiments": {"base": {}, "perpo": PERPO},
}
NOT_SAME = {"training.json", "log.jsonl", "README.md", "stage.json", "tensorboard", "probe.parquet"}
"""Of a training's files those that say when and where it was run."""


def program(module: str, arguments: Any) -> None:
    """Run a program by itself."""
    words = shlex.split(command_line(module, arguments))[1:]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", module, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def answers(output: Path, name: str) -> list[dict[str, Any]]:
    """The stored samples of the run of that name."""
    (run,) = (run for run in find_runs(output)[0] if run.record.name == name)
    return pq.read_table(run.path / "samples.parquet").drop_columns("latency_ms").to_pylist()


@pytest.mark.timeout(1800)
def test_rounds_in_one_process_are_those_of_programs_by_themselves(tmp_path, monkeypatch):
    """With a projector that is trained, and a reference that is computed with the adapter of the round before."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    read, plain = [], loading._base_model

    def counted(*given: Any) -> Any:
        read.append(given)
        return plain(*given)

    monkeypatch.setattr(loading, "_base_model", counted)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one, many = tmp_path / "one", tmp_path / "many"
    assert main([str(tmp_path / "recipe.yaml"), "--output_dir", str(one)]) == 0
    assert len(read) == 1

    recipe = read_recipe(tmp_path / "recipe.yaml")
    experiment, adapter = recipe.experiments["perpo"], None
    for part in (1, 2):
        place = f"perpo/round-{part}"
        asked, preferences = many / place / "sample/questions.jsonl", many / place / "sample/preferences.jsonl"
        asked.parent.mkdir(parents=True)
        shutil.copy(one / place / "sample/questions.jsonl", asked)
        images = one / "data/exact"
        program("perpo.cli.sample", sample_arguments(recipe, experiment, asked, images, preferences, adapter, part))
        assert preferences.read_bytes() == (one / place / "sample/preferences.jsonl").read_bytes()
        folder = many / place / "adapter"
        program("perpo.cli.train", train_arguments(recipe, experiment, preferences, images, folder, adapter, part))
        adapter = folder
        kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in NOT_SAME}
        assert "adapter_model.safetensors" in kept
        assert kept == {name: (one / place / "adapter" / name).read_bytes() for name in kept}
    for name, put_on in (("base", None), ("perpo", adapter)):
        program("perpo_eval.cli", evaluate_arguments(recipe, name, many / "results", put_on))
        assert answers(many / "results", name) == answers(one / "results", name)
