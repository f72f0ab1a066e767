"""perpo.stats against statsmodels, closed forms, the written-out formula, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import t as student

from perpo.stats import clustered_mean


def clustered_scores(seed: int, clusters: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """0/1 scores whose clusters differ in size and in difficulty."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(clusters), rng.integers(1, 9, clusters))
    ease = rng.beta(1, 1, clusters)[label]
    return (rng.random(len(label)) < ease).astype(float), label


def test_one_stratum_equals_statsmodels() -> None:
    scores, label = clustered_scores(1)
    fit = sm.OLS(scores, np.ones(len(scores))).fit(cov_type="cluster", cov_kwds={"groups": label}, use_t=True)
    found = clustered_mean(scores, label)
    assert found.value == pytest.approx(fit.params[0])
    assert found.stderr == pytest.approx(fit.bse[0])
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(fit.conf_int(0.05)[0]))
    assert (found.n, found.n_clusters, found.ci_method) == (len(scores), 40, "cluster-t")


def test_clusters_of_one_give_the_plain_standard_error() -> None:
    scores = np.random.default_rng(2).random(50)
    found = clustered_mean(scores, np.arange(50))
    assert found.stderr == pytest.approx(scores.std(ddof=1) / np.sqrt(50))
    assert found.ci_high == pytest.approx(scores.mean() + student.ppf(0.975, 49) * found.stderr)


def test_the_formula_of_the_paper() -> None:
    """Miller 2024, section 2.2: SE^2 = SE_CLT^2 + sum_c sum_{i != j} (s_i - m)(s_j - m) / n^2, uncorrected."""
    scores, label = clustered_scores(3, clusters=12)
    n, centred = len(scores), scores - scores.mean()
    crossed = sum(centred[i] * centred[j] for i in range(n) for j in range(n) if i != j and label[i] == label[j])
    uncorrected = np.sqrt((centred**2).sum() / n**2 + crossed / n**2)
    assert clustered_mean(scores, label).stderr == pytest.approx(uncorrected * np.sqrt(12 / 11))


def test_strata_weigh_the_same_and_share_clusters() -> None:
    """The average of two means, written out: variance of the sum over clusters of both influence terms."""
    scores, label = clustered_scores(4)
    task = np.random.default_rng(5).random(len(scores)) < 0.8
    found = clustered_mean(scores, label, np.where(task, "a", "b"))
    means = scores[task].mean(), scores[~task].mean()
    assert found.value == pytest.approx((means[0] + means[1]) / 2)
    total = 0.0
    for cluster in range(40):
        here = label == cluster
        part = (scores[here & task] - means[0]).sum() / task.sum()
        part += (scores[here & ~task] - means[1]).sum() / (~task).sum()
        total += (part / 2) ** 2
    assert found.stderr == pytest.approx(np.sqrt(40 / 39 * total))


def test_strata_on_separate_clusters_add_their_variances() -> None:
    a, label_a = clustered_scores(6, 500)
    b, label_b = clustered_scores(7, 500)
    both = clustered_mean(np.r_[a, b], np.r_[label_a, 500 + label_b], ["a"] * len(a) + ["b"] * len(b))
    parts = clustered_mean(a, label_a).stderr, clustered_mean(b, label_b).stderr
    assert both.stderr == pytest.approx(np.hypot(*parts) / 2, rel=2e-3)  # up to the corrections for G


def test_interval_covers_the_truth_where_tasks_share_images() -> None:
    """95% intervals over images with their own difficulty, each asked about in two tasks."""
    rng = np.random.default_rng(8)
    images, hits, trials = 60, 0, 600
    label = np.tile(np.repeat(np.arange(images), 3), 2)
    task = np.repeat(["a", "b"], images * 3)
    for _ in range(trials):
        ease = rng.beta(2, 1, images)  # mean 2/3, so the truth is 2/3 in both tasks
        found = clustered_mean((rng.random(len(label)) < ease[label]).astype(float), label, task)
        hits += found.ci_low <= 2 / 3 <= found.ci_high
    assert 0.93 <= hits / trials <= 0.97


@pytest.mark.parametrize(("score", "clusters"), [(0.0, 17), (1.0, 300)])
def test_a_constant_rate_has_the_exact_interval_of_its_clusters(score: float, clusters: int) -> None:
    label = np.repeat(np.arange(clusters), 2)
    found = clustered_mean(np.full(2 * clusters, score), label)
    exact = binomtest(int(score) * clusters, clusters).proportion_ci(method="exact")
    assert (found.value, found.stderr, found.ci_method) == (score, None, "cluster-exact")
    assert (found.ci_low, found.ci_high) == pytest.approx((exact.low, exact.high))


def test_no_difference_at_all_has_an_interval_around_zero() -> None:
    found = clustered_mean(np.zeros(20), np.arange(20), bounds=(-1, 1))
    unseen = binomtest(0, 20).proportion_ci(method="exact").high
    assert (found.ci_low, found.ci_high) == pytest.approx((-unseen, unseen))


@pytest.mark.parametrize(
    ("scores", "label"),
    [([1.0, 0.0, 1.0], ["x", "x", "x"]), ([1.0, 0.0, 1.0, 0.0], ["x", "x", "y", "y"])],
    ids=["one cluster", "clusters with one mean"],
)
def test_undefined_is_none_never_zero(scores: list[float], label: list[str]) -> None:
    found = clustered_mean(scores, label)
    assert found.value == pytest.approx(np.mean(scores))
    assert (found.stderr, found.ci_low, found.ci_high, found.ci_method) == (None, None, None, "undefined")


def test_nothing_scored() -> None:
    found = clustered_mean([], [])
    assert (found.value, found.stderr, found.n, found.n_clusters) == (None, None, 0, 0)


@pytest.mark.parametrize("scores", [[0.0, float("nan")], [0.0, float("inf")], [0.0]])
def test_bad_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match=r"finite|equal lengths"):
        clustered_mean(scores, ["a", "b"])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), st.sampled_from("ab")), min_size=2, max_size=30),
    st.randoms(use_true_random=False),
)
def test_order_and_names_do_not_matter(rows: list[tuple[float, int, str]], random: object) -> None:
    def estimate(items: list[tuple[float, int, str]], offset: int) -> tuple[float | None, ...]:
        scores, label, task = zip(*items, strict=True)
        found = clustered_mean(scores, [f"c{offset - number}" for number in label], task)
        return found.value, found.stderr, found.ci_low, found.ci_high

    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for one, other in zip(estimate(rows, 0), estimate(shuffled, 9), strict=True):
        assert one == pytest.approx(other, abs=1e-9)
