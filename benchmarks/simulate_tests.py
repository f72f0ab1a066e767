"""Do the tests of perpo.paired keep their promises: type-I error, coverage and power on simulated clusters.

    python benchmarks/simulate_tests.py [--trials 2000]

Images have 1 to 8 samples that share a difficulty, runs share most of it, and two of three splits stand on the
same images. Each line is one kind of metric at one number of images; the plain t test over samples, which
ignores clusters, is beside it.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from perpo.paired import Difference, cluster_bootstrap, cluster_t, paired_sums, predicted_power
from perpo.scores import BENCHMARKS

F1 = next(metric for metric in BENCHMARKS["pope"] if metric.name == "f1")


@dataclass(frozen=True)
class World:
    """Scores of two runs: right or not, per sample."""

    one: NDArray[np.float64]
    other: NDArray[np.float64]
    truth: NDArray[np.float64]
    image: NDArray[np.int64]
    split: NDArray[np.int64]


def draw(rng: np.random.Generator, images: int, effect: float) -> World:
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
    return World(one.astype(float), other.astype(float), truth, image, split)


def compare(world: World, kind: str, seed: int) -> Difference:
    """The test that perpo-report would make."""
    if kind == "mean":
        ones = np.ones(len(world.one))
        return cluster_t(paired_sums((world.one, ones), (world.other, ones), world.image, world.split))
    runs = []
    for right in (world.one, world.other):
        said = np.where(right > 0, world.truth, 1 - world.truth)
        columns = {"tp": said * world.truth, "fp": said * (1 - world.truth), "fn": (1 - said) * world.truth}
        runs.append(F1.sums(columns))
    return cluster_bootstrap(paired_sums(*runs, world.image, world.split), draws=1000, seed=seed)


def line(kind: str, images: int, trials: int) -> list[str]:
    """Type-I error, coverage and power of one kind of metric at one number of images."""
    rng = np.random.default_rng(images)
    same = [draw(rng, images, 0.0) for _ in range(trials)]
    found = [compare(world, kind, n) for n, world in enumerate(same)]
    alarms = np.mean([(each.p_value or 1.0) < 0.05 for each in found])
    covered = np.mean([each.interval is not None and each.interval[0] <= 0 <= each.interval[1] for each in found])
    naive = np.mean([ttest_1samp(world.one - world.other, 0).pvalue < 0.05 for world in same])
    effect = 0.08
    better = [compare(draw(rng, images, effect), kind, n) for n in range(trials)]
    power = np.mean([(each.p_value or 1.0) < 0.05 for each in better])
    mean = float(np.mean([each.value or 0.0 for each in better]))
    predicted = predicted_power(mean, float(np.mean([each.stderr or 0.0 for each in better])), images)
    numbers = [f"{100 * share:.1f}" for share in (alarms, covered, naive, power, predicted)]
    return [kind, str(images), *numbers]


def main() -> None:
    """Print the table, and how long the largest comparison takes."""
    from perpo.tables import Text

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    args = parser.parse_args()
    header = ["metric", "images", "type-I error", "coverage", "type-I, unclustered", "power", "predicted power"]
    rows = [line(kind, images, args.trials) for kind in ("mean", "F1") for images in (50, 200, 800)]
    notes = [f"Percent of {args.trials:,} trials; alpha is 5, intervals are meant to cover 95."]
    Text("Simulated comparisons", header, rows, notes).show()
    rng, n = np.random.default_rng(1), 100_000
    for groups in (5_000, n):
        image = rng.integers(groups, size=n)
        one, other, ones = rng.random(n) < 0.5, rng.random(n) < 0.5, np.ones(n)
        start = time.perf_counter()
        cluster_bootstrap(paired_sums((one, ones), (other, ones), image))
        print(f"{n:,} samples of {groups:,} images, 10,000 draws: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
