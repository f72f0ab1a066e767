"""Runs of recipes in processes of their own, and what two of them must have in common."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

_PROGRAM = "import sys; from perpo_eval.cli.run import {0}; sys.exit({0}(sys.argv[1:]))"
_TIMES = {"run_id", "created_utc", "duration_s", "seconds", "peak_memory_bytes", "train_runtime"}
_TIMES |= {"train_samples_per_second", "train_steps_per_second", "samples", "record"}


def start(folder: Path, *words: str, program: str = "main", **options: Any) -> subprocess.Popen[str]:
    """Start a program of perpo_eval.cli.run in a folder, with one thread."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.format(program), *words], cwd=folder, env=environment, **options
    )


def results_of(output: Path) -> dict[str, Any]:
    """Return all that an output folder holds and that no clock decides, by the names of files."""
    kept: dict[str, Any] = {}
    for path in sorted(output.rglob("*")):
        name = str(path.relative_to(output))
        if path.is_dir() or "tfevents" in name or path.name == "leaderboard.md":
            continue
        if path.suffix == ".json":
            kept[_named(name, path)] = _untimed(json.loads(path.read_text()))
        elif path.name == "samples.parquet":
            kept[_named(name, path)] = pq.read_table(path).drop_columns("latency_ms").to_pylist()
        elif path.name == "log.jsonl":
            kept[name] = [_untimed(json.loads(line)) for line in path.read_text().splitlines()]
        else:
            kept[name] = path.read_bytes()
    return kept


def different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of what two outputs do not have in common."""
    return [name for name in sorted({*one, *other}) if name not in one or name not in other or one[name] != other[name]]


def _named(name: str, path: Path) -> str:
    """A run's files under the name of its experiment, for its folder is named by the time."""
    run = path.with_name("run.json")
    return f"{json.loads(run.read_text())['name']}: {path.name}" if run.is_file() else name


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _untimed(each) for name, each in value.items() if name not in _TIMES}
    return [_untimed(each) for each in value] if isinstance(value, list) else value
