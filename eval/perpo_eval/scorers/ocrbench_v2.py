"""The score of a full page of OCRBench v2. Pure functions.

The formula is that of the official OCRBench_v2/eval_scripts (`page_ocr_metric.py`, and `eval.py` for the types
"full-page OCR en" and "full-page OCR cn"; arXiv 2501.00321). Unlike Fox's script it passes answer and truth in the
order that its function expects.
"""

from __future__ import annotations

from dataclasses import asdict

from perpo_eval.scorers.ocr import score_page


def score_full_page(prediction: str, target: str) -> dict[str, float | None]:
    """Return the score and its parts.

    An empty answer has 0 points. So has one of nothing but white space, for which the official script gives
    next to 0 (English) or stops (Chinese).

    Args:
        prediction: What the model said.
        target: The page's text.

    Returns:
        `page_score`: (BLEU + METEOR + F1 + 1 - edit distance) / 4, None without WordNet. The scores of
        `perpo_eval.scorers.ocr.PageScores` by their names.
    """
    parts = asdict(score_page(prediction, target))
    if parts["meteor"] is None:  # of empty answers too, or these alone would be the average
        return {"page_score": None, **parts}
    if not prediction.strip():
        return {"page_score": 0.0, **parts}
    mean = (parts["bleu"] + parts["meteor"] + parts["f1"] + (1 - parts["edit_distance"])) / 4
    return {"page_score": mean, **parts}
