"""Numbers from draws: against plain formulas, and how often they err."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from perpo.stats import draw_clusters, drawn_difference, drawn_estimate


def draws_of(values: np.ndarray, seed: int = 0, draws: int = 1000) -> list[float]:
    return [float(values[chosen].mean()) for chosen in draw_clusters(len(values), draws, seed)]


def test_the_same_seed_draws_the_same_clusters() -> None:
    rng = np.random.default_rng(3)
    assert all((one == rng.integers(7, size=7)).all() for one in draw_clusters(7, 5, 3))


def test_an_interval_is_of_percentiles_and_of_few_clusters_of_t() -> None:
    values = np.random.default_rng(1).random(60)
    drawn = draws_of(values)
    found = drawn_estimate(0.5, drawn, 120, 60)
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5))))
    few = drawn_estimate(0.5, drawn, 120, 20)
    stderr = np.std(drawn, ddof=1) * np.sqrt(20 / 19)
    assert (few.ci_low, few.ci_high) == pytest.approx(stats.t.interval(0.95, 19, 0.5, stderr))
    for clusters, some in ((9, drawn), (60, [0.5] * 1000), (60, [None] * 1000)):
        assert drawn_estimate(0.5, some, 120, clusters).ci_method == "undefined"
    assert drawn_estimate(None, drawn, 120, 60).value is None


def test_draws_without_a_number_are_left_out_in_pairs() -> None:
    values = np.random.default_rng(1).random((2, 60))
    one, other = (draws_of(row) for row in values)
    whole = drawn_difference((0.5, 0.4), (one[100:], other[100:]), 60, 60, 60)
    gaps = [None] * 50 + one[50:], [*other[:50], *[None] * 50, *other[100:]]
    parted = drawn_difference((0.5, 0.4), gaps, 60, 60, 60)
    assert parted == whole


def test_equivalence_needs_clusters_that_tell_the_runs_apart() -> None:
    one, other = (draws_of(row) for row in np.random.default_rng(1).random((2, 60)))
    assert drawn_difference((0.5, 0.4), (one, other), 60, 60, 29).equivalence is None
    assert drawn_difference((0.5, 0.4), (one, other), 60, 60, 30).equivalence is not None


@pytest.mark.parametrize("clusters", [20, 60, 200])
def test_equal_runs_are_called_different_about_one_time_in_twenty(clusters) -> None:
    rng = np.random.default_rng(clusters)
    alarms = 0
    for _ in range(300):
        one, other = rng.random((2, clusters)) < 0.6
        means = float(one.mean()), float(other.mean())
        found = drawn_difference(means, (draws_of(one, draws=300), draws_of(other, draws=300)), clusters, clusters, 0)
        alarms += found.p_value is not None and found.p_value < 0.05
    assert stats.binomtest(alarms, 300, 0.05).pvalue > 0.001
