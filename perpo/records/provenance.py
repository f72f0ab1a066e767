"""The provenance of a result: code, packages and machine. Needs no torch."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from perpo import __version__

PACKAGES = (
    "accelerate",
    "datasets",
    "jieba",
    "lmms-eval",
    "nltk",
    "numpy",
    "peft",
    "pillow",
    "rapidfuzz",
    "tokenizers",
    "torch",
    "transformers",
)
"""What changes numbers."""


def code_version() -> dict[str, Any]:
    """{version, commit, dirty} of this package; commit and dirty are None outside of a git checkout of it."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # an installed wheel may well lie inside somebody else's repository
        return {"version": __version__, "commit": None, "dirty": None}
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"version": __version__, "commit": commit, "dirty": None if changes is None else bool(changes)}


def package_versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the version of Python and those of the packages that are installed."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def hardware(device: str | None) -> dict[str, Any]:
    """{machine, cpus, device}; `cpus` counts those that this process may use; a device elsewhere is None."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"machine": platform.machine(), "cpus": cpus, "device": device}


def peak_memory(device: Any) -> int:
    """Return the most bytes that tensors took on a CUDA device, or on the CPU that this process was resident with."""
    if getattr(device, "type", None) == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * (1 if sys.platform == "darwin" else 1024)  # macOS counts bytes


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
