"""perpo.stats.stepdown against all signs written out, Holm's method, and simulation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import t as student
from statsmodels.stats.multitest import multipletests

from perpo.stats import holm, joint_holm


def p_value(values: np.ndarray) -> float:
    """Student's, of a mean of 0."""
    count = len(values)
    error = values.std(ddof=1) / np.sqrt(count)
    return float(2 * student.sf(abs(values.mean()) / error, count - 1)) if error > 0 else 1.0


def made(seed: int, rows: int, count: int = 9, shift: float = 0.0) -> np.ndarray:
    """(rows, count) contributions that rows share in part."""
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, count) + rng.normal(0, 1, (rows, count))


def adjusted(values: np.ndarray, **words) -> list[float]:
    places, freedom = np.arange(values.shape[1]), values.shape[1] - 1
    return joint_holm([p_value(row) for row in values], [freedom] * len(values), [(places, v) for v in values], **words)


def test_it_is_step_down_over_all_signs() -> None:
    """512 signs of 9 clusters, by the definition: the smallest p-value of what is left, row after row."""
    values = made(1, 4, shift=0.3)
    p = np.array([p_value(row) for row in values])
    assert holm(p)[int(p.argmin())] > 0.001
    drawn = np.array([[p_value(row * signs) for row in values] for signs in product((-1, 1), repeat=9)])
    expected, most = np.empty(4), 0.0
    left = list(range(4))
    for row in p.argsort():
        most = max(most, float((drawn[:, left].min(1) <= p[row] * (1 + 1e-9)).mean()))
        expected[row] = max(most, p[row])
        left.remove(int(row))
    assert adjusted(values, draws=40_000) == pytest.approx(list(expected), abs=0.01)
    assert min(expected) < 0.2


def test_rows_that_are_the_same_cost_what_one_does() -> None:
    values = made(2, 1, count=40, shift=0.3)
    (alone,) = adjusted(values)
    assert alone == pytest.approx(p_value(values[0]))
    together = adjusted(np.repeat(values, 5, axis=0))
    assert together == pytest.approx([alone] * 5, abs=0.01)
    assert holm([alone] * 5)[0] == pytest.approx(5 * alone)


def test_a_row_that_two_clusters_tell_apart_costs_nothing() -> None:
    """Signs of two clusters come out even or all one way: with 60 clusters never below p = 0.15."""
    rare = np.zeros((6, 60))
    rare[:, :2] = 1.0
    row = made(3, 1, count=60, shift=0.5)
    assert p_value(row[0]) < 0.1
    many = adjusted(np.concatenate([row, rare]))
    assert many[0] == pytest.approx(adjusted(np.concatenate([row, row]))[0], abs=0.01)


def test_without_contributions_it_is_holms() -> None:
    p = [0.01, 0.2, 0.03]
    assert joint_holm(p, [9, 9, 9], [None] * 3) == pytest.approx(list(multipletests(p, method="holm")[1]))
    assert joint_holm([0.02], [9], [None]) == [0.02]
    assert joint_holm([], [], []) == []


def test_some_without_contributions_are_drawn_as_unrelated() -> None:
    """The share of draws in which one of two unrelated p-values is at most p: 1 - (1 - p)^2."""
    row = made(4, 1, count=200, shift=0.18)[0]
    p = p_value(row)
    found = joint_holm([p, 0.5], [199, 199], [(np.arange(200), row), None])
    assert found[0] == pytest.approx(1 - (1 - p) ** 2, abs=0.01)


def test_clusters_are_told_apart_by_their_labels() -> None:
    """Two rows on other images are unrelated, two on the same images the same, whatever the order of the labels."""
    row = made(5, 1, count=150, shift=0.2)[0]
    p, labels = p_value(row), np.arange(150)
    apart = joint_holm([p, p], [149, 149], [(labels, row), (labels + 1000, row)])
    joined = joint_holm([p, p], [149, 149], [(labels, row), (labels[::-1], row[::-1])])
    assert apart[0] == pytest.approx(1 - (1 - p) ** 2, abs=0.01)
    assert joined[0] == pytest.approx(p, abs=0.01)


def test_false_alarms_are_at_5_percent_where_holm_has_far_fewer() -> None:
    rng, joint, plain = np.random.default_rng(6), 0, 0
    for _ in range(600):
        values = rng.normal(0, 1, 40) + 0.4 * rng.normal(0, 1, (12, 40))
        joint += min(adjusted(values, draws=1000)) < 0.05
        plain += min(holm([p_value(row) for row in values])) < 0.05
    assert 0.03 < joint / 600 < 0.07
    assert plain / 600 < 0.03
