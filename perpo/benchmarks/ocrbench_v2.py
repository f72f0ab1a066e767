"""Full pages of OCRBench v2, transcribed."""

from __future__ import annotations

from perpo.benchmarks.base import BenchmarkInfo, Definition, Rule
from perpo.benchmarks.ocr import OCR_PAGES

_OF_PAGES = ("edit_distance", "f1", "precision", "recall", "bleu", "meteor", "truncated")

OCRBENCH_V2 = BenchmarkInfo(
    name="ocrbench_v2",
    answer="page",
    metrics=(Definition("page_score", "score"), *(OCR_PAGES.by_name[name] for name in _OF_PAGES)),
    primary="page_score",
    shown=("page_score", "edit_distance", "f1", "bleu", "meteor"),
    meanings={
        "page_score": "mean of BLEU, METEOR, F1 and 1 - edit distance; 0 for an empty answer",
        **{name: OCR_PAGES.meanings[name] for name in _OF_PAGES},
    },
    right=Rule("score of at least 0.9", "page_score", 0.9, "page_score", "score"),
    flip_scores=("page_score",),
    told_scores=("page_score", "edit_distance", "f1", "bleu", "meteor"),
    kinds=("page length",),
    suites=("ocr",),
    max_new_tokens=2048,
    board="Dense OCR",
    leading_tasks=("ocrbench",),
    several_data_sets=False,
    note=(
        "OCRBench v2: the score of full pages is the mean of BLEU, METEOR, F1 over sets of words and 1 - edit distance."
    ),
)
