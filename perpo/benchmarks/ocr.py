"""Pages of text, transcribed (Fox, pages of one's own)."""

from __future__ import annotations

from perpo.benchmarks.base import BenchmarkInfo, Definition, Rule

_MAIN = ("edit_distance", "f1", "precision", "recall", "bleu", "meteor")

NORMALISED = "edit_distance:normalised"
"""The edit distance of both texts in their normal form (`perpo.texts.normal`), which tables of one's own pages show."""

OCR_PAGES = BenchmarkInfo(
    name="ocr",
    answer="page",
    metrics=(
        Definition("edit_distance", "edit distance", False),
        Definition("f1", "F1"),
        Definition("precision", "precision"),
        Definition("recall", "recall"),
        Definition("bleu", "BLEU"),
        Definition("meteor", "METEOR"),
        Definition(NORMALISED, "edit distance, normalised", False),
        Definition("precision:swapped", "swapped precision"),
        Definition("recall:swapped", "swapped recall"),
        Definition("bleu:swapped", "swapped BLEU"),
        Definition("meteor:swapped", "swapped METEOR"),
        Definition("truncated", "cut off", False),
    ),
    primary="edit_distance",
    shown=_MAIN,
    meanings={
        "edit_distance": "characters to change in order to get the true text, over the length of the longer text",
        "f1": "harmonic mean of precision and recall over the sets of words",
        "precision": "of the words that were read, the share that stands on the page",
        "recall": "of the words on the page, the share that was read",
        "bleu": "BLEU-4 of the read text against the true one",
        "meteor": "METEOR of the read text against the true one",
        "truncated": "share of answers that were cut off, at the token limit or where they looped",
    },
    readings={
        "swapped": "answer and truth exchanged, as Fox's own script has them",
        "normalised": "both texts in NFC, without ligatures, soft hyphens and characters of no width",
    },
    right=Rule("edit distance of at most 0.1", "edit_distance", 0.1, "edit_distance", "edit distance", (0, 1), False),
    flip_scores=("edit_distance",),
    told_scores=_MAIN,
    kinds=("page length", "layout"),
    suites=("ocr", "paper"),
    max_new_tokens=2048,
    board="Dense OCR",
    leading_tasks=("fox", "tinydense", "tinypages", "ocr"),
    note=(
        "Edit distance: lower is better. F1, precision and recall are over sets of words. BLEU and METEOR are NLTK's "
        "(sentence BLEU-4 without smoothing; METEOR with Porter stems and WordNet)."
    ),
    rows="pages",
    own_files="pages_",
)


def told_columns(count: int) -> str:
    """Return the layout of a page of so many columns side by side."""
    return f"{count} column" if count == 1 else f"{count} columns"
