"""Simulated gates: what `simulate_tests.py` asks of a whole report, of several seeds a side, and of extreme shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from numpy.typing import NDArray

from perpo.benchmarks.table import INFO
from perpo.results.regression.measure import Sides, numbered, rows_of
from perpo.results.regression.parts import ReportPart
from perpo.results.regression.rows import Wanted
from perpo.results.regression.slices import Slice
from perpo.results.regression.verdicts import decided
from perpo.results.samples import Scores
from perpo.stats import Difference, cluster_t, clustered_mean, crossed_t, paired_sums

TASKS = ("a", "b", "c")
BOXES = INFO["grounding"]
PARTS = [*(ReportPart(task, "all", BOXES, [task]) for task in TASKS), ReportPart("all", "all", BOXES, list(TASKS))]
SPREAD = 0.15
"""Deviation between seeds of the log-odds of a right answer."""


def parallel(work: Callable[..., object], settings: Sequence[tuple]) -> list:
    """Do the same work for every setting, two at a time, the longest first."""
    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(work, *zip(*settings, strict=True)))


def runs_of_one_quality(rng: np.random.Generator, images: int, runs: int) -> tuple[list[Scores], list[Slice]]:
    """Runs that are equally good, on three tasks of which two stand on the same images, with kinds of samples.

    IoU, Acc@0.5, unreadable and cut answers of a run go together; runs share what makes an image and a sample hard.
    """
    image = np.repeat(np.arange(images), rng.integers(1, 9, images))
    n = len(image)
    task = rng.integers(3, size=n)
    cluster = np.where(task == 2, image + images, image)
    hard = rng.normal(0, 1, images)[image] + rng.normal(0, 1, n)
    keys = np.array([f"{place:07d}" for place in range(n)])
    size, length = np.digitize(hard + rng.normal(0, 1, n), (-1.5, 0, 1.5)), rng.integers(0, 4, n)
    names = np.array(TASKS)[task]
    scored = []
    for _ in range(runs):
        skill = 1.2 - hard + rng.normal(0, 0.5, images)[image] + rng.normal(0, 1, n)
        unreadable = skill < -3.2
        iou = np.where(unreadable, 0.0, 1 / (1 + np.exp(-skill)))
        cut = (unreadable & (rng.random(n) < 0.5)) | (rng.random(n) < 0.002)
        values = {"acc@0.5": (iou >= 0.5).astype(float), "iou": iou, "parse_fail": unreadable.astype(float)}
        values |= {"center_acc": (iou >= 0.4).astype(float)}
        scored.append(Scores(keys, names, cluster.astype(str), values, None, cut.astype(float)))
    slices = [
        Slice(name, (kind, str(code)), keys[(names == name) & (codes == code)].tolist())
        for name in TASKS
        for kind, codes in (("size", size), ("length", length))
        for code in range(4)
        if ((names == name) & (codes == code)).any()
    ]
    return scored, slices


def false_alarms(images: int, runs: int, wanted: Wanted, trials: int) -> tuple[float, float, float]:
    """Return how often a gate with runs a side that are equally good finds any difference, or fails, and its rows."""
    rng, differing, failed, rows = np.random.default_rng(images + runs), 0, 0, 0
    for _ in range(trials):
        scored, slices = runs_of_one_quality(rng, images, 2 * runs)
        sides = numbered(Sides(scored[:runs], scored[runs:]), np.unique(scored[0].clusters))
        made = [
            row for part in PARTS for row in rows_of(part, sides, wanted, slices if wanted.slices == "gate" else ())
        ]
        made = [row for row in made if row.role != "told"]
        gating = [row for row in decided(made, [False] * len(made), draws=1000) if row.role != "told"]
        differing += any(row.p_adjusted is not None and row.p_adjusted < 0.05 for row in gating)
        failed += any(row.fails for row in gating)
        rows += len(gating)
    return differing / trials, failed / trials, rows / trials


def _right(rng: np.random.Generator, share: float, image: NDArray, luck: NDArray, runs: int, spread: float) -> list:
    """Right answers of runs of one configuration, and the share that each is right of in the long run."""
    odds = np.log(share / (1 - share))
    shares = 1 / (1 + np.exp(-(odds + spread * rng.normal(0, 1, runs))))
    own = rng.random((runs, len(image)))
    mixed = np.where(rng.random((runs, len(image))) < 0.6, luck, own)
    return [((mixed[run] < shares[run]).astype(float), float(shares[run])) for run in range(runs)]


def expected_share(share: float, spread: float) -> float:
    """Return what runs are right of on average over seeds (Gauss and Hermite's quadrature)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    odds = np.log(share / (1 - share)) + spread * nodes
    return float((weights / (1 + np.exp(-odds))).sum() / weights.sum())


def covered(images: int, share: float, runs: tuple[int, int], trials: int) -> float:
    """Return how often the interval of a difference holds the true one; of one run a side that of these two runs."""
    rng, held, told = np.random.default_rng(images + int(100 * share)), 0, 0
    shares = (1 / (1 + np.exp(-(np.log(share / (1 - share)) + 0.2))), share)
    for _ in range(trials):
        image = np.repeat(np.arange(images), rng.integers(1, 5, images))
        whole = rng.random(images) < 1 / 3
        luck = np.where(whole[image], rng.random(images)[image], rng.random(len(image)))
        ours, theirs = (_right(rng, each, image, luck, count, SPREAD) for each, count in zip(shares, runs, strict=True))
        ones = np.ones(len(image))
        sums = [[(right, ones) for right, _ in side] for side in (ours, theirs)]
        if runs == (1, 1):
            difference: Difference = cluster_t(paired_sums(sums[0][0], sums[1][0], image))
            true = ours[0][1] - theirs[0][1]
        else:
            difference = crossed_t(*sums, image)
            true = expected_share(shares[0], SPREAD) - expected_share(shares[1], SPREAD)
        if difference.interval is not None:
            told += 1
            held += difference.interval[0] <= true <= difference.interval[1]
    return held / max(told, 1)


def called_unchanged(images: int, runs: int, loss: float, trials: int, threshold: float = 0.005) -> float:
    """Return how often several seeds a side are called unchanged, of which one side's lose `loss` more on average."""
    rng, called = np.random.default_rng(images + runs), 0
    for _ in range(trials):
        image = np.repeat(np.arange(images), rng.integers(1, 5, images))
        ones, common = np.ones(len(image)), rng.random(len(image))
        sides = []
        for more in (loss, 0.0):
            wrong = np.maximum(0.01 + more + rng.normal(0, 0.001, runs), 0)
            luck = np.where(rng.random((runs, len(image))) < 0.95, common, rng.random((runs, len(image))))
            sides.append([((luck[run] >= wrong[run]).astype(float), ones) for run in range(runs)])
        within = crossed_t(*sides, image).equivalence
        called += within is not None and -threshold < within[0] and within[1] < threshold
    return called / trials


def covered_alone(images: int, share: float, trials: int) -> float:
    """Return how often one run's own interval holds the true share."""
    rng, held = np.random.default_rng(images + int(1000 * share)), 0
    for _ in range(trials):
        image = np.repeat(np.arange(images), rng.integers(1, 5, images))
        whole = rng.random(images) < 1 / 3
        luck = np.where(whole[image], rng.random(images)[image], rng.random(len(image)))
        estimate = clustered_mean((luck < share).astype(float), image)
        held += (
            estimate.ci_low is not None
            and estimate.ci_high is not None
            and estimate.ci_low <= share <= estimate.ci_high
        )
    return held / trials
