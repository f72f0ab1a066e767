"""Scores of a page of text that a model read: Fox's metrics. Pure functions.

The formulas are those of Fox's eval_ocr_test.py (arXiv 2405.14295). That script passes (label, answer)
where its function expects (prediction, truth), so what it calls precision is recall and the reverse,
and its BLEU and METEOR take the answer for the reference. `score_page` uses the natural order, and the
script's with `swapped=True`; F1 and the edit distance are the same in both.
"""

from __future__ import annotations

import re
import sys
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

from rapidfuzz.distance import Levenshtein

from perpo.prepare import wordnet

_CHINESE = re.compile("[\u4e00-\u9fa5]")


@dataclass(frozen=True)
class PageScores:
    """The scores of one page, each in [0, 1]; higher is better but for the edit distance.

    Attributes:
        edit_distance: See the function of this name.
        f1: Harmonic mean of precision and recall.
        precision: Share of the answer's different words that the page holds.
        recall: Share of the page's different words that the answer holds.
        bleu: NLTK's sentence BLEU: 1- to 4-grams weighing the same, no smoothing (where n-grams of a
            length have no match, next to 0).
        meteor: NLTK's METEOR: matches of equal words, of Porter stems, and of WordNet's synonyms of what
            is left (of its stems: NLTK 3.10 finds none for "automobile"), alpha 0.9, beta 3, gamma 0.5.
            Not the Java METEOR 1.5, which gives other numbers. None without WordNet.
    """

    edit_distance: float
    f1: float
    precision: float
    recall: float
    bleu: float
    meteor: float | None


def score_page(prediction: str, target: str, *, swapped: bool = False) -> PageScores:
    """Score what a model read on a page.

    If either text holds a character from U+4E00 to U+9FA5, jieba cuts both into words, else white space
    does. A text of nothing but white space is empty. Two empty texts are equal: distance 0 and all else
    1. If one alone is empty the distance is 1 and all else 0.

    Args:
        prediction: What the model said.
        target: The page's text.
        swapped: Score in the order of Fox's script, which takes the page's text for the prediction.
    """
    empty = not prediction.strip(), not target.strip()
    if any(empty):
        other = float(all(empty))
        return PageScores(1 - other, other, other, other, other, other if _meteor_available() else None)
    hypothesis, reference = _words(prediction, target)
    if swapped:
        hypothesis, reference = reference, hypothesis
    said, true = set(hypothesis), set(reference)
    common = len(said & true)
    return PageScores(
        edit_distance=edit_distance(prediction, target),
        f1=2 * common / (len(said) + len(true)),
        precision=common / len(said),
        recall=common / len(true),
        bleu=_bleu(hypothesis, reference),
        meteor=_meteor(hypothesis, reference),
    )


def edit_distance(prediction: str, target: str) -> float:
    """Levenshtein distance of the characters over the length of the longer text; 0 for two empty ones."""
    return Levenshtein.normalized_distance(prediction, target)


def wordnet_found() -> bool:
    """Return whether WordNet, without which there is no METEOR, is where NLTK looks or where perpo keeps it."""
    return wordnet.find() is not None


def _words(one: str, other: str) -> tuple[list[str], list[str]]:
    if _CHINESE.search(one) or _CHINESE.search(other):
        cutter = _jieba()
        return cutter.lcut(one), cutter.lcut(other)
    return one.split(), other.split()


@cache
def _jieba() -> Any:
    """jieba with its own dictionary, whatever words the process has added to the common one.

    The dictionary is read here (half a second), since jieba would log about it and leave a file in the
    folder of temporary files, where another user could put one for it to read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its source has escapes that newer Pythons warn of
        import jieba
    cutter = jieba.Tokenizer()
    cutter.FREQ, cutter.total = cutter.gen_pfdict(cutter.get_dict_file())
    cutter.initialized = True
    return cutter


def _bleu(hypothesis: list[str], reference: list[str]) -> float:
    from nltk.translate import bleu

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that n-grams of a length have no match
        return float(bleu([reference], hypothesis))


def _meteor(hypothesis: list[str], reference: list[str]) -> float | None:
    if not _meteor_available():
        return None
    from nltk.translate.meteor_score import meteor_score

    return float(meteor_score([reference], hypothesis))


@cache
def _meteor_available() -> bool:
    """Whether there is WordNet; asked once, so that a missing one is said once and is missing for all pages."""
    if wordnet_found():
        return True
    print("warning: METEOR needs WordNet and is left out; `perpo-data wordnet` gets it", file=sys.stderr)
    return False
