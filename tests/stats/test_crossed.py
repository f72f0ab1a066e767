"""perpo.stats.crossed against mean squares of a two-way analysis of variance, closed forms, and one run a side."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import brentq
from scipy.stats import t as student
from statsmodels.stats.anova import anova_lm

from perpo.stats import cluster_t, crossed_t, paired_sums
from perpo.stats.crossed import _variances
from perpo.stats.discordance import contributions, discordant_interval
from perpo.stats.paired import influences

IMAGES = 80


def drawn(seed: int, runs: int, *, spread: float = 0.05, mean: float = 0.6) -> np.ndarray:
    """(runs, IMAGES) scores in [0, 1], one sample an image: an effect of the image, of the run, and of both."""
    rng = np.random.default_rng(seed)
    image = np.random.default_rng(99).normal(0, 0.1, IMAGES)
    return np.clip(mean + image + rng.normal(0, spread, (runs, 1)) + rng.normal(0, 0.1, (runs, IMAGES)), 0, 1)


def sums(scores: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(run, np.ones(len(run))) for run in scores]


def mean_squares(scores: np.ndarray) -> tuple[float, float, float]:
    """Of images, runs and the rest, by statsmodels."""
    import pandas as pd

    runs, images = np.indices(scores.shape)
    table = pd.DataFrame({"y": scores.ravel(), "run": runs.ravel(), "image": images.ravel()})
    found = anova_lm(sm.OLS.from_formula("y ~ C(image) + C(run)", table).fit())
    squares = found["sum_sq"] / found["df"]
    return squares["C(image)"], squares["C(run)"], squares["Residual"]


def test_variances_are_the_mean_squares_of_an_analysis_of_variance() -> None:
    """Against a baseline that answers all alike, V_images is MS_images / (I G), and V_runs and V_both follow from the
    two other mean squares, pooled over both sides' degrees of freedom.
    """
    ours, flat = drawn(1, 4), np.full((2, IMAGES), 0.5)
    scores = np.concatenate([ours, flat])
    u = influences(scores[:, :, None], np.ones((6, IMAGES, 1)))
    images, between = _variances(u, scores.mean(1), (np.arange(4), 4 + np.arange(2)))
    ms_images, ms_runs, ms_rest = mean_squares(ours)
    assert images == pytest.approx(ms_images / (4 * IMAGES))
    weight, freedom = 1 / 4 + 1 / 2, 4
    runs = 3 * (ms_runs / IMAGES) / freedom * weight
    both = 3 * (ms_rest / IMAGES) / freedom * weight
    assert between == pytest.approx(max(runs - (1 - 1 / freedom) * both, 0))
    assert between > 0


def test_expectations_are_those_of_crossed_random_effects() -> None:
    """Over many drawings V_images + V_runs - V_both comes to the variance of the difference, and so does V with what
    it keeps of V_both.
    """
    rng, values, told, kept = np.random.default_rng(5), [], [], []
    for _ in range(4000):
        runs, images, rest = rng.normal(0, 0.05, (5, 1)), rng.normal(0, 0.2, (2, 30)), rng.normal(0, 0.3, (5, 30))
        scores = runs + images[[0, 0, 0, 1, 1]] + rest
        sides = (np.arange(3), 3 + np.arange(2))
        value = scores.mean(1)
        values.append(value[sides[0]].mean() - value[sides[1]].mean())
        u = influences(scores[:, :, None], np.ones((5, 30, 1)))
        told.append(sum(_variances(u, value, sides)))
        kept.append(rest)
    true = 0.05**2 * (1 / 3 + 1 / 2) + (2 * 0.2**2 + 0.3**2 * (1 / 3 + 1 / 2)) / 30
    assert np.var(values) == pytest.approx(true, rel=0.1)
    still = 0.3**2 / 30 * (1 / 3 + 1 / 2) / 3  # the third of V_both that stays in
    assert np.mean(told) == pytest.approx(true + still, rel=0.05)


def test_the_quantile_is_the_mean_of_two_weighted_by_their_variances() -> None:
    ours, theirs = drawn(2, 3), drawn(3, 2, mean=0.55)
    found = crossed_t(sums(ours), sums(theirs), np.arange(IMAGES))
    between = found.between_runs**2
    images = found.stderr**2 - between
    assert found.value == pytest.approx(ours.mean() - theirs.mean())
    z = ours.mean(0) - theirs.mean(0)
    assert images == pytest.approx(z.var(ddof=1) / IMAGES)

    def critical(alpha: float) -> float:
        each = student.ppf(1 - alpha / 2, [IMAGES - 1, 3])
        return (images * each[0] + between * each[1]) / (images + between)

    half = critical(0.05) * found.stderr
    assert found.interval == pytest.approx((found.value - half, found.value + half))
    assert student.ppf(0.975, found.df) == pytest.approx(critical(0.05))
    statistic = abs(found.value) / found.stderr
    assert found.p_value == pytest.approx(brentq(lambda alpha: critical(alpha) - statistic, 1e-12, 1), rel=1e-6)
    assert (found.n, found.n_clusters, found.method) == (IMAGES, IMAGES, "crossed-t")


def test_equivalence_takes_the_spread_between_runs_in() -> None:
    ours, theirs = drawn(2, 3, spread=0.1), drawn(3, 2, spread=0.1)
    found = crossed_t(sums(ours), sums(theirs), np.arange(IMAGES))
    stacked = np.concatenate([ours, theirs])[:, :, None]
    parts = np.mean([contributions(stacked[[i, j]], np.ones((2, IMAGES, 1))) for i in range(3) for j in (3, 4)], axis=0)
    assert parts.sum() == pytest.approx(found.value)
    low, high = discordant_interval(parts, 1.0, unseen=True)
    alone = student.ppf(0.975, 3) * found.between_runs
    value = found.value
    ends = value - np.hypot(value - low, alone), value + np.hypot(high - value, alone)
    assert found.equivalence == pytest.approx((min(ends[0], found.interval[0]), max(ends[1], found.interval[1])))


def test_equal_repeats_have_the_numbers_of_one_run_but_for_the_quantile() -> None:
    """Runs that repeat one another have no spread between them: what is left is the t test over images."""
    ours, theirs = drawn(2, 1)[0], drawn(3, 1)[0]
    label = np.arange(IMAGES) // 2
    alone = cluster_t(paired_sums((ours, np.ones(IMAGES)), (theirs, np.ones(IMAGES)), label))
    found = crossed_t(sums(np.stack([ours] * 3)), sums(np.stack([theirs] * 2)), label)
    assert found.between_runs == 0
    for name in ("value", "stderr", "interval", "p_value", "equivalence"):
        assert getattr(found, name) == pytest.approx(getattr(alone, name), rel=1e-6)
    assert found.df == pytest.approx(alone.n_clusters - 1)
    same = crossed_t(sums(np.stack([ours] * 2)), sums(ours[None]), label)
    assert (same.value, same.p_value, same.method) == (0.0, 1.0, "cluster-exact")


def test_ratios_are_linearised_run_by_run() -> None:
    """F1-like: with one image a cluster, V_images is that of the difference of mean influences."""
    rng = np.random.default_rng(7)
    below = rng.integers(1, 4, (3, IMAGES)).astype(float)
    above = below * rng.uniform(0.3, 0.9, (3, IMAGES))
    found = crossed_t(list(zip(above[:2], below[:2], strict=True)), [(above[2], below[2])], np.arange(IMAGES))
    ratio = above.sum(1) / below.sum(1)
    assert found.value == pytest.approx(ratio[:2].mean() - ratio[2])
    u = (above - ratio[:, None] * below) / below.sum(1, keepdims=True)
    z = u[:2].mean(0) - u[2]
    images = IMAGES / (IMAGES - 1) * np.square(z).sum()
    between = np.square(ratio[:2] - ratio[:2].mean()).sum() * (1 / 2 + 1)  # f = 1: nothing of V_both is taken away
    assert (found.stderr**2, found.between_runs**2) == pytest.approx((images + between, between))


def test_what_is_not_defined() -> None:
    empty = [(np.zeros(3), np.zeros(3))] * 2
    assert crossed_t(empty, sums(np.ones((1, 3))), np.arange(3)).method == "undefined"
    assert crossed_t(sums(np.ones((2, 3))), sums(np.zeros((1, 3))), np.zeros(3)).p_value is None
