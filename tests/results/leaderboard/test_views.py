"""perpo.results.leaderboard.views: orders, columns and differences, derived by hand from the scores of made runs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from perpo.records.store import find_runs
from perpo.results.leaderboard.board import boards
from perpo.results.leaderboard.files import names, render
from perpo.results.leaderboard.views import against, arranged, by, by_column, own_bases
from tests.support import ROOT

PAPER = ROOT / "results" / "paper"


def rows(seed: int, share: float) -> dict[str, list[tuple[str, float]]]:
    rng = np.random.default_rng(seed)
    hard = rng.random(300)
    return {task: [(str(k), float(hard[k] < share)) for k in range(300)] for task in ("refcoco_val", "refcocog_val")}


@pytest.fixture
def board(make_run):
    (found,) = boards([make_run(name, rows(3, share)) for name, share in (("a", 0.5), ("b", 0.7), ("c", 0.6))])
    return found


def test_differences_of_measured_runs_are_paired(board) -> None:
    found = against(board, [board.rows[0]] * 3, "a")
    column = board.columns[0]
    values = [[score for _, score in rows(3, share)["refcoco_val"]] for share in (0.5, 0.7)]
    expected = ttest_rel(values[1], values[0])
    metric = found.rows[1].metrics[column]
    assert metric.value == pytest.approx(np.mean(values[1]) - np.mean(values[0]))
    # One sample an image: CR1's factor makes the clustered t test the usual paired one.
    assert (metric.ci_low, metric.ci_high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-6)
    assert found.rows[0].metrics == {}
    assert found.baseline == "a"
    assert f"| **+{100 * metric.value:.1f} ±" in render(found, "markdown")
    assert "Differences to a, paired by sample" in render(found, "latex")


def test_of_reported_numbers_the_plain_difference_is_taken() -> None:
    found = next(each for each in boards(find_runs(PAPER)[0]) if each.title == "Object grounding")
    differences = against(found, own_bases(found), "each run's own base")
    column = next(each for each in found.columns if each.task == "refcoco_val")
    told = dict(zip(names(found), differences.rows, strict=True))
    metric = told["LLaVA-v1.5-7B + PerPO"].metrics[column]
    assert metric.value == pytest.approx(0.638 - 0.500)  # table 1 of the paper
    assert metric.ci_low is None
    assert told["LLaVA-v1.5-7B"].metrics == {}
    assert column not in against(found, [None] * len(found.rows), "nothing").rows[0].metrics


def test_a_measured_and_a_reported_number_have_no_difference(make_run) -> None:
    (found, _) = boards([make_run("ours", rows(1, 0.5)), *find_runs(PAPER)[0]])
    reported = next(row for row in found.rows if row.run.record.source == "reported")
    assert against(found, [reported] * len(found.rows), "theirs").rows[0].metrics == {}


def test_runs_on_other_data_have_no_difference(make_run) -> None:
    (found,) = boards([make_run("a", rows(1, 0.5)), make_run("b", rows(1, 0.9), dataset="tiny:other")])
    assert against(found, [found.rows[0]] * 2, "a").rows[1].metrics == {}


def test_rows_sort_by_a_column_with_missing_ones_last(make_run, board) -> None:
    found = board
    assert [found.rows[n].label for n in by_column(found, found.columns[0])] == ["b", "c", "a"]
    (wider,) = boards([*(row.run for row in found.rows), make_run("d", {"refcoco_testA": [("1", 1.0), ("2", 0.0)]})])
    only = next(column for column in wider.columns if column.task == "refcoco_testA")
    assert [wider.rows[n].label for n in by_column(wider, only)] == ["d", "a", "b", "c"]


def test_lower_is_better_where_the_column_says_so() -> None:
    found = next(each for each in boards(find_runs(PAPER)[0]) if each.title == "Dense OCR")
    column = next(each for each in found.columns if each.metric == "edit_distance")
    values = [found.rows[n].metrics[column].value for n in by_column(found, column)]
    assert values == sorted(values)


def test_marks_follow_their_rows(board) -> None:
    order = by(board, lambda row: row.label, last_first=True)
    found = arranged(board, order, board.columns[1:])
    assert [row.label for row in found.rows] == ["c", "b", "a"]
    marked = {(found.rows[n].label, column): mark for (n, column), mark in found.marks.items()}
    assert marked == {("b", column): "best" for column in board.columns[1:]}
