"""Two runs on the same samples: which of them is right where, by how much, and what is asked for. No Streamlit.

Everything is arrays over the samples that both runs have; nothing walks over rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perpo.benchmarks.base import BenchmarkInfo, Rule
from perpo.benchmarks.table import INFO
from perpo.records.run_record import RunRecord
from perpo.records.store import Run
from perpo.results.compare import mismatches
from perpo.results.samples import Scores

OUTCOMES = ("both right", "only A", "only B", "both wrong")
"""What two runs can come to on a sample that both have a score of."""

_RIGHT = ((1, 1), (1, 0), (0, 1), (0, 0))
_LATEST = 20  # runs that a default is looked for among


@dataclass(frozen=True)
class Pair:
    """The samples that two runs have in common, in the order of their keys.

    Attributes:
        keys: (n,) sample keys.
        names: Names of the tasks.
        tasks: (n,) places in `names`.
        clusters: (n,) a number for each image.
        places: (2, n) where a sample stands in the columns of A and of B.
        measure: (2, n) the measure of each sample's benchmark; NaN where it is missing.
        right: (2, n) 1 where right, 0 where wrong, -1 where it cannot be told.
        signs: (tasks,) 1 over the measure's span, below 0 where less is better; 0 for a task without a rule.
    """

    keys: NDArray[np.str_]
    names: list[str]
    tasks: NDArray[np.intp]
    clusters: NDArray[np.intp]
    places: NDArray[np.intp]
    measure: NDArray[np.float64]
    right: NDArray[np.int8]
    signs: NDArray[np.float64]

    def gain(self) -> NDArray[np.float64]:
        """(n,) B minus A in the better direction, as a share of the measure's span; NaN where one is missing."""
        return (self.measure[1] - self.measure[0]) * self.signs[self.tasks]

    def outcome(self, name: str) -> NDArray[np.bool_]:
        """(n,) where the two runs come to one of `OUTCOMES`."""
        a, b = _RIGHT[OUTCOMES.index(name)]
        return (self.right[0] == a) & (self.right[1] == b)

    def among(self, tasks: tuple[str, ...]) -> NDArray[np.bool_]:
        """(n,) where a sample belongs to one of the tasks."""
        chosen = np.array([name in tasks for name in self.names], dtype=bool)
        return chosen[self.tasks]

    def counts(self, mask: NDArray[np.bool_] | None = None) -> dict[str, int]:
        """Return how many samples come to each outcome, and how many to none because a score is missing."""
        a, b = self.right if mask is None else self.right[:, mask]
        told = {name: int(((a == x) & (b == y)).sum()) for name, (x, y) in zip(OUTCOMES, _RIGHT, strict=True)}
        return told | {"not scored": a.size - sum(told.values())}

    def find(self, prefix: str) -> NDArray[np.intp]:
        """Return the places of the samples whose keys begin so."""
        low, high = np.searchsorted(self.keys, [prefix, prefix + "\x7f"])
        return np.arange(low, high)


def pair(a: Scores, b: Scores, benchmarks: Mapping[str, str], known: Mapping[str, BenchmarkInfo] = INFO) -> Pair:
    """Lay two runs side by side.

    Args:
        a: The scores of the one, in the order of the keys.
        b: Those of the other.
        benchmarks: The benchmark of each task.
        known: What is known of benchmarks, by name.
    """
    if len(a.keys) == len(b.keys) and (a.keys == b.keys).all():
        places = np.tile(np.arange(len(a.keys)), (2, 1))
    else:
        places = np.stack(np.intersect1d(a.keys, b.keys, assume_unique=True, return_indices=True)[1:])
    same = a.tasks[places[0]] == b.tasks[places[1]]
    places = places[:, same]
    names, tasks = _numbered(a.tasks[places[0]])
    held = [known.get(benchmarks.get(name, "")) for name in names]
    rules = [None if info is None else info.right for info in held]
    judged = [_judged(run, here, tasks, rules) for run, here in ((a, places[0]), (b, places[1]))]
    measure, right = (np.stack(columns) for columns in zip(*judged, strict=True))
    signs = np.array([0.0 if r is None else (1 if r.higher_is_better else -1) / (r.span[1] - r.span[0]) for r in rules])
    images = _numbered(a.clusters[places[0]])[1]
    return Pair(a.keys[places[0]], names, tasks, images, places, measure, right, signs)


def _numbered(values: NDArray[np.str_]) -> tuple[list[str], NDArray[np.intp]]:
    """The different values in the order of their first sample, and each sample's place among them."""
    encoding = pa.array(values, pa.string()).dictionary_encode()
    return encoding.dictionary.to_pylist(), encoding.indices.to_numpy().astype(np.intp)


def _judged(
    run: Scores, places: NDArray[np.intp], tasks: NDArray[np.intp], rules: list[Rule | None]
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    measure, right = np.full(len(places), np.nan), np.full(len(places), -1, dtype=np.int8)
    for number, rule in enumerate(rules):
        if rule is None or not {rule.measure, *([rule.score] if rule.score else [])} <= set(run.values):
            continue
        chosen = np.flatnonzero(tasks == number)
        measure[chosen] = run.values[rule.measure][places[chosen]]
        if not rule.score:  # no score says whether an answer is right
            continue
        decides = run.values[rule.score][places[chosen]]
        if rule.rival is not None:
            decides = decides - run.values[rule.rival][places[chosen]]
        passed = decides >= rule.least if rule.higher_is_better else decides <= rule.least
        right[chosen] = np.where(np.isnan(decides), -1, passed)
    return measure, right


def benchmarks_of(record: RunRecord) -> dict[str, str]:
    """Return the benchmark of each of a run's tasks."""
    return {result.task: result.benchmark for result in record.tasks}


def scopes(record: RunRecord, present: list[str]) -> dict[str, tuple[str, ...]]:
    """Return what can be looked at, by name: all tasks, those of a benchmark or group, or one.

    Args:
        record: The run's record.
        present: The tasks that there are samples of.
    """
    tasks = [result for result in record.tasks if result.task in present]
    tasks_by_scope: dict[str, tuple[str, ...]] = {"all": tuple(task.task for task in tasks)}
    single = {task.task: (task.task,) for task in tasks}
    benchmarks = dict.fromkeys(task.benchmark for task in tasks)
    parts = {name: tuple(task.task for task in tasks if task.benchmark == name) for name in benchmarks}
    parts |= {group.name: tuple(t for t in group.tasks if t in present) for group in record.groups}
    for name, members in parts.items():
        if 1 < len(members) < len(tasks) and name not in single and members not in tasks_by_scope.values():
            tasks_by_scope[name] = members
    return tasks_by_scope | single


def default_pair(runs: Sequence[Run]) -> tuple[Run, Run]:
    """Return which two runs are shown unasked: the newest that can be held against an older one, and the oldest of
    those. A model comes before what was trained from it, whichever was evaluated first.

    Args:
        runs: Measured runs, the oldest first, at least one.
    """
    for candidate in reversed(runs[-_LATEST:]):
        for baseline in runs:
            if baseline is not candidate and not mismatches(candidate.record, baseline.record):
                return (candidate, baseline) if _is_trained_from(baseline, candidate) else (baseline, candidate)
    return runs[0], runs[-1]


def _is_trained_from(run: Run, base: Run) -> bool:
    trained, model = run.record.model, base.record.model
    same = model.weights_sha256 is not None and trained.weights_sha256 == model.weights_sha256
    return same and trained.adapter_sha256 is not None and model.adapter_sha256 is None
