"""Wall time and peak memory of a piece of work, for comparisons within one process."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class Cost(NamedTuple):
    """The cost of one piece of work.

    Attributes:
        seconds: Wall time.
        peak_mib: Most resident memory during the work above what was resident before it, in MiB.
    """

    seconds: float
    peak_mib: float


def cost(work: Callable[[], object]) -> Cost:
    """Run `work` once and measure it (Linux: the kernel's own high-water mark is reset before)."""
    gc.collect()
    # What earlier work freed is given back, lest it hide a later peak.
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text("5")
    before = resident_mib("VmRSS")
    start = time.perf_counter()
    work()
    return Cost(time.perf_counter() - start, resident_mib("VmHWM") - before)


def resident_mib(field: str) -> float:
    """Memory of this process in MiB: VmRSS, what is resident now, or VmHWM, the most that was."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
