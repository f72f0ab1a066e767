"""From the scores of samples to the metrics of a benchmark: what is averaged, and what is a ratio. No torch.

Every metric is a ratio of two sums over samples, sum(a) / sum(b): a mean has b = 1, and F1, for example, is
sum(2 tp) / sum(2 tp + fp + fn). So one formula serves every value, its interval and its difference between runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from perpo.boxes import Frame
from perpo.stats import Estimate, bootstrap_ratio, clustered_ratio

Columns = Mapping[str, NDArray[np.float64]]
"""Scores by name, one number a sample; NaN where a score does not apply or could not be had."""


@dataclass(frozen=True)
class Definition:
    """How one metric of a benchmark is made of the samples' scores.

    Attributes:
        name: As in records; `acc@0.5:small` is `acc@0.5` for some samples or in another reading.
        title: As in tables.
        higher_is_better: Which way is better; None if neither is.
        top: Weights of the scores whose sum is divided; by default the score of the metric's own name.
        bottom: Weights of the scores whose sum divides; by default every sample counts 1.
        unit: What it counts in, as in records.
        scale: What a hundred points of it are: 1 for a fraction, 6 where 6 is the highest score.
        bounds: What it can be at least and at most for one sample.
        top_bounds: Where the scores below the line are no counts: what those above it can be for one sample.
        judged: Whether a judge gave the scores, or failed to. Its intervals are bootstrapped, and a sample whose
            judgement is missing in one of two runs is left out when they are compared.
    """

    name: str
    title: str
    higher_is_better: bool | None = True
    top: Mapping[str, float] = field(default_factory=dict)
    bottom: Mapping[str, float] = field(default_factory=dict)
    unit: str = "fraction"
    scale: float = 1.0
    bounds: tuple[float, float] = (0.0, 1.0)
    top_bounds: tuple[float, float] | None = None
    judged: bool = False

    def needs(self) -> set[str]:
        """Names of the scores that it is made of."""
        return {*(self.top or {self.name: 1.0}), *self.bottom}

    def sums(self, columns: Columns) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n,) what each sample adds above and below the line; NaN where one of its scores is missing."""
        above = _weighted(columns, self.top or {self.name: 1.0})
        below = _weighted(columns, self.bottom) if self.bottom else np.where(np.isnan(above), np.nan, 1.0)
        return above, below

    def reach(self, *below: NDArray[np.float64]) -> float:
        """How far two runs can be apart.

        Args:
            below: For each run, (n,) what its samples add below the line.
        """
        if self.top_bounds is None or not all(map(len, below)):
            return self.bounds[1] - self.bounds[0]
        means = [part.mean() for part in below]
        return float(self.top_bounds[1] / min(means) - self.top_bounds[0] / max(means))

    def estimate(self, columns: Columns, clusters: NDArray, strata: NDArray) -> Estimate:
        """The metric with its interval, over the samples that have its scores; strata weigh the same.

        Args:
            columns: The scores.
            clusters: (n,) labels of what the samples share, such as an image.
            strata: (n,) labels of the tasks. If one of them has no sample with these scores, the value is None.
        """
        above, below = self.sums(columns)
        held = ~np.isnan(above) & ~np.isnan(below)
        if len(np.unique(strata[held])) < len(np.unique(strata)):
            return Estimate(None, None, None, None, int(held.sum()), 0, "undefined")
        # Of few pictures with rare low ratings, draws hold too few of these: a mean has the linearised interval.
        ratio = bootstrap_ratio if self.judged and self.bottom else clustered_ratio
        bounds = self._bounds(above[held], below[held])
        return ratio(above[held], below[held], clusters[held], strata[held], bounds=bounds)

    def _bounds(self, above: NDArray[np.float64], below: NDArray[np.float64]) -> tuple[float, float]:
        """`bounds`, wider where a judge did not keep to its scale."""
        if not self.judged or not below.sum() > 0:
            return self.bounds
        each = above[below > 0] / below[below > 0]
        most = max(self.bounds[1], *each, above.sum() / below.sum())
        return float(min(self.bounds[0], *each)), float(most)


def _weighted(columns: Columns, weights: Mapping[str, float]) -> NDArray[np.float64]:
    return np.sum([weight * columns[name] for name, weight in weights.items()], axis=0)


def _f1(name: str, title: str, suffix: str = "") -> Definition:
    tp, fp, fn = (f"{count}{suffix}" for count in ("tp", "fp", "fn"))
    return Definition(name, title, True, {tp: 2.0}, {tp: 2.0, fp: 1.0, fn: 1.0})


def _rating(name: str, title: str, most: float, least: float, better: bool | None = True) -> Definition:
    return Definition(name, title, better, {}, {}, f"points of {most:g}", most, (least, most), judged=True)


def _relative(suffix: str = "") -> Definition:
    name, title = f"relative_score{suffix}", suffix.removeprefix(":") or "relative score"
    above, below = {f"model{suffix}": 1.0}, {f"reference{suffix}": 1.0}
    # A rating is 1 to 10, and so a question's own ratio a tenth to ten.
    return Definition(name, title, True, above, below, bounds=(0.1, 10.0), top_bounds=(1.0, 10.0), judged=True)


def _mmhal(suffix: str = "") -> tuple[Definition, Definition]:
    kind = suffix.removeprefix(":")
    rate = Definition(f"hallucination_rate{suffix}", kind or "hallucination rate", False, judged=True)
    return _rating(f"score{suffix}", kind or "score", 6, 0), rate


SIZES = ("small", "medium", "large")

LLAVA_BENCH_CATEGORIES = ("conv", "detail", "complex")
MMHAL_TYPES = (
    "attribute", "adversarial", "comparison", "counting", "relation", "environment", "holistic", "other",
)  # fmt: skip
"""In the order of the published file: the type of question number n is the one at n modulo 8."""

_IN_FRAMES = [f"acc@0.5:{frame}" for frame in get_args(Frame)]

BENCHMARKS: dict[str, tuple[Definition, ...]] = {
    "grounding": (
        *(Definition(f"acc@{threshold}", f"Acc@{threshold}") for threshold in (0.3, 0.5, 0.7, 0.9)),
        Definition("iou", "mean IoU"),
        Definition("center_acc", "centre in box"),
        Definition("parse_fail", "unreadable", False),
        *(Definition(f"acc@0.5:{size}", size) for size in SIZES),
        *(Definition(f"acc@0.5:{frame}", frame) for frame in get_args(Frame)),
    ),
    "pope": (
        Definition("accuracy", "accuracy"),
        Definition("precision", "precision", True, {"tp": 1.0}, {"tp": 1.0, "fp": 1.0}),
        Definition("recall", "recall", True, {"tp": 1.0}, {"tp": 1.0, "fn": 1.0}),
        _f1("f1", "F1"),
        Definition("yes_ratio", "yes ratio", None, {"yes": 1.0}),
        Definition("accuracy:strict", "strict accuracy"),
        _f1("f1:strict", "strict F1", ":strict"),
        Definition("parse_fail", "unreadable", False),
    ),
    "ocr": (
        Definition("edit_distance", "edit distance", False),
        Definition("f1", "F1"),
        Definition("precision", "precision"),
        Definition("recall", "recall"),
        Definition("bleu", "BLEU"),
        Definition("meteor", "METEOR"),
        Definition("precision:swapped", "swapped precision"),
        Definition("recall:swapped", "swapped recall"),
        Definition("bleu:swapped", "swapped BLEU"),
        Definition("meteor:swapped", "swapped METEOR"),
        Definition("truncated", "cut off", False),
    ),
    "llava_bench": (
        _relative(),
        _rating("model", "model's rating", 10, 1),
        _rating("reference", "reference's rating", 10, 1, None),
        Definition("missing", "missing", False, judged=True),
        *(_relative(f":{category}") for category in LLAVA_BENCH_CATEGORIES),
    ),
    "mmhal": (
        *_mmhal(),
        Definition("missing", "missing", False, judged=True),
        *(metric for kind in MMHAL_TYPES for metric in _mmhal(f":{kind}")),
    ),
}
"""The metrics of each benchmark, in the order of tables."""

PRIMARY = {
    "grounding": "acc@0.5",
    "pope": "f1",
    "ocr": "edit_distance",
    "llava_bench": "relative_score",
    "mmhal": "score",
}
"""The metric that stands for a benchmark."""

JUDGED = tuple(name for name, metrics in BENCHMARKS.items() if any(metric.judged for metric in metrics))
"""The benchmarks that a judge scores."""

JUDGE_READINGS = {
    "official": "as the official script counts what the judge wrote",
    "out_of_scale": "share of ratings outside of the asked scale, which count as the official script counts them",
    "judge_stderr": "standard error of the judge itself, from its votes",
    "first_advantage": "how much higher an answer is rated where it stands first",
}
"""What records hold of judged metrics beside their values, behind the colon of the name, and what it is."""


def score_names(benchmark: str) -> list[str]:
    """Names of the scores that a benchmark's metrics are made of, in the order of the metrics."""
    return list(dict.fromkeys(score for metric in BENCHMARKS[benchmark] for score in sorted(metric.needs())))


def metrics_of(benchmark: str, scores: Sequence[str], box_frame: str | None = None) -> list[Definition]:
    """The metrics of a benchmark that samples with these scores have.

    Of the accuracies in several frames, the one in `box_frame`, the declared frame, comes first.
    """
    held = [metric for metric in BENCHMARKS[benchmark] if metric.needs() <= set(scores)]
    frames = [metric for metric in held if metric.name in _IN_FRAMES]
    ordered = iter(sorted(frames, key=lambda metric: metric.name != f"acc@0.5:{box_frame}"))
    return [next(ordered) if metric in frames else metric for metric in held]


# AoiDragon/POPE: 6 questions on each of 500 images. Its list of random negatives had 2,910 questions before it was
# made anew; LLaVA-1.5's scores are of that one (haotian-liu/LLaVA, issue 626).
POPE_SPLITS = ("random", "popular", "adversarial")
