"""Cost beside accuracy: generated tokens, seconds and money per right answer of two runs. No torch.

Records hold generated tokens and the time of each answer, but not the tokens that were read. So money is told by the
hour of the machine, which reading and writing share, and not by the token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perpo.benchmarks.declared import infos
from perpo.errors import PerpoError
from perpo.records.store import Run
from perpo.results.text import Text
from perpo.stats import cluster_t, paired_sums

_COLUMNS = ("sample_key", "task", "cluster_id", "tokens_out", "latency_ms", "scores")
_PRICE = re.compile(r"\s*([A-Za-z€$£¥]{1,8})\s*([0-9]+(?:\.[0-9]+)?)\s*")
_HEADER = ["cost", "tokens an answer", "difference [95%]", "seconds an answer"]


@dataclass(frozen=True)
class Price:
    """Money for an hour of the machine that answers."""

    currency: str
    per_hour: float


@dataclass(frozen=True)
class TaskCost:
    """The cost of answers to one task in two runs, over the samples of which both know it; None where it is not known.

    Attributes:
        task: The task.
        samples: How many samples tokens are told over.
        tokens: Mean generated tokens of an answer, of baseline and candidate.
        difference: Candidate minus baseline in it.
        interval: The paired 95% interval of that difference, clustered by image.
        seconds: Mean seconds of an answer: its batch's time by its batch's size.
        per_right: Money per right answer; None without a price, a rule of what is right, or a right answer.
    """

    task: str
    samples: int
    tokens: tuple[float | None, float | None]
    difference: float | None
    interval: tuple[float, float] | None
    seconds: tuple[float | None, float | None]
    per_right: tuple[float | None, float | None]

    @property
    def known(self) -> bool:
        """Return whether anything is known of it."""
        return {*self.tokens, *self.seconds, *self.per_right} != {None}


def read_price(text: str) -> Price:
    """Read a price such as "USD 2.50".

    Raises:
        PerpoError: It is none.
    """
    match = _PRICE.fullmatch(text)
    if match is None or not 0 < float(match[2]) < float("inf"):
        raise PerpoError(f"--price_per_hour '{text}' is not a currency and an amount", 'such as "USD 2.50"')
    return Price(match[1], float(match[2]))


def costs_of(baseline: Sequence[Run], candidate: Sequence[Run], price: Price | None = None) -> list[TaskCost]:
    """Return what answers cost in two runs, or in runs of two configurations, task by task.

    Args:
        baseline: The run that was, or runs of one configuration, of which the mean is told.
        candidate: The run in question, or such runs.
        price: What an hour of the machine costs.
    """
    old, new = (_Answers.of(runs, scored=price is not None) for runs in (baseline, candidate))
    _, theirs, ours = np.intersect1d(old.keys, new.keys, assume_unique=True, return_indices=True)
    old, new = old.take(theirs), new.take(ours)
    costs = []
    for result in baseline[0].record.tasks:
        chosen = np.flatnonzero((old.tasks == result.task) & (new.tasks == result.task))
        sides = old.take(chosen), new.take(chosen)
        if all(np.isnan(side.tokens).all() and np.isnan(side.seconds).all() for side in sides):
            continue
        costs.append(_cost(result.task, *sides, result.max_new_tokens or 0, price))
    return costs


def _cost(task: str, old: _Answers, new: _Answers, limit: int, price: Price | None) -> TaskCost:
    held = ~np.isnan(old.tokens) & ~np.isnan(new.tokens)
    tokens = old.tokens[held], new.tokens[held]
    difference = interval = None
    if held.any():
        one = np.ones(int(held.sum()))
        reach = float(max(limit, *(side.max() for side in tokens), 1.0))
        more = cluster_t(paired_sums((tokens[1], one), (tokens[0], one), old.clusters[held]), bounds=(-reach, reach))
        difference, interval = more.value, more.interval
    means = tuple(float(side.mean()) if len(side) else None for side in tokens)
    timed = ~np.isnan(old.seconds) & ~np.isnan(new.seconds)
    seconds = tuple(float(side.seconds[timed].mean()) if timed.any() else None for side in (old, new))
    money = tuple(_per_right(side, price) for side in (old, new))
    return TaskCost(task, int(held.sum()), means, difference, interval, seconds, money)  # type: ignore[arg-type]


def _per_right(side: _Answers, price: Price | None) -> float | None:
    """Money per right answer; None where the time of one answer, or its score, is missing."""
    if price is None or np.isnan(side.seconds).any() or np.isnan(side.right).any() or not side.right.sum():
        return None
    return float(side.seconds.sum() / 3600 * price.per_hour / side.right.sum())


@dataclass(frozen=True)
class _Answers:
    """Columns of the samples in the order of their keys, NaN where one is not known; of several runs the mean."""

    keys: NDArray
    tasks: NDArray
    clusters: NDArray
    tokens: NDArray[np.float64]
    seconds: NDArray[np.float64]
    right: NDArray[np.float64]

    def take(self, places: NDArray) -> _Answers:
        columns = (self.keys, self.tasks, self.clusters, self.tokens, self.seconds, self.right)
        return _Answers(*(column[places] for column in columns))

    @classmethod
    def of(cls, runs: Sequence[Run], *, scored: bool) -> _Answers:
        """Read the samples that all these runs have; what is right, only where it is asked for."""
        each = [cls._read(run, scored) for run in runs]
        keys = each[0].keys
        for other in each[1:]:
            keys = np.intersect1d(keys, other.keys, assume_unique=True)
        each = [answers.take(np.isin(answers.keys, keys)) for answers in each]
        means = (np.mean([getattr(one, name) for one in each], axis=0) for name in ("tokens", "seconds", "right"))
        return cls(each[0].keys, each[0].tasks, each[0].clusters, *means)

    @classmethod
    def _read(cls, run: Run, scored: bool) -> _Answers:
        import pyarrow.parquet as pq

        held = [] if run.record.samples is None else pq.read_schema(run.path / run.record.samples.path).names
        table = run.samples([name for name in _COLUMNS if name in held]).sort_by("sample_key")
        tokens, millis = (
            table[name].to_numpy(zero_copy_only=False).astype(float) if name in held else np.full(len(table), np.nan)
            for name in ("tokens_out", "latency_ms")
        )
        keys, tasks, clusters = (table[name].to_numpy().astype(str) for name in ("sample_key", "task", "cluster_id"))
        return cls(
            keys, tasks, clusters, tokens, millis / 1000, _right(run, table) if scored else np.full(len(table), np.nan)
        )


def _right(run: Run, table: object) -> NDArray[np.float64]:
    """1 for each sample that is right by its benchmark's rule, 0 for one that is wrong, NaN where that is not known."""
    known = infos(run.record.tasks)
    rules = {task.task: info.right for task in run.record.tasks if (info := known.get(task.benchmark)) is not None}
    rows = zip(table["task"].to_pylist(), table["scores"].to_pylist(), strict=True)  # type: ignore[index]
    told = (rules[task].holds(scores) if task in rules else None for task, scores in rows)
    return np.array([np.nan if right is None else float(right) for right in told])


def _signed(number: float) -> str:
    """A difference with its sign; what rounds to 0 is +0.0."""
    return f"{round(number, 1) + 0.0:+.1f}"


def cost_table(costs: Sequence[TaskCost], price: Price | None, *, same_machine: bool) -> Text:
    """Return the costs as a table, baseline → candidate.

    Args:
        costs: By task.
        price: For money per right answer.
        same_machine: Whether both runs name the same hardware.
    """
    header = [*_HEADER, *([] if price is None else [f"{price.currency} a right answer"])]
    rows = []
    for cost in costs:
        low, high = cost.interval or (None, None)
        ends = "" if low is None or high is None else f" [{_signed(low)}, {_signed(high)}]"
        change = "" if cost.difference is None else f"{_signed(cost.difference)}{ends}"
        row = [cost.task, _pair(cost.tokens, ".1f"), change, _pair(cost.seconds, ".3g")]
        rows.append(row if price is None else [*row, _pair(cost.per_right, ".3g")])
    notes = [
        "Cost gates nothing. Tokens are those that were generated; those that were read are not stored. Seconds are "
        "the time of an answer's batch by the batch's size."
    ]
    if price is not None:
        notes.append(
            f"Money is the seconds of all answers at {price.currency} {price.per_hour:g} an hour of the machine, by "
            "the number of right answers; time between batches and for loading is not in it."
        )
    if not same_machine:
        notes.append("The runs name different hardware: their seconds say more of the machines than of the models.")
    return Text("Cost, baseline → candidate", header, rows, notes)


def _pair(values: tuple[float | None, float | None], form: str) -> str:
    if values == (None, None):
        return ""
    return " → ".join("unknown" if value is None else f"{value:{form}}" for value in values)
