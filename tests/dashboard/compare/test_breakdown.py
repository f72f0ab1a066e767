"""Kinds of samples: labels by hand, means and intervals by the formula for independent pairs."""

import json

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from perpo.benchmarks.table import INFO
from perpo_dashboard.compare.breakdown import Labels, by_kind, first_known, heights, kinds, labels, plane, right_share
from perpo_dashboard.shared.outcomes import Pair


def made(measure, names=("boxes",), tasks=None, clusters=None) -> Pair:
    measure = np.array(measure, dtype=float)
    n = measure.shape[1]
    right = np.where(np.isnan(measure), -1, measure >= 0.5).astype(np.int8)
    return Pair(
        np.array([f"{place:04d}" for place in range(n)]), list(names),
        np.zeros(n, dtype=int) if tasks is None else np.array(tasks),
        np.arange(n) if clusters is None else np.array(clusters),
        np.tile(np.arange(n), (2, 1)), measure, right, np.ones(len(names)),
    )  # fmt: skip


def test_with_an_image_each_the_interval_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(3)
    pair = made(rng.random((2, 40)))
    codes = np.arange(40) % 2
    rows = by_kind(pair, pair.measure, Labels(["even", "odd", "never"], codes), (0.0, 1.0))
    assert [(row.name, row.n) for row in rows] == [("even", 20), ("odd", 20)]
    for code, row in enumerate(rows):
        a, b = pair.measure[:, codes == code]
        expected = stats.ttest_rel(b, a).confidence_interval(0.95)
        assert row.difference.interval == pytest.approx((expected.low, expected.high))
        assert (row.a, row.b) == pytest.approx((a.mean(), b.mean()))


def test_samples_without_a_score_in_one_run_do_not_count():
    pair = made([[1.0, np.nan, 0.0], [1.0, 1.0, 1.0]])
    (row,) = by_kind(pair, right_share(pair), Labels(["all"], np.zeros(3, dtype=int)), (0.0, 1.0))
    assert (row.n, row.a, row.b) == (2, 0.5, 1.0)


def columns(**values):
    return lambda name: pa.array(values[name])


def test_boxes_are_told_by_their_part_of_the_picture():
    image = {"sha256": "", "path": "", "width": 200, "height": 100}
    boxes = [[0, 0, 10, 10], [0.0, 0.0, 40, 20.5], [-1e-05, 0, 200, 100], "yes, no, not, sure", None, [1, 2]]
    told = columns(target=[None if box is None else json.dumps(box) for box in boxes], image=[image] * len(boxes))
    found = labels("box size", INFO["grounding"], made(np.zeros((2, 6))), np.ones(6, dtype=bool), None, told, {})
    assert [found.names[code] if code >= 0 else None for code in found.codes] == [
        "below 1% of the picture", "4% to 10%", "from 25%", None, None, None,
    ]  # fmt: skip


def test_pages_are_told_by_their_layout_and_length():
    told = columns(layout=["2 columns", None, "1 column", "2 columns"], target=["a" * 40, "b" * 60, "c" * 300, None])
    pair, mask = made(np.zeros((2, 4))), np.ones(4, dtype=bool)
    found = labels("layout", INFO["ocr"], pair, mask, None, told, {})
    assert [found.names[code] if code >= 0 else None for code in found.codes] == [
        "2 columns", None, "1 column", "2 columns",
    ]  # fmt: skip
    found = labels("page length", INFO["ocr"], pair, mask, None, told, {})
    assert [found.names[code] if code >= 0 else None for code in found.codes] == [
        "below 50 characters", "50 to 100", "250 to 1,000", None,
    ]  # fmt: skip
    assert set(kinds(INFO["ocr"], ["edit_distance", "edit_distance:normalised"])) == {"page length", "layout", "task"}


def test_an_older_run_leaves_its_layouts_to_the_other_run():
    older = columns(layout=pa.nulls(2, pa.string()), target=["a", None])
    newer = columns(layout=["1 column", "2 columns"], target=["a", "b"])
    for ours, theirs in ((older, newer), (newer, older)):
        assert first_known(ours, theirs)("layout").to_pylist() == ["1 column", "2 columns"]
    assert first_known(older, newer)("target").to_pylist() == ["a", None]


class _Record:
    def __init__(self, **prompts):
        self.tasks = [type("Task", (), {"task": name, "prompt": prompt}) for name, prompt in prompts.items()]


def test_expressions_are_counted_without_the_tasks_own_words():
    pair = made(np.zeros((2, 3)), names=("a", "b"), tasks=[0, 0, 1])
    told = columns(question=["Where is: the ring", "Where is: the red ring there", "one two three"])
    found = labels(
        "expression length",
        INFO["grounding"],
        pair,
        np.ones(3, dtype=bool),
        _Record(a="Where is: {expression}", b=None),
        told,
        {},
    )
    assert [found.names[code] for code in found.codes] == ["below 3 words", "3 to 5", "3 to 5"]


def test_truths_and_types_are_told_as_the_records_tell_them():
    pair = made(np.zeros((2, 3)))
    found = labels(
        "truth", INFO["pope"], pair, np.array([True, True, False]), None, columns(target=['"yes"', '"no"', '"x"']), {}
    )
    assert [found.names[code] if code >= 0 else None for code in found.codes] == ["yes", "no", None]
    assert found.names == ["yes", "no"]
    scores = {
        "score": np.zeros(3),
        "score:counting": np.array([np.nan, 1.0, np.nan]),
        "score:other": np.array([5.0, np.nan, np.nan]),
    }
    assert "question type" in kinds(INFO["mmhal"], list(scores))
    assert "question type" not in kinds(INFO["mmhal"], ["score"])
    found = labels("question type", INFO["mmhal"], pair, np.ones(3, dtype=bool), None, columns(), scores)
    assert [found.names[code] if code >= 0 else None for code in found.codes] == ["other", "counting", None]


def test_every_sample_with_both_scores_is_in_one_cell():
    measure = np.array([[0.0, 1.0, 0.52, np.nan], [1.0, 1.0, 0.02, 0.5]])
    cells = plane(made(measure), np.ones(4, dtype=bool), (0.0, 1.0))
    assert cells["samples"].sum() == 3
    found = {(round(a, 2), round(b, 2)) for a, b in zip(cells["a"], cells["b"], strict=True)}
    assert found == {(0.0, 0.95), (0.95, 0.95), (0.5, 0.0)}


def test_ratings_have_a_bar_for_each_point():
    bins = heights(made(np.array([[0, 6, 6, np.nan], [3, 3, 0, 1]])), np.array([True, True, True, True]), (0, 6))
    assert bins["A"].tolist() == [1, 0, 0, 0, 0, 0, 2]
    assert bins["B"].tolist() == [1, 1, 0, 2, 0, 0, 0]
    assert bins["from"].tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
