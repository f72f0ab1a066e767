"""Do the tests and intervals of perpo.stats.paired and perpo.stats keep their promises, on simulated clusters?

    python benchmarks/simulate_tests.py [--trials 2000] [--part gate]

Tables: type-I error, coverage and power of a difference; coverage of one run's interval near the ends of the
scale; how often two runs of which one has lost are called unchanged; false alarms of a whole gate; and coverage from 20
to 10,000 images with several seeds a side (both from `simulated_gates.py`). Two processes share the work.

Images have 1 to 8 samples that share a difficulty, runs share most of it, and two of three splits stand on the
same images. Each line is one kind of metric at one number of images; the plain t test over samples, which
ignores clusters, is beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import simulated_gates as gates
from numpy.typing import NDArray
from scipy.stats import ttest_1samp
from simulated_gates import parallel

from perpo.benchmarks.metrics import METRICS
from perpo.results.regression.rows import Wanted
from perpo.results.text import Text
from perpo.stats import (
    Difference,
    Estimate,
    cluster_bootstrap,
    cluster_t,
    clustered_mean,
    clustered_ratio,
    paired_sums,
    predicted_power,
)


def percent(shares: Sequence[float]) -> list[str]:
    """Return shares in percent."""
    return [f"{100 * share:.1f}" for share in shares]


F1 = next(metric for metric in METRICS["pope"] if metric.name == "f1")


@dataclass(frozen=True)
class TwoRuns:
    """Scores of two runs: right or not, per sample."""

    one: NDArray[np.float64]
    other: NDArray[np.float64]
    truth: NDArray[np.float64]
    image: NDArray[np.int64]
    split: NDArray[np.int64]


def draw(rng: np.random.Generator, images: int, effect: float) -> TwoRuns:
    """Two runs of equal quality, but for `effect`: the share of wrong answers that one of them gets right."""
    image = np.repeat(np.arange(images), rng.integers(1, 9, images))
    split = rng.integers(3, size=len(image))
    shared = rng.beta(2, 1, images)
    ease = [np.clip(shared + rng.normal(0, 0.1, images), 0, 1)[image] for _ in range(2)]
    common = rng.random(len(image))
    draws = [np.where(rng.random(len(image)) < 0.6, common, rng.random(len(image))) for _ in range(2)]
    one, other = (luck < each for luck, each in zip(draws, ease, strict=True))
    one = one | (rng.random(len(image)) < effect)
    truth = (rng.random(len(image)) < 0.5).astype(float)
    return TwoRuns(one.astype(float), other.astype(float), truth, image, split)


def compare(pair: TwoRuns, kind: str, seed: int) -> Difference:
    """The test that perpo-report would make."""
    if kind == "mean":
        ones = np.ones(len(pair.one))
        return cluster_t(paired_sums((pair.one, ones), (pair.other, ones), pair.image, pair.split))
    runs = []
    for right in (pair.one, pair.other):
        said = np.where(right > 0, pair.truth, 1 - pair.truth)
        columns = {"tp": said * pair.truth, "fp": said * (1 - pair.truth), "fn": (1 - said) * pair.truth}
        runs.append(F1.sums(columns))
    return cluster_bootstrap(paired_sums(*runs, pair.image, pair.split), draws=1000, seed=seed)


def line(kind: str, images: int, trials: int) -> list[str]:
    """Type-I error, coverage and power of one kind of metric at one number of images."""
    rng = np.random.default_rng(images)
    same = [draw(rng, images, 0.0) for _ in range(trials)]
    differences = [compare(pair, kind, n) for n, pair in enumerate(same)]
    alarms = np.mean([(each.p_value or 1.0) < 0.05 for each in differences])
    covered = np.mean([each.interval is not None and each.interval[0] <= 0 <= each.interval[1] for each in differences])
    naive = np.mean([ttest_1samp(pair.one - pair.other, 0).pvalue < 0.05 for pair in same])
    effect = 0.08
    better = [compare(draw(rng, images, effect), kind, n) for n in range(trials)]
    power = np.mean([(each.p_value or 1.0) < 0.05 for each in better])
    mean = float(np.mean([each.value or 0.0 for each in better]))
    predicted = predicted_power(mean, float(np.mean([each.stderr or 0.0 for each in better])), images)
    numbers = [f"{100 * share:.1f}" for share in (alarms, covered, naive, power, predicted)]
    return [kind, str(images), *numbers]


def one_run(rng: np.random.Generator, kind: str, images: int, most: int, quality: float) -> Estimate:
    """One run's number: images of 1 to `most` samples, of which every third has one fate."""
    image = np.repeat(np.arange(images), rng.integers(1, most + 1, images))
    whole = rng.random(images) < 1 / 3
    luck = np.where(whole[image], rng.random(images)[image], rng.random(len(image)))
    right = (luck < quality).astype(float)
    if kind == "mean":
        return clustered_mean(right, image)
    if kind == "mean of shares":  # such as IoU: nearly 1 where it is right, 0 where it is not
        return clustered_mean(right * (1 - rng.uniform(0, 0.05, len(image))), image)
    truth = rng.random(len(image)) < 0.5
    said = np.where(right > 0, truth, ~truth)
    counted = {"tp": said & truth, "fp": said & ~truth, "fn": ~said & truth}
    return clustered_ratio(*F1.sums({name: column.astype(float) for name, column in counted.items()}), image)


def coverage(kind: str, images: int, most: int, quality: float, trials: int) -> list[str]:
    """Return how often one run's interval holds the true number, and how wide it is."""
    rng = np.random.default_rng(images)
    true = quality * 0.975 if kind == "mean of shares" else quality  # F1 of equal labels is the accuracy
    estimates = [one_run(rng, kind, images, most, quality) for _ in range(trials)]
    ends = [(each.ci_low, each.ci_high) for each in estimates if each.ci_low is not None and each.ci_high is not None]
    covered = sum(low <= true <= high for low, high in ends) / len(ends)
    width = float(np.mean([high - low for low, high in ends])) / 2
    return [kind, str(images), f"1 to {most}", f"{quality:.2f}", f"{100 * covered:.1f}", f"{100 * width:.1f}"]


def called_unchanged(images: int, most: int, loss: float, churn: float, trials: int, threshold: float = 0.005) -> float:
    """Return how often a run is called unchanged that has lost `loss` of its samples, and `churn` both ways besides."""
    rng, called = np.random.default_rng(images), 0
    for _ in range(trials):
        image = np.repeat(np.arange(images), rng.integers(1, most + 1, images))
        whole = rng.random(images) < 1 / 3
        luck = np.where(whole[image], rng.random(images)[image], rng.random(len(image)))
        change = np.where(luck < loss + churn, -1.0, np.where(luck < loss + 2 * churn, 1.0, 0.0))
        ones = np.ones(len(image))
        told = cluster_t(paired_sums((1 + np.minimum(change, 0), ones), (1 - np.maximum(change, 0), ones), image))
        within = told.equivalence
        called += within is not None and -threshold < within[0] and within[1] < threshold
    return called / trials


def differences(trials: int) -> None:
    """Print the table of tests of two runs."""
    header = ["metric", "images", "type-I error", "coverage", "type-I, unclustered", "power", "predicted power"]
    rows = parallel(line, [(kind, images, trials) for kind in ("mean", "F1") for images in (50, 200, 800)])
    notes = [f"Percent of {trials:,} trials; alpha is 5, intervals are meant to cover 95."]
    Text("Simulated comparisons", header, rows, notes).show()


def intervals(trials: int) -> None:
    """Print the table of one run's intervals near the ends of the scale."""
    settings = [
        (kind, images, most, quality, trials)
        for kind in ("mean", "mean of shares", "F1")
        for images, most in ((30, 1), (30, 8), (100, 1), (100, 8))
        for quality in (0.7, 0.9, 0.95, 0.98)
    ]
    header = ["metric", "images", "samples each", "true value", "coverage", "half of the width"]
    Text("One run's interval", header, parallel(coverage, settings), ["Percent; 95 is meant."]).show()


def equivalence(trials: int) -> None:
    """Print how often runs are called unchanged, of one run and of several a side."""
    losses = (0, 0.005, 0.01, 0.02)
    sizes = ((60, 1), (300, 8), (1000, 1), (1000, 8), (3000, 1))
    worlds = [(n, most, churn) for n, most in sizes for churn in (0, 0.01)]
    told = parallel(called_unchanged, [(n, most, loss, churn, trials) for n, most, churn in worlds for loss in losses])
    rows = [
        [str(n), f"1 to {most}", f"{100 * churn:g}", *percent(told[4 * place : 4 * place + 4])]
        for place, (n, most, churn) in enumerate(worlds)
    ]
    header = ["images", "samples each", "churn", "no loss", "0.5 (the threshold)", "1", "2 points lost"]
    Text("How often a run is called unchanged", header, rows, ["Percent of the trials; threshold 0.5 points."]).show()
    seeds = [(n, runs) for n in (1000, 4000, 10_000) for runs in (2, 3)]
    fewer = max(trials // 4, 1)
    told = parallel(gates.called_unchanged, [(n, runs, loss, fewer) for n, runs in seeds for loss in (0, 0.005, 0.01)])
    rows = [[str(n), str(runs), *percent(told[3 * k : 3 * k + 3])] for k, (n, runs) in enumerate(seeds)]
    header = ["images", "runs a side", "no loss", "0.5 (the threshold)", "1 point lost"]
    notes = [f"Percent of {fewer:,} trials; threshold 0.5 points, 1 to 4 samples an image; seeds differ by 0.1 points."]
    Text("How often several seeds are called unchanged", header, rows, notes).show()


def gate(trials: int) -> None:
    """Print the false alarms of whole reports."""
    asked = [("primary", "none"), ("losses", "none"), ("losses", "gate"), ("all", "gate")]
    settings = [(n, 1, metrics, slices) for n in (100, 400) for metrics, slices in asked]
    settings += [(100, 2, "losses", "gate"), (100, 3, "losses", "gate")]
    wanted = [(n, runs, Wanted({}, metrics, slices), trials) for n, runs, metrics, slices in settings]
    rows = [
        [str(n), str(runs), metrics, slices, f"{tests:.0f}", *percent((differing, failed))]
        for (n, runs, metrics, slices), (differing, failed, tests) in zip(
            settings, parallel(gates.false_alarms, wanted), strict=True
        )
    ]
    header = ["images", "runs a side", "--metrics", "--slices", "rows", "any difference found", "gate fails"]
    notes = [f"Percent of {trials:,} comparisons of equally good runs; 5 is meant of the differences found."]
    Text("False alarms of a gate over metrics and kinds of samples", header, rows, notes).show()


def seeds(trials: int) -> None:
    """Print the coverage of intervals from 20 to 10,000 images, of one run, of two, and of several a side."""
    sides = ((1, 1), (2, 1), (2, 2), (3, 2), (3, 3))
    worlds = [(n, share) for n in (20, 50, 100, 1000, 10_000) for share in (0.02, 0.1, 0.5, 0.9, 0.98)]
    fewer = {n: max(trials // (2 if n == 10_000 else 1), 1) for n, _ in worlds}
    alone = parallel(gates.covered_alone, [(n, share, fewer[n]) for n, share in worlds])
    both = parallel(gates.covered, [(n, share, side, fewer[n]) for n, share in worlds for side in sides])
    rows = [
        [f"{n:,}", f"{share:g}", *percent((alone[k], *both[k * len(sides) : (k + 1) * len(sides)]))]
        for k, (n, share) in enumerate(worlds)
    ]
    header = ["images", "share right", "one run", *(f"{ours} against {theirs}" for ours, theirs in sides)]
    notes = [f"Percent of {trials:,} trials, of {fewer[10_000]:,} with 10,000 images; 95 is meant."]
    Text("Coverage, with several seeds a side", header, rows, notes).show()


def speed(_: int) -> None:
    """Print how long the largest comparison takes."""
    rng, n = np.random.default_rng(1), 100_000
    for groups in (5_000, n):
        image = rng.integers(groups, size=n)
        one, other, ones = rng.random(n) < 0.5, rng.random(n) < 0.5, np.ones(n)
        start = time.perf_counter()
        cluster_bootstrap(paired_sums((one, ones), (other, ones), image))
        print(f"{n:,} samples of {groups:,} images, 10,000 draws: {time.perf_counter() - start:.1f} s")


PARTS = {part.__name__: part for part in (differences, intervals, equivalence, gate, seeds, speed)}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all", help="one table, or all")
    args = parser.parse_args()
    for name, part in PARTS.items():
        if args.part in (name, "all"):
            part(args.trials)


if __name__ == "__main__":
    main()
