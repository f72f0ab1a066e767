"""POPE: yes/no answers to "Is there a ... in the image?" (arXiv 2305.10355). Pure functions.

Which number is "POPE"? The LLaVA papers print F1 of the label "yes": LLaVA-1.5 one F1 for each of the
splits random, popular and adversarial, and where a single number stands it is the plain mean of the
three. Their random split had 2,910 rows; today's has 3,000, as the other two, so that its F1 is not
quite theirs. It is never the accuracy, which is the mean over both labels.

Two rules read an answer. The official one (`parse_answer`) takes whatever is not "no" for "yes", even
an empty answer, and overlooks "NO" and "no" before a line break; the scores under plain names are its
own, so that they equal the papers'. The strict one (`parse_answer_strict`) wants the answer to begin
with "yes" or "no"; its scores end in ":strict", and what it cannot read is wrong. Where the two part,
the official number says more of the rule than of the model.

Both read the answer alone (`perpo.answers`), which is the whole response unless it has marks of thoughts or of an
answer: the official script was made before models thought aloud, and would find a "no" in what they thought.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perpo.answers import answer_of
from perpo.benchmarks.pope import POPE

YesNo = Literal["yes", "no"]

STRICT = ":strict"
"""What the names of the strict rule's scores end in."""

_METRICS = POPE.by_name

_SENTENCE_END = re.compile(r"[.!?。！？\n]")
# Marks may stand within a word ("no-one", "yes'm"), and then it is neither yes nor no.
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True)
class PopeSummary:
    """The numbers of one split, each in [0, 1]; None where it is undefined.

    Attributes:
        accuracy: Share of right answers.
        precision: Share of the answers "yes" that are right; None without such answers.
        recall: Share of the labels "yes" that were answered "yes"; None without such labels.
        f1: 2 tp / (2 tp + fp + fn), the harmonic mean of the two; 0 where only one of them is undefined
            or both are 0; None where label and answer are always "no".
        yes_ratio: Share of "yes" among the *answers*, whatever the labels.
    """

    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    yes_ratio: float | None


def parse_answer(text: str) -> YesNo | None:
    """Read an answer as the official script does (evaluate.py of the paper's repository).

    What stands before the first "." counts, without its commas, cut at single blanks: "no" if one of
    the words is "No", "not" or "no", else "yes". None where there is no answer, as a thought never ends.
    """
    answer = answer_of(text, "yes_no")
    if answer is None:
        return None
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def parse_answer_strict(text: str) -> YesNo | None:
    """Read an answer that says yes or no at once.

    The first word, in any case and behind any blanks, quotes, punctuation or markup, is "yes" or "no",
    and the other word does not stand in the first sentence (which ends with ".", "!", "?" or the line).
    Else None.
    """
    answer = answer_of(text, "yes_no") or ""
    start = _WORD.search(answer)
    if start is None:
        return None
    sentence = _SENTENCE_END.split(answer[start.start() :].lower(), maxsplit=1)[0]
    words = _WORD.findall(sentence)
    said = {"yes", "no"} & set(words)
    if said == {"yes"} and words[0] == "yes":
        return "yes"
    return "no" if said == {"no"} and words[0] == "no" else None


def score_answer(response: str, label: str) -> dict[str, float]:
    """Score an answer by both rules.

    Args:
        response: What the model said.
        label: "yes" or "no".

    Returns:
        0 or 1 for each of `accuracy`, `tp`, `fp`, `fn`, `tn` (positive is "yes") and `yes` (the answer
        is "yes") by the official rule, the same with ":strict" by the strict one, and `parse_fail`
        (the strict rule cannot read it). An answer that a rule cannot read is wrong by it: a false
        negative or a false positive as the label has it, so that it never raises F1, and no "yes".

    Raises:
        ValueError: Another label.
    """
    if label not in ("yes", "no"):
        raise ValueError(f"the label is {label!r}; expected 'yes' or 'no'")
    strict = parse_answer_strict(response)
    scores = _confusion(parse_answer(response), label)
    scores |= {name + STRICT: value for name, value in _confusion(strict, label).items()}
    return scores | {"parse_fail": float(strict is None)}


def fraction(name: str, scores: Mapping[str, float], suffix: str = "") -> tuple[float, float]:
    """Return what one answer adds to a number's numerator and denominator.

    The number of a split is the sum of the first over the sum of the second, as
    `perpo.stats.clustered_ratio` takes them.

    Args:
        name: A metric of `perpo.benchmarks.pope.POPE`; the fields of `PopeSummary` are among them.
        scores: What `score_answer` returned.
        suffix: `STRICT` for the strict rule's scores.

    Raises:
        KeyError: No such metric or score.
    """
    (above,), (below,) = _sums(name, [scores], suffix)
    return float(above), float(below)


def summary(rows: Iterable[Mapping[str, float]], suffix: str = "") -> PopeSummary:
    """Return the numbers of one split.

    The papers' single number is the mean of `f1` over the three splits; see the module's text.

    Args:
        rows: What `score_answer` returned for each question.
        suffix: `STRICT` for the strict rule's numbers.
    """
    rows = list(rows)
    ratios: dict[str, float | None] = {}
    for field in fields(PopeSummary):
        above, below = (float(part.sum()) for part in _sums(field.name, rows, suffix))
        ratios[field.name] = above / below if below else None
    return PopeSummary(**ratios)


def _sums(
    name: str, rows: Sequence[Mapping[str, float]], suffix: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) what each answer adds above and below the line, as `perpo.benchmarks.pope` defines the metric."""
    metric = _METRICS[name]
    return metric.sums({score: np.array([row[score + suffix] for row in rows]) for score in metric.needs()})


def _confusion(answer: YesNo | None, label: str) -> dict[str, float]:
    right, positive = answer == label, label == "yes"
    return {
        "accuracy": float(right),
        "tp": float(right and positive),
        "fp": float(not right and not positive),
        "fn": float(not right and positive),
        "tn": float(right and not positive),
        "yes": float(answer == "yes"),
    }
