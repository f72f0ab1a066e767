"""The kinds of benchmark: how their rows are read, what is asked, and how an answer is scored."""

from __future__ import annotations

from perpo_eval.benchmarks.grounding import GROUNDING
from perpo_eval.benchmarks.llava_bench import LLAVA_BENCH
from perpo_eval.benchmarks.mmhal import MMHAL
from perpo_eval.benchmarks.ocr import OCR_PAGES
from perpo_eval.benchmarks.ocrbench_v2 import OCRBENCH_V2
from perpo_eval.benchmarks.olmocr_no_math import OLMOCR_NO_MATH
from perpo_eval.benchmarks.omnidocbench_simple import OMNIDOCBENCH_SIMPLE
from perpo_eval.benchmarks.pope import POPE

_ROWS = (GROUNDING, POPE, OCR_PAGES, OCRBENCH_V2, OLMOCR_NO_MATH, OMNIDOCBENCH_SIMPLE, LLAVA_BENCH, MMHAL)
BENCHMARKS = {benchmark.name: benchmark for benchmark in _ROWS}


def has_boxes(benchmark: str) -> bool:
    """Return whether answers to a benchmark are boxes; those to one that lmms-eval defines are its own affair."""
    return benchmark in BENCHMARKS and BENCHMARKS[benchmark].has_boxes
