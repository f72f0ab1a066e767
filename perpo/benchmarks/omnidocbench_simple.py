"""OmniDocBench's text and reading order, blocks matched one to one: no tables, no formulas."""

from __future__ import annotations

from perpo.benchmarks.base import BenchmarkInfo, Definition, Rule

LANGUAGES = {"english": "English", "simplified_chinese": "Chinese", "en_ch_mixed": "both languages"}
"""The languages of pages that have numbers of their own, and their names; pages of others are in the total alone."""

OMNIDOCBENCH_SIMPLE = BenchmarkInfo(
    name="omnidocbench_simple",
    answer="open",
    metrics=(
        Definition("text_edit", "text edit distance", False),
        Definition("reading_order", "reading order", False),
        Definition("page_edit", "page edit distance", False),
        *(Definition(f"text_edit:{name}", f"text edit distance, {told}", False) for name, told in LANGUAGES.items()),
        Definition("truncated", "cut off", False),
    ),
    primary="text_edit",
    shown=("text_edit", "reading_order"),
    meanings={
        "text_edit": "characters to change in matched blocks of text, over the longer texts, averaged over pages",
        "reading_order": "edit distance of the order in which blocks are read, averaged over pages",
        "page_edit": "edit distance of the whole page's text, averaged over pages",
        "truncated": "share of answers that were cut off at the token limit",
    },
    readings={name: f"pages in {told}" for name, told in LANGUAGES.items()},
    right=Rule("text edit distance of at most 0.1", "text_edit", 0.1, "text_edit", "text edit distance", (0, 1), False),
    flip_scores=("text_edit",),
    told_scores=("text_edit", "reading_order", "page_edit"),
    suites=("ocr",),
    max_new_tokens=4096,
    board="Dense OCR",
    column_titles={
        ("omnidocbench_pages", "text_edit"): "OmniDocBench text (simple match)",
        ("omnidocbench_pages", "reading_order"): "OmniDocBench order (simple match)",
    },
    leading_tasks=("omnidocbench",),
    note=(
        "OmniDocBench: edit distances of text and reading order, lower is better. Blocks are matched one to one "
        "(simple_match); published numbers are of quick_match, which also joins and splits blocks, and cannot be "
        "compared with these. Tables and formulas are not scored."
    ),
)
