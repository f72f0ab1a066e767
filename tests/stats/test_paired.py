"""perpo.stats.paired against statsmodels, scipy, closed forms, written-out resampling and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import binomtest
from scipy.stats import t as student
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from perpo.benchmarks.metrics import METRICS
from perpo.stats import (
    cluster_bootstrap,
    cluster_t,
    clustered_mean,
    clustered_ratio,
    holm,
    minimum_detectable_effect,
    paired_sums,
    predicted_power,
)


def two_runs(
    seed: int, clusters: int = 60, *, shift: float = 0.0, share: float = 0.6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """0/1 scores of two runs on clustered samples; the runs share what makes a cluster hard."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(clusters), rng.integers(1, 9, clusters))
    common = rng.random(clusters)
    ease = [share * common + (1 - share) * rng.random(clusters) for _ in range(2)]
    one, other = (rng.random(len(label)) < each[label] for each in ease)
    return np.clip(one + shift, 0, 1).astype(float), other.astype(float), label


def ones(scores: np.ndarray) -> np.ndarray:
    return np.ones(len(scores))


def of_means(one: np.ndarray, other: np.ndarray, label: np.ndarray, strata: np.ndarray | None = None):
    return paired_sums((one, ones(one)), (other, ones(other)), label, strata)


def test_a_difference_of_means_equals_statsmodels() -> None:
    one, other, label = two_runs(1)
    fit = sm.OLS(one - other, ones(one)).fit(cov_type="cluster", cov_kwds={"groups": label}, use_t=True)
    found = cluster_t(of_means(one, other, label))
    assert (found.value, found.stderr) == pytest.approx((fit.params[0], fit.bse[0]))
    assert found.p_value == pytest.approx(fit.pvalues[0])
    assert found.interval == pytest.approx(tuple(fit.conf_int(0.05)[0]))
    assert found.equivalence[0] <= found.interval[0] < found.interval[1] <= found.equivalence[1]
    assert (found.n, found.n_clusters, found.method) == (len(one), 60, "cluster-t")


def test_with_strata_it_is_the_mean_of_the_differences_clustered_jointly() -> None:
    one, other, label = two_runs(2)
    strata = np.random.default_rng(0).integers(3, size=len(one))
    found = cluster_t(of_means(one, other, label, strata))
    expected = clustered_mean(one - other, label, strata, bounds=(-1, 1))
    assert (found.value, found.stderr) == pytest.approx((expected.value, expected.stderr))
    half = student.ppf(0.975, found.n_clusters - 1) * expected.stderr
    assert found.interval == pytest.approx((found.value - half, found.value + half))


def f1_sums(said: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    definition = next(metric for metric in METRICS["pope"] if metric.name == "f1")
    columns = {"tp": said * truth, "fp": said * (1 - truth), "fn": (1 - said) * truth}
    return definition.sums(columns)


def test_a_difference_of_ratios_is_linearised_as_each_ratio_is() -> None:
    """Against a baseline that is always right (F1 of 1, no spread), it has the candidate's own standard error."""
    said, truth, label = two_runs(3)
    sums = paired_sums(f1_sums(said, truth), f1_sums(truth, truth), label)
    alone = clustered_ratio(*f1_sums(said, truth), label)
    found = cluster_t(sums)
    assert alone.value is not None
    assert found.value == pytest.approx(alone.value - 1)
    # Samples without a denominator in one run count there as clusters of no weight.
    assert found.stderr == pytest.approx(alone.stderr, rel=0.02)


def test_the_bootstrap_is_a_resampling_written_out() -> None:
    """Fewer draws, made with plain loops over copies of the samples; and the interval that scipy's bootstrap gives."""
    one, other, label = two_runs(4, clusters=60)
    truth = (np.random.default_rng(9).random(len(one)) < 0.5).astype(float)
    sums = paired_sums(f1_sums(one, truth), f1_sums(other, truth), label)
    rng, drawn = np.random.default_rng(7), []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(label == c) for c in rng.integers(60, size=60)])
        (a1, b1), (a0, b0) = f1_sums(one[rows], truth[rows]), f1_sums(other[rows], truth[rows])
        drawn.append(a1.sum() / b1.sum() - a0.sum() / b0.sum())
    low, high = np.percentile(drawn, (2.5, 97.5))
    found = cluster_bootstrap(sums, draws=400, seed=7)
    assert found.interval == pytest.approx((low, high), abs=1e-12)
    assert found.stderr == pytest.approx(np.std(drawn, ddof=1))
    far = sum(abs(draw - found.value) >= abs(found.value) for draw in drawn)
    assert found.p_value == pytest.approx((1 + far) / 401)


def test_of_means_the_bootstrap_and_the_t_test_agree() -> None:
    one, other, label = two_runs(5, clusters=300)
    sums = of_means(one, other, label)
    by_t, by_draws = cluster_t(sums), cluster_bootstrap(sums)
    assert by_draws.stderr == pytest.approx(by_t.stderr, rel=0.05)
    assert by_draws.p_value == pytest.approx(by_t.p_value, abs=0.03)
    assert cluster_bootstrap(sums) == by_draws
    assert cluster_bootstrap(sums, seed=1) != by_draws


def test_equal_runs_differ_by_nothing_and_the_interval_knows_how_few_there_are() -> None:
    one, _, label = two_runs(6, clusters=50)
    for found in (cluster_t(of_means(one, one, label)), cluster_bootstrap(of_means(one, one, label))):
        assert (found.value, found.stderr, found.p_value, found.method) == (0.0, None, 1.0, "cluster-exact")
        unseen = 1 - 0.025 ** (1 / 50)  # Clopper and Pearson's upper end with 0 of 50
        assert found.interval == pytest.approx((-unseen, unseen))
        assert binomtest(0, 50).proportion_ci(0.95).high == pytest.approx(unseen)


def test_an_interval_ends_where_no_difference_can_be() -> None:
    found = cluster_t(of_means(np.array([1.0, 1.0]), np.array([0.0, 0.5]), np.arange(2)))
    assert found.stderr == pytest.approx(0.25)  # times 12.7
    assert found.interval == (-1.0, 1.0)
    assert found.equivalence == (-1.0, 1.0)


def test_few_losses_are_limited_as_clopper_and_pearson_limit_a_share() -> None:
    """3 of 60 images are lost, each of one sample: the losses are a binomial share, the gains 0 of 60."""
    lost = np.array([1.0] * 3 + [0.0] * 57)
    found = cluster_t(of_means(1 - lost, np.ones(60), np.arange(60)))
    share, none = binomtest(3, 60).proportion_ci(0.95), binomtest(0, 60).proportion_ci(0.95)
    low = -0.05 - (share.high - 0.05)  # no gain was seen that could be fewer
    high = -0.05 + np.hypot(none.high, 0.05 - share.low)  # Zou and Donner's square of both limits
    assert found.equivalence == pytest.approx((low, high))
    assert found.interval[0] == pytest.approx(low)


def test_what_shows_in_none_of_the_images_is_allowed_for_before_runs_count_as_equal() -> None:
    """A flip of a hundredth in one of 60 images says nothing of what a whole image lost would be."""
    one, other = np.ones(60), np.array([1.0] * 59 + [0.99])
    found = cluster_t(of_means(other, one, np.arange(60)))
    unseen = binomtest(0, 60).proportion_ci(0.95).high
    assert found.equivalence[0] <= found.value - unseen + 1e-3
    assert found.equivalence[1] >= unseen - 1e-3
    assert found.interval[1] - found.interval[0] < 0.01


def test_a_lost_share_of_the_threshold_is_seldom_called_equal() -> None:
    """1,000 images of which 0.5% are lost, and a threshold of 0.5 points: at most 1 in 20."""
    rng, called = np.random.default_rng(1), 0
    for _ in range(300):
        lost = (rng.random(1000) < 0.005).astype(float)
        low, high = cluster_t(of_means(1 - lost, np.ones(1000), np.arange(1000))).equivalence
        called += low > -0.005 and high < 0.005
    assert called <= 15


def test_a_run_that_is_better_on_every_sample_is_tested_by_its_signs() -> None:
    found = cluster_t(of_means(np.ones(8), np.zeros(8), np.arange(8)))
    assert found.value == 1.0
    assert found.p_value == pytest.approx(binomtest(8, 8).pvalue)


def test_what_is_not_defined_is_none() -> None:
    one_cluster = cluster_t(of_means(np.array([1.0, 0.0]), np.array([0.0, 0.0]), np.zeros(2)))
    assert (one_cluster.value, one_cluster.stderr, one_cluster.p_value) == (0.5, None, None)
    nothing = cluster_t(paired_sums(([0.0, 0.0], [0.0, 0.0]), ([1.0, 0.0], [1.0, 1.0]), [1, 2]))
    assert (nothing.value, nothing.method) == (None, "undefined")
    # One cluster up, one down by the same: the differences differ, the clusters' u do not vanish.
    moved = cluster_t(of_means(np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.arange(2)))
    assert moved.value == 0.0
    assert moved.stderr == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(5))
def test_holm_equals_statsmodels(seed: int) -> None:
    p_values = np.random.default_rng(seed).random(9) ** 3
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert holm([]) == []


def test_the_minimum_detectable_effect_is_found_at_about_its_power() -> None:
    """The formula's t quantiles approximate the noncentral t, which statsmodels integrates."""
    effect = minimum_detectable_effect(0.02, 200)
    assert effect == pytest.approx((student.ppf(0.975, 199) + student.ppf(0.8, 199)) * 0.02)
    deviation = 0.02 * np.sqrt(200)
    exact = TTestPower().solve_power(nobs=200, alpha=0.05, power=0.8) * deviation
    assert effect == pytest.approx(exact, rel=0.01)
    by_statsmodels = TTestPower().power(effect / deviation, 200, 0.05)
    assert predicted_power(effect, 0.02, 200) == pytest.approx(by_statsmodels, abs=1e-6)


@pytest.mark.parametrize("ratio", [False, True])
def test_two_equal_models_are_told_apart_as_often_as_alpha_says(ratio: bool) -> None:
    """2,000 A/A comparisons on clustered samples: alarms in 3-7%, intervals cover 0 in 93-97%."""
    alarms = covered = 0
    for trial in range(2000):
        one, other, label = two_runs(100 + trial)
        if ratio:
            truth = (np.random.default_rng(trial).random(len(one)) < 0.5).astype(float)
            sums = paired_sums(f1_sums(one, truth), f1_sums(other, truth), label)
            found = cluster_bootstrap(sums, draws=400, seed=trial)
        else:
            found = cluster_t(of_means(one, other, label))
        assert found.p_value is not None
        assert found.interval is not None
        alarms += found.p_value < 0.05
        covered += found.interval[0] <= 0 <= found.interval[1]
    assert 60 <= alarms <= 140
    assert 1860 <= covered <= 1940


def test_a_loss_that_is_the_same_in_every_cluster_is_no_mystery() -> None:
    """Each of 200 images loses just one of its two samples: the clusters do not differ, and the sign test is clear."""
    image = np.repeat(np.arange(200), 2)
    found = cluster_t(of_means(np.tile([1.0, 0.0], 200), np.ones(400), image))
    assert found.value == -0.5
    assert found.p_value == pytest.approx(2 * (1 - 1 / 3) ** 200)
    assert found.interval is not None
    assert found.interval[1] < 0
    # F1 falls from 1 to 0 on every image; the denominators differ, so that nothing is linear.
    truth = np.tile([1.0, 0.0, 1.0], 100)
    for test in (cluster_t, cluster_bootstrap):
        fallen = test(paired_sums(f1_sums(np.zeros(300), truth), f1_sums(truth, truth), np.repeat(np.arange(100), 3)))
        assert fallen.value == -1.0
        assert fallen.p_value is not None
        assert fallen.p_value < 1e-6


def test_a_bootstrap_of_few_clusters_is_not_trusted() -> None:
    """With 8 images it would alarm in 12 of 100 equal pairs; the t test keeps to about 5."""
    alarms = 0
    for trial in range(400):
        one, other, label = two_runs(5000 + trial, clusters=8)
        truth = (np.random.default_rng(trial).random(len(one)) < 0.5).astype(float)
        found = cluster_bootstrap(paired_sums(f1_sums(one, truth), f1_sums(other, truth), label), draws=400)
        assert found.method in ("cluster-t", "cluster-exact", "undefined")
        alarms += found.p_value is not None and found.p_value < 0.05
    assert alarms <= 36
