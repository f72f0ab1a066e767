"""perpo.stats against statsmodels, closed forms, the written-out formulas, simulation, and a bootstrap of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap, norm
from scipy.stats import t as student
from statsmodels.stats.proportion import proportion_confint

from perpo.stats import Estimate, bootstrap_ratio, clustered_mean, clustered_ratio


def clustered_scores(seed: int, clusters: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """0/1 scores whose clusters differ in size and in difficulty."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(clusters), rng.integers(1, 9, clusters))
    ease = rng.beta(1, 1, clusters)[label]
    return (rng.random(len(label)) < ease).astype(float), label


def wilson(value: float, stderr: float, parts: np.ndarray) -> tuple[float, float]:
    """statsmodels' interval for the draws that a standard error is worth, by what each cluster adds to the value.

    The variance of the sum of squares of G parts, each estimated from itself, gives Satterthwaite's degrees of freedom.
    """
    groups, squares = len(parts), parts**2
    df = min(groups - 1, 2 * squares.sum() ** 2 / (squares.var() * groups))
    draws = value * (1 - value) / stderr**2 * (norm.ppf(0.975) / student.ppf(0.975, df)) ** 2
    low, high = proportion_confint(value * draws, draws, method="wilson")
    unseen = 1 - 0.025 ** (1 / groups)  # what shows in none of the clusters
    return min(low, value * (1 - unseen)), max(high, value + unseen * (1 - value))


def test_one_stratum_equals_statsmodels() -> None:
    scores, label = clustered_scores(1)
    fit = sm.OLS(scores, np.ones(len(scores))).fit(cov_type="cluster", cov_kwds={"groups": label}, use_t=True)
    found = clustered_mean(scores, label)
    assert found.value == pytest.approx(fit.params[0])
    assert found.stderr == pytest.approx(fit.bse[0])
    parts = np.bincount(label, scores - scores.mean()) / len(scores)
    assert (found.ci_low, found.ci_high) == pytest.approx(wilson(found.value, found.stderr, parts))
    assert (found.n, found.n_clusters, found.ci_method) == (len(scores), 40, "cluster-wilson")


def test_many_draws_of_one_cluster_each_have_wilsons_interval() -> None:
    scores = np.array([1.0] * 300 + [0.0] * 200)
    found = clustered_mean(scores, np.arange(500))
    low, high = proportion_confint(300, 500, method="wilson")
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high), abs=3e-4)  # t with 499 degrees, n - 1 for n


@pytest.mark.parametrize("scores", [[1.0] * 29 + [0.99], [0.0] * 29 + [1e-6], [1.0] * 29 + [0.0]])
def test_no_interval_leaves_the_range_nor_is_narrower_than_that_of_equal_scores(scores: list[float]) -> None:
    """0 of 30 by Clopper and Pearson: up to 11.6% of images may hold what shows in none."""
    found = clustered_mean(scores, np.arange(30))
    unseen = binomtest(0, 30).proportion_ci(0.95).high
    assert 0 <= found.ci_low <= found.value * (1 - unseen)
    assert found.value + unseen * (1 - found.value) <= found.ci_high <= 1


def test_coverage_near_the_end_of_the_scale() -> None:
    """30 images of up to 8 samples, 98% right, images of one fate among them: a t interval holds the truth in 84%."""
    rng, hits, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        label = np.repeat(np.arange(30), rng.integers(1, 9, 30))
        luck = np.where((rng.random(30) < 1 / 3)[label], rng.random(30)[label], rng.random(len(label)))
        found = clustered_mean((luck < 0.98).astype(float), label)
        hits += found.ci_low <= 0.98 <= found.ci_high
    assert hits / trials >= 0.93


def test_clusters_of_one_give_the_plain_standard_error() -> None:
    scores = np.random.default_rng(2).random(50)
    found = clustered_mean(scores, np.arange(50))
    assert found.stderr == pytest.approx(scores.std(ddof=1) / np.sqrt(50))
    assert found.ci_high == pytest.approx(wilson(found.value, found.stderr, (scores - scores.mean()) / 50)[1])


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


@dataclass(frozen=True)
class Splits:
    """Yes/no answers in three splits that ask about the same images, as POPE's do.

    The questions answered "yes" are the same in the three splits, and so are what a model says to them.
    """

    true_positive: np.ndarray
    denominator: np.ndarray  # of F1: 2 tp + fp + fn
    right: np.ndarray
    image: np.ndarray
    split: np.ndarray

    @staticmethod
    def draw(seed: int, images: int = 120, questions: int = 3) -> Splits:
        """`questions` of either label per image and split; images differ in difficulty."""
        rng = np.random.default_rng(seed)
        ease = rng.beta(4, 1, images)
        shared = rng.random((images, questions)) < ease[:, None]
        parts = []
        for split, penalty in enumerate((0.0, 0.1, 0.2)):
            negative = rng.random((images, questions)) < ease[:, None] - penalty
            said_right = np.concatenate([shared, negative], axis=1).ravel()
            positive = np.tile(np.arange(2 * questions) < questions, images)
            wrong = ~said_right
            parts.append((positive & said_right, 2.0 * (positive & said_right) + wrong, said_right, split))
        image = np.tile(np.repeat(np.arange(images), 2 * questions), 3)
        tp, denominator, right = (np.concatenate([part[i] for part in parts]).astype(float) for i in range(3))
        return Splits(tp, denominator, right, image, np.repeat([0, 1, 2], images * 2 * questions))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(images, 3) sums of the values of each image in each split."""
        table = np.zeros((self.image.max() + 1, 3))
        np.add.at(table, (self.image, self.split), values)
        return table

    def fraction(self, score: str) -> tuple[np.ndarray, np.ndarray]:
        """Numerators and denominators of a score's ratio."""
        return (2 * self.true_positive, self.denominator) if score == "f1" else (self.right, np.ones(len(self.right)))


def bootstrap_stderr(numerators: np.ndarray, denominators: np.ndarray, seed: int, draws: int = 20_000) -> float:
    """Deviation of the mean of the splits' ratios where images are drawn with replacement, all splits at once."""
    images = len(numerators)
    times = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=draws)
    return float(((times @ numerators) / (times @ denominators)).mean(axis=1).std())


@pytest.mark.parametrize("score", ["f1", "accuracy"])
@pytest.mark.parametrize("seed", [11, 12])
def test_splits_that_share_images_agree_with_a_joint_bootstrap(score: str, seed: int) -> None:
    """Within 3%: 20,000 draws are uncertain by 0.5%, the linearisation by about 1 / images."""
    splits = Splits.draw(seed)
    a, b = splits.fraction(score)
    found = clustered_ratio(a, b, splits.image, splits.split)
    tables = splits.sums(a), splits.sums(b)
    assert found.value == pytest.approx((tables[0].sum(0) / tables[1].sum(0)).mean())
    assert found.stderr == pytest.approx(bootstrap_stderr(*tables, seed), rel=0.03)


@pytest.mark.parametrize("score", ["f1", "accuracy"])
def test_splits_that_share_images_are_not_independent(score: str) -> None:
    """Adding the three variances, as for separate images, would claim an interval a fifth too narrow at least."""
    splits = Splits.draw(13)
    a, b = splits.fraction(score)
    joint = clustered_ratio(a, b, splits.image, splits.split).stderr
    alone = [clustered_ratio(*(x[splits.split == t] for x in (a, b, splits.image))).stderr for t in range(3)]
    assert joint > 1.25 * np.sqrt(np.square(alone).sum()) / 3


def test_a_ratio_with_clusters_of_one_is_the_textbook_ratio_estimator() -> None:
    """Cochran 1977, equation 6.13 without the finite population: sqrt(sum (y - R x)^2 / (n - 1) / n) / mean x."""
    rng = np.random.default_rng(14)
    x = rng.integers(1, 9, 60).astype(float)
    y = x * rng.random(60)
    ratio = y.sum() / x.sum()
    found = clustered_ratio(y, x, np.arange(60))
    expected = np.sqrt(((y - ratio * x) ** 2).sum() / 59 / 60) / x.mean()
    assert (found.value, found.stderr) == (pytest.approx(ratio), pytest.approx(expected))
    assert found.ci_low == pytest.approx(wilson(ratio, expected, (y - ratio * x) / x.sum())[0])


def test_precision_equals_statsmodels_regression_through_the_answers() -> None:
    """Precision is the mean of "right" over the rows answered yes: a regression on a constant over these rows."""
    scores, label = clustered_scores(15)
    yes = np.random.default_rng(16).random(len(scores)) < 0.6
    fit = sm.OLS(scores[yes], np.ones(yes.sum())).fit(cov_type="cluster", cov_kwds={"groups": label[yes]}, use_t=True)
    found = clustered_ratio(scores * yes, yes, label)
    assert (found.value, found.stderr) == (pytest.approx(fit.params[0]), pytest.approx(fit.bse[0]))
    assert (found.n, found.n_clusters) == (len(scores), len(np.unique(label[yes])))


def test_the_linearised_formula_written_out() -> None:
    splits = Splits.draw(17, images=9)
    a, b = splits.fraction("f1")
    squares, counted = 0.0, 0
    for image in range(9):
        here = splits.image == image
        u = 0.0
        for split in range(3):
            of = splits.split == split
            u += (a[here & of] - a[of].sum() / b[of].sum() * b[here & of]).sum() / b[of].sum() / 3
        squares += u**2
        counted += bool(b[here].any())
    found = clustered_ratio(a, b, splits.image, splits.split)
    assert found.stderr == pytest.approx(np.sqrt(counted / (counted - 1) * squares))
    assert found.n_clusters == counted


def test_a_ratio_over_ones_is_the_mean() -> None:
    scores, label = clustered_scores(18)
    assert clustered_ratio(scores, np.ones(len(scores)), label) == clustered_mean(scores, label)


def test_one_ratio_everywhere_has_the_exact_interval_of_the_clusters_that_count() -> None:
    """Every yes is right, in 17 of 20 images; the other 3 hold no yes and say nothing of precision."""
    size = np.tile([1.0, 2.0], 20)
    size[34:] = 0
    found = clustered_ratio(size, size, np.repeat(np.arange(20), 2))
    exact = binomtest(17, 17).proportion_ci(method="exact")
    assert (found.value, found.stderr, found.ci_method, found.n_clusters) == (1.0, None, "cluster-exact", 17)
    assert (found.ci_low, found.ci_high) == pytest.approx((exact.low, 1.0))


def test_a_stratum_without_a_denominator_leaves_the_ratio_undefined() -> None:
    found = clustered_ratio([1, 0, 0, 0], [1, 1, 0, 0], ["a", "b", "a", "c"], ["s", "s", "t", "t"])
    assert found == Estimate(None, None, None, None, 4, 2, "undefined")
    assert clustered_ratio([0, 0], [0, 0], ["a", "b"]) == Estimate(None, None, None, None, 2, 0, "undefined")


@pytest.mark.parametrize(
    ("numerators", "denominators", "message"),
    [
        ([1.0, float("nan")], [1.0, 1.0], "not finite"),
        ([1.0, 0.0], [1.0, float("inf")], "not finite"),
        ([1.0, 0.0], [1.0, -1.0], "negative"),
        ([1.0, 0.5], [1.0, 0.0], "not 0 where"),
        ([1.0, 0.5], [1.0], "equal lengths"),
    ],
)
def test_bad_fractions_are_refused(numerators: list[float], denominators: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clustered_ratio(numerators, denominators, ["a", "b"])


def rated(seed: int, images: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ratings of a model and of a reference, two or three questions an image, as LLaVA-Bench has them."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(images), rng.integers(2, 4, images))
    ease = rng.normal(0, 1, images)[label]
    reference = np.clip(np.rint(rng.normal(8.5, 0.8, len(label))), 1, 10)
    return np.clip(np.rint(rng.normal(5.5, 2, len(label)) + ease), 1, 10), reference, label


def test_a_bootstrapped_ratio_agrees_with_scipys() -> None:
    """Images drawn again; scipy's percentiles at the expanded level, Phi(sqrt(24 / 23) t) on either side."""
    model, reference, label = rated(1)
    found = bootstrap_ratio(model, reference, label, draws=40_000)
    level = norm.cdf(np.sqrt(24 / 23) * student.ppf(0.025, 23))
    sums = [np.bincount(label, weights=part) for part in (model, reference)]
    theirs = bootstrap(
        sums,
        lambda above, below, axis: above.sum(axis) / below.sum(axis),
        paired=True,
        n_resamples=40_000,
        confidence_level=1 - 2 * level,
        method="percentile",
        random_state=2,
    )
    ends = theirs.confidence_interval
    assert found.value == pytest.approx(model.sum() / reference.sum())
    assert (found.ci_low, found.ci_high) == pytest.approx((ends.low, ends.high), abs=0.002)
    assert found.stderr == pytest.approx(np.sqrt(24 / 23) * theirs.standard_error, rel=0.02)
    assert (found.n, found.n_clusters, found.ci_method) == (len(model), 24, "cluster-bootstrap")
    assert bootstrap_ratio(model, reference, label, draws=40_000) == found


def test_a_bootstrapped_interval_covers_the_truth_with_few_images() -> None:
    """95% of 400 data sets of 24 images."""
    model, reference, _ = rated(0, 100_000)
    truth = model.sum() / reference.sum()
    hits = 0
    for seed in range(1, 401):
        found = bootstrap_ratio(*rated(seed), draws=1000)
        hits += found.ci_low <= truth <= found.ci_high
    assert binomtest(hits, 400, 0.95).pvalue > 0.001


def test_strata_are_drawn_together() -> None:
    """The same rows once more in a second stratum change nothing, since an image brings both."""
    model, reference, label = rated(3)
    once = bootstrap_ratio(model, reference, label)
    strata = np.repeat(["a", "b"], len(label))
    twice = bootstrap_ratio(np.tile(model, 2), np.tile(reference, 2), np.tile(label, 2), strata)
    assert (twice.value, twice.ci_low, twice.stderr) == pytest.approx((once.value, once.ci_low, once.stderr))


def test_where_a_bootstrap_sees_nothing_the_linearised_interval_stands() -> None:
    model, reference, label = rated(4, 9)
    assert bootstrap_ratio(model, reference, label) == clustered_ratio(model, reference, label)
    assert clustered_ratio(model, reference, label).ci_method == "cluster-wilson"
    wide, cut = (ratio([1.0, 0.0], [1.0, 1.0], ["a", "b"]) for ratio in (clustered_ratio, bootstrap_ratio))
    assert cut == wide
    assert 0 <= wide.ci_low < 0.01 < 0.99 < wide.ci_high <= 1
    same = bootstrap_ratio(reference, reference, rated(4, 9)[2], bounds=(0.1, 10.0))
    assert (same.value, same.stderr, same.ci_method) == (1.0, None, "cluster-exact")
    assert bootstrap_ratio([], [], []).value is None
