"""The parts of a benchmark, as data: its metrics, when an answer is right, and how both are told. No torch.

Every metric is a ratio of two sums over samples, sum(a) / sum(b): a mean has b = 1, and F1, for example, is
sum(2 tp) / sum(2 tp + fp + fn). So one formula serves every value, its interval and its difference between runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perpo.stats import Estimate, bootstrap_ratio, clustered_ratio

AnswerKind = Literal["box", "yes_no", "page", "open"]
"""What an answer is: a box in the picture, yes or no, the text of a page, or free words."""

Columns = Mapping[str, NDArray[np.float64]]
"""Scores by name, one number a sample; NaN where a score does not apply or could not be had."""


@dataclass(frozen=True)
class Definition:
    """One metric of a benchmark: how it is made of the samples' scores.

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
        own: Name of the function of its task that makes the number, where it is no ratio of sums; "" where it is one.
            Then `bounds` are those of a sample's score alone, and the number and its draws stand in the record.
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
    own: str = ""

    def needs(self) -> set[str]:
        """Return names of the scores that it is made of."""
        return {*(self.top or {self.name: 1.0}), *self.bottom}

    def sums(self, columns: Columns) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n,) what each sample adds above and below the line; NaN where one of its scores is missing."""
        above = _weighted(columns, self.top or {self.name: 1.0})
        below = _weighted(columns, self.bottom) if self.bottom else np.where(np.isnan(above), np.nan, 1.0)
        return above, below

    def reach(self, *below: NDArray[np.float64]) -> float:
        """Return how far two runs can be apart.

        Args:
            below: For each run, (n,) what its samples add below the line.
        """
        if self.top_bounds is None or not all(map(len, below)):
            return self.bounds[1] - self.bounds[0]
        means = [part.mean() for part in below]
        return float(self.top_bounds[1] / min(means) - self.top_bounds[0] / max(means))

    def estimate(self, columns: Columns, clusters: NDArray, strata: NDArray) -> Estimate:
        """Return the metric with its interval, over the samples that have its scores; strata weigh the same.

        Args:
            columns: The scores.
            clusters: (n,) labels of what the samples share, such as an image.
            strata: (n,) labels of the tasks. If one of them has no sample with these scores, the value is None, and so
                it is where a function of the task's own makes it.
        """
        above, below = self.sums(columns)
        held = ~np.isnan(above) & ~np.isnan(below)
        if self.own or len(np.unique(strata[held])) < len(np.unique(strata)):
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


def rating(name: str, title: str, most: float, least: float, better: bool | None = True) -> Definition:
    """Return the metric of a judge's ratings from `least` to `most`: their mean."""
    return Definition(name, title, better, {}, {}, f"points of {most:g}", most, (least, most), judged=True)


@dataclass(frozen=True)
class Rule:
    """A rule of a benchmark: when an answer counts as right, and by which score answers are held against each other.

    Attributes:
        says: The rule for people.
        score: The score that decides.
        least: It is right from here on; with `higher_is_better` False, up to here.
        measure: The score that is shown for each sample.
        title: What the measure is called.
        span: What the measure can be at least and at most.
        higher_is_better: Which way is better, for both scores.
        rival: The score that takes the place of `least`, if any.
    """

    says: str
    score: str
    least: float
    measure: str
    title: str
    span: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True
    rival: str | None = None

    def holds(self, scores: Mapping[str, float | None]) -> bool | None:
        """Return whether a sample with these scores is right; None where one that decides is missing."""
        value, least = scores.get(self.score), self.least if self.rival is None else scores.get(self.rival)
        if value is None or least is None:
            return None
        return bool(value >= least if self.higher_is_better else value <= least)


@dataclass(frozen=True, kw_only=True)
class BenchmarkInfo:
    """All that is known of one benchmark without its rows or a model; `perpo_eval.benchmarks` has what scores it.

    Attributes:
        name: As in records.
        answer: What an answer is.
        metrics: In the order of tables.
        primary: The metric that stands for the benchmark.
        shown: The metrics of each task that leaderboards have a column of, the primary one first.
        meanings: What a metric says, as half a sentence, by its name; "acc@{}" speaks of every acc@0.5 and the like.
        readings: What the part of a metric's name behind the colon says.
        right: When an answer counts as right.
        flip_scores: The scores by which a sample is said to have got worse, the deciding one first.
        told_scores: The scores that are told beside an answer.
        kinds: By what its samples can be told apart.
        suites: The suites of perpo-eval that it belongs to, its own first.
        max_new_tokens: Where the longest answers that are wanted are cut.
        board: The leaderboard that its runs stand on; "" for the one of all other benchmarks.
        column_titles: What columns are called otherwise than by the task and the metric, by the two.
        leading_tasks: Beginnings of the names of tasks whose columns come first; the order is the papers'.
        several_data_sets: Whether its tasks are of several data sets, so that tables name these and not the benchmark.
        note: What is to be said below a table of its numbers; "" for nothing.
        note_splits: Where the note is about some splits together: which.
        rows: What perpo-data calls rows of it (--kind); "" where it makes none.
        own_files: How files of one's own begin; "" where there are none.
        judge_prompt: The file of its judge's prompt; "" where no judge scores it.
    """

    name: str
    answer: AnswerKind
    metrics: tuple[Definition, ...]
    primary: str
    shown: tuple[str, ...]
    meanings: Mapping[str, str]
    readings: Mapping[str, str] = field(default_factory=dict)
    right: Rule
    flip_scores: tuple[str, ...]
    told_scores: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ("question length",)
    suites: tuple[str, ...]
    max_new_tokens: int
    board: str = ""
    column_titles: Mapping[tuple[str, str], str] = field(default_factory=dict)
    leading_tasks: tuple[str, ...] = ()
    several_data_sets: bool = False
    note: str = ""
    note_splits: tuple[str, ...] = ()
    rows: str = ""
    own_files: str = ""
    judge_prompt: str = ""

    @property
    def judged(self) -> bool:
        """Return whether a judge scores it."""
        return any(metric.judged for metric in self.metrics)

    @property
    def has_boxes(self) -> bool:
        """Return whether answers are boxes, which refer to a frame and can be drawn."""
        return self.answer == "box"

    @property
    def by_name(self) -> dict[str, Definition]:
        """The metrics by their names."""
        return {metric.name: metric for metric in self.metrics}

    def score_names(self) -> list[str]:
        """Return the names of the scores that the metrics are made of, in the order of the metrics."""
        return list(dict.fromkeys(score for metric in self.metrics for score in sorted(metric.needs())))

    def share(self, score: str) -> float:
        """Return what one unit of a score by which samples are held against each other is worth, as a share of its
        scale; below 0 where less is better.
        """
        metric = self.by_name.get(score)
        if metric is None or metric.own:  # no metric's scale is that of a sample
            low, high = self.right.span
            return (1 if self.right.higher_is_better else -1) / (high - low)
        return (1 if metric.higher_is_better else -1) / metric.scale

    def title(self, metric: str) -> str:
        """Return what a metric is called; its name where it is none of the benchmark's."""
        definition = self.by_name.get(metric)
        return metric if definition is None else definition.title

    def meaning(self, metric: str) -> str:
        """Return what a metric says, as half a sentence; its name where nobody wrote that down."""
        name, _, reading = metric.partition(":")
        stem, _, threshold = name.partition("@")
        general = f"{stem}@{{}}"
        if threshold and general in self.meanings:
            told = self.meanings[general].format(threshold)
        else:
            told = self.meanings.get(name, "")
        if not told:
            return metric
        return f"{told} ({self.readings.get(reading, reading)})" if reading else told
