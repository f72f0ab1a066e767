"""olmOCR-Bench without its files of mathematics: unit tests of pages."""

from __future__ import annotations

from perpo.benchmarks.base import BenchmarkInfo, Definition, Rule
from perpo.texts.unit_tests import TYPES

FILES = ("headers_footers", "long_tiny_text", "multi_column", "old_scans", "table_tests", "baseline")
"""The files of tests; "baseline" is the test that the official program adds for each PDF without one."""
MATH_FILES = ("arxiv_math", "old_scans_math")


def _rate(kind: str = "") -> Definition:
    suffix = f":{kind}" if kind else ""
    above, below = {f"passed{suffix}": 1.0}, {f"tests{suffix}": 1.0}
    return Definition(f"pass_rate{suffix}", kind or "tests passed", True, above, below)


OLMOCR_NO_MATH = BenchmarkInfo(
    name="olmocr_no_math",
    answer="open",
    metrics=(
        _rate(),
        Definition("page_share", "share of a page's tests"),
        *map(_rate, TYPES),
        Definition("truncated", "cut off", False),
    ),
    primary="pass_rate",
    shown=("pass_rate",),
    meanings={
        "pass_rate": "share of unit tests passed",
        "page_share": "share of the unit tests of a page that its text passes, averaged over pages",
        "truncated": "share of answers that were cut off, at the token limit or where they looped",
    },
    readings={kind: f"tests of the type {kind}" for kind in TYPES},
    right=Rule("all unit tests of the page passed", "page_share", 1.0, "page_share", "tests passed"),
    flip_scores=("page_share",),
    told_scores=("page_share",),
    suites=("ocr",),
    max_new_tokens=4096,
    board="Dense OCR",
    column_titles={
        ("olmocr_headers_footers", "pass_rate"): "olmOCR headers, footers",
        ("olmocr_long_tiny_text", "pass_rate"): "olmOCR long tiny text",
        ("olmocr_multi_column", "pass_rate"): "olmOCR multi column",
        ("olmocr_old_scans", "pass_rate"): "olmOCR old scans",
        ("olmocr_table_tests", "pass_rate"): "olmOCR tables",
        ("olmocr_baseline", "pass_rate"): "olmOCR base",
    },
    leading_tasks=("olmocr",),
    note=(
        "olmOCR-Bench without mathematics: the average is over at most six files of tests. Published averages have two "
        "files of mathematics more and cannot be compared with it; the numbers of single files can."
    ),
)
