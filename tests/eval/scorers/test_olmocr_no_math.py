"""The scores of olmOCR-Bench's pages, and its pass rates: by file, their average, their intervals by page."""

from __future__ import annotations

import numpy as np
import pytest

from perpo.benchmarks.metrics import METRICS
from perpo.models.families import FAMILIES
from perpo_eval.benchmarks.olmocr_no_math import OLMOCR_NO_MATH
from perpo_eval.rows.suites import TASKS
from perpo_eval.scorers.olmocr_no_math import score_tests

TESTS = [
    {"type": "present", "text": "kitten"},
    {"type": "present", "text": "sat"},
    {"type": "absent", "text": "page 3"},
    {"type": "baseline"},
]


def told(scores: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if value is not None}


def test_tests_are_counted_in_all_and_by_type() -> None:
    assert told(score_tests("A kitten, page 3", TESTS)) == {
        "passed": 2, "tests": 4, "page_share": 0.5, "passed:present": 1, "tests:present": 2, "passed:absent": 0,
        "tests:absent": 1, "passed:baseline": 1, "tests:baseline": 1,
    }  # fmt: skip


def test_an_empty_answer_passes_tests_of_absence_and_one_that_cannot_be_read_passes_nothing() -> None:
    empty, unread = (OLMOCR_NO_MATH.score(said, TESTS, (2, 2), FAMILIES["llava"]) for said in ("", "<think>kitten sat"))
    assert (empty.readable, empty.scores["passed"]) == (True, 1)
    assert (unread.readable, unread.scores["passed"], unread.scores["tests"]) == (False, 0, 4)


def test_the_average_is_over_files_and_each_file_counts_its_tests() -> None:
    """One file has 1 of 1 and 2 of 3 tests passed, the other 0 of 2: (3/4 + 0) / 2."""
    (rate,) = [metric for metric in METRICS["olmocr_no_math"] if metric.name == "pass_rate"]
    columns = {"passed": np.array([1.0, 2.0, 0.0]), "tests": np.array([1.0, 3.0, 2.0])}
    found = rate.estimate(columns, np.array(["a", "b", "c"]), np.array([0, 0, 1]))
    assert (found.value, found.n, found.n_clusters) == (pytest.approx(0.375), 3, 3)


def test_files_are_averaged_and_languages_are_not() -> None:
    groups = {name: spec.group for name, spec in TASKS.items()}
    assert {group for name, group in groups.items() if name.startswith("olmocr_")} == {"olmocr_no_math"}
    assert groups["ocrbench_v2_en"] == "ocrbench_v2_en"
