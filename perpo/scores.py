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
from perpo.stats import Estimate, clustered_ratio

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
    """

    name: str
    title: str
    higher_is_better: bool | None = True
    top: Mapping[str, float] = field(default_factory=dict)
    bottom: Mapping[str, float] = field(default_factory=dict)

    def needs(self) -> set[str]:
        """Names of the scores that it is made of."""
        return {*(self.top or {self.name: 1.0}), *self.bottom}

    def sums(self, columns: Columns) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n,) what each sample adds above and below the line; NaN where one of its scores is missing."""
        above = _weighted(columns, self.top or {self.name: 1.0})
        below = _weighted(columns, self.bottom) if self.bottom else np.where(np.isnan(above), np.nan, 1.0)
        return above, below

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
        return clustered_ratio(above[held], below[held], clusters[held], strata[held])


def _weighted(columns: Columns, weights: Mapping[str, float]) -> NDArray[np.float64]:
    return np.sum([weight * columns[name] for name, weight in weights.items()], axis=0)


def _f1(name: str, title: str, suffix: str = "") -> Definition:
    tp, fp, fn = (f"{count}{suffix}" for count in ("tp", "fp", "fn"))
    return Definition(name, title, True, {tp: 2.0}, {tp: 2.0, fp: 1.0, fn: 1.0})


SIZES = ("small", "medium", "large")

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
}
"""The metrics of each benchmark, in the order of tables."""

PRIMARY = {"grounding": "acc@0.5", "pope": "f1", "ocr": "edit_distance"}
"""The metric that stands for a benchmark."""


def metrics_of(benchmark: str, scores: Sequence[str], box_frame: str | None = None) -> list[Definition]:
    """The metrics of a benchmark that samples with these scores have.

    Of the accuracies in several frames, the one in `box_frame`, the declared frame, comes first.
    """
    held = [metric for metric in BENCHMARKS[benchmark] if metric.needs() <= set(scores)]
    frames = [metric for metric in held if metric.name in _IN_FRAMES]
    ordered = iter(sorted(frames, key=lambda metric: metric.name != f"acc@0.5:{box_frame}"))
    return [next(ordered) if metric in frames else metric for metric in held]
