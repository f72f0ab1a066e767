"""The embedded default: a small world of drawn shapes, its benchmarks, and a small LLaVA taught on it."""

from pathlib import Path


def checkpoint_dir() -> Path:
    """The folder of the embedded checkpoint (Hugging Face layout, safetensors)."""
    return Path(__file__).parent / "checkpoint"
