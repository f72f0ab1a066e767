"""Tell which of a job's processes this is. Needs no torch."""

import os


def is_first_process() -> bool:
    """Return whether this process is the one of those that torchrun started that speaks for all."""
    return os.environ.get("RANK", "0") == "0"
