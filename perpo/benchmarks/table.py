"""The benchmarks that are known, one row each, in the order of the papers. No torch."""

from __future__ import annotations

from perpo.benchmarks.base import AnswerKind, BenchmarkInfo
from perpo.benchmarks.grounding import GROUNDING
from perpo.benchmarks.llava_bench import LLAVA_BENCH
from perpo.benchmarks.mmhal import MMHAL
from perpo.benchmarks.ocr import OCR_PAGES
from perpo.benchmarks.ocrbench_v2 import OCRBENCH_V2
from perpo.benchmarks.olmocr_no_math import OLMOCR_NO_MATH
from perpo.benchmarks.omnidocbench_simple import OMNIDOCBENCH_SIMPLE
from perpo.benchmarks.pope import POPE
from perpo.errors import PerpoError

_ROWS = (GROUNDING, POPE, OCR_PAGES, OCRBENCH_V2, OLMOCR_NO_MATH, OMNIDOCBENCH_SIMPLE, LLAVA_BENCH, MMHAL)
INFO: dict[str, BenchmarkInfo] = {info.name: info for info in _ROWS}
"""By name. A stored run may name another benchmark, of which nothing is known: ask as below."""


def info_of(benchmark: str) -> BenchmarkInfo:
    """Return what is known of a benchmark.

    Raises:
        PerpoError: It is none that is known: a later perpo may have stored the run.
    """
    if benchmark not in INFO:
        raise PerpoError(
            f"the benchmark '{benchmark}' is not known to this perpo", "use the version of perpo that stored the run"
        )
    return INFO[benchmark]


def answer_kind(benchmark: str) -> AnswerKind | None:
    """Return what an answer to a benchmark is; None for one that is not known."""
    return INFO[benchmark].answer if benchmark in INFO else None


def meaning(benchmark: str, metric: str) -> str:
    """Return what a metric of a benchmark says, as half a sentence; its name where that is not known."""
    return INFO[benchmark].meaning(metric) if benchmark in INFO else metric


def title(benchmark: str, metric: str) -> str:
    """Return what a metric of a benchmark is called; its name where that is not known."""
    return INFO[benchmark].title(metric) if benchmark in INFO else metric
