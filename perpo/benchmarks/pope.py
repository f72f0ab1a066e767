"""POPE: yes or no, whether an object is in the picture."""

from __future__ import annotations

from perpo.benchmarks.base import BenchmarkInfo, Definition, Rule

# AoiDragon/POPE: 6 questions on each of 500 images. Its list of random negatives had 2,910 questions before it was
# made anew; LLaVA-1.5's scores are of that one (haotian-liu/LLaVA, issue 626).
POPE_SPLITS = ("random", "popular", "adversarial")


def _f1(name: str, title: str, suffix: str = "") -> Definition:
    tp, fp, fn = (f"{count}{suffix}" for count in ("tp", "fp", "fn"))
    return Definition(name, title, True, {tp: 2.0}, {tp: 2.0, fp: 1.0, fn: 1.0})


POPE = BenchmarkInfo(
    name="pope",
    answer="yes_no",
    metrics=(
        Definition("accuracy", "accuracy"),
        Definition("precision", "precision", True, {"tp": 1.0}, {"tp": 1.0, "fp": 1.0}),
        Definition("recall", "recall", True, {"tp": 1.0}, {"tp": 1.0, "fn": 1.0}),
        _f1("f1", "F1"),
        Definition("yes_ratio", "yes ratio", None, {"yes": 1.0}),
        Definition("accuracy:strict", "strict accuracy"),
        _f1("f1:strict", "strict F1", ":strict"),
        Definition("parse_fail", "unreadable", False),
    ),
    primary="f1",
    shown=("f1",),
    meanings={
        "accuracy": "share of yes/no questions that are answered correctly",
        "precision": "of the answers yes, the share that is right",
        "recall": "of the questions whose answer is yes, the share that is answered so",
        "f1": "harmonic mean of the precision and recall of the answer yes",
        "yes_ratio": "share of the questions that are answered yes",
        "parse_fail": "share of answers that are neither a plain yes nor a plain no",
    },
    readings={"strict": "only a plain yes or no is read, everything else counts as wrong"},
    right=Rule("the truth was said", "accuracy", 1.0, "accuracy", "accuracy"),
    flip_scores=("accuracy",),
    kinds=("truth",),
    suites=("pope", "paper"),
    max_new_tokens=128,
    note=(
        "F1 counts a yes to an object that is there. The number that the LLaVA papers print for POPE is the mean F1 of "
        "the three splits (random had 2,910 questions then, 3,000 today). The yes ratio is that of the answers."
    ),
    note_splits=POPE_SPLITS,
    rows="yesno",
    own_files="yesno_",
)
