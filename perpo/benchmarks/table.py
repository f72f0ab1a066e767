"""The benchmarks that are known, one row each, in the order of the papers. No torch."""

from __future__ import annotations

from perpo.benchmarks.base import AnswerKind, BenchmarkInfo
from perpo.benchmarks.grounding import GROUNDING
from perpo.benchmarks.llava_bench import LLAVA_BENCH
from perpo.benchmarks.mmhal import MMHAL
from perpo.benchmarks.ocr import OCR_PAGES
from perpo.benchmarks.pope import POPE

INFO: dict[str, BenchmarkInfo] = {info.name: info for info in (GROUNDING, POPE, OCR_PAGES, LLAVA_BENCH, MMHAL)}
"""By name. A stored run may name another benchmark, of which nothing is known: ask with `get`, or as below."""


def answer_kind(benchmark: str) -> AnswerKind | None:
    """Return what an answer to a benchmark is; None for one that is not known."""
    return INFO[benchmark].answer if benchmark in INFO else None


def meaning(benchmark: str, metric: str) -> str:
    """Return what a metric of a benchmark says, as half a sentence; its name where that is not known."""
    return INFO[benchmark].meaning(metric) if benchmark in INFO else metric


def title(benchmark: str, metric: str) -> str:
    """Return what a metric of a benchmark is called; its name where that is not known."""
    return INFO[benchmark].title(metric) if benchmark in INFO else metric
