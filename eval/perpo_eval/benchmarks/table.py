"""The kinds of benchmark: how their rows are read, what is asked, and how an answer is scored."""

from __future__ import annotations

from perpo_eval.benchmarks.grounding import GROUNDING
from perpo_eval.benchmarks.llava_bench import LLAVA_BENCH
from perpo_eval.benchmarks.mmhal import MMHAL
from perpo_eval.benchmarks.ocr import OCR_PAGES
from perpo_eval.benchmarks.pope import POPE

BENCHMARKS = {benchmark.name: benchmark for benchmark in (GROUNDING, POPE, OCR_PAGES, LLAVA_BENCH, MMHAL)}


def has_boxes(benchmark: str) -> bool:
    """Return whether answers to a benchmark are boxes; those to one that lmms-eval defines are its own affair."""
    return benchmark in BENCHMARKS and BENCHMARKS[benchmark].has_boxes
