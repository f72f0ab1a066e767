"""Two runs side by side: may they be compared, and by how much do they differ, sample by sample. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from perpo.benchmarks.base import Definition
from perpo.errors import PerpoError
from perpo.records.run_record import RunRecord
from perpo.records.store import Run
from perpo.results.samples import OwnNumber, Scores
from perpo.stats import Difference, Estimate, cluster_bootstrap, cluster_t, drawn_difference, paired_sums


def mismatches(candidate: RunRecord, baseline: RunRecord, *, common: bool = False) -> list[str]:
    """Return what keeps two runs from being compared, one sentence each; empty if nothing does.

    Args:
        candidate: The run in question.
        baseline: The run that it is held against.
        common: Whether only what both have is compared, so that tasks and samples of one alone do not matter.
    """
    differences = []
    theirs = {result.task: result for result in baseline.tasks}
    ours = {result.task: result for result in candidate.tasks}
    if not common:
        if candidate.suite["name"] != baseline.suite["name"]:
            differences.append(f"suite {candidate.suite['name']} against {baseline.suite['name']}")
        if only := sorted(set(ours) ^ set(theirs)):
            differences.append(f"only one of them has the tasks {', '.join(only)}")
    for field in ("temperature", "top_p"):
        differences += _differ(field, candidate.generation.get(field), baseline.generation.get(field))
    differences += _other_judges(candidate.judge, baseline.judge)
    for name in sorted(set(ours) & set(theirs)):
        if ours[name].box_frame != theirs[name].box_frame:
            differences.append(f"{name}: box_frame {ours[name].box_frame} against {theirs[name].box_frame}")
    fields = ["prompt", "max_new_tokens", *([] if common else ["data_sha256", "n_scored"])]
    for name in sorted(set(ours) & set(theirs)):
        for field in fields:
            differences += _differ(f"{name}: {field}", getattr(ours[name], field), getattr(theirs[name], field))
    return differences


def other_versions(candidate: RunRecord, baseline: RunRecord) -> list[str]:
    """Return the tasks of both runs whose scores have another version in one than in the other, one sentence each."""
    theirs = {result.task: result for result in baseline.tasks}
    return [
        said
        for task in candidate.tasks
        if task.task in theirs
        for said in _differ(f"{task.task}: version", task.task_version, theirs[task.task].task_version)
    ]


def _other_judges(one: dict[str, Any] | None, other: dict[str, Any] | None) -> list[str]:
    """In what two judges differ; their deviations say the same once more."""
    if one == other:
        return []
    if one is None or other is None or one.get("id") != other.get("id"):
        return [f"judge {one and one.get('id')} against {other and other.get('id')}"]
    parts = [{**judge, **judge.get("settings", {})} for judge in (one, other)]
    names = sorted((set(parts[0]) | set(parts[1])) - {"settings", "deviations"})
    differing = [name for name in names if parts[0].get(name) != parts[1].get(name)]
    return [f"judge {one['id']}: {name} {parts[0].get(name)} against {parts[1].get(name)}" for name in differing]


def _differ(what: str, one: object, other: object) -> list[str]:
    return (
        [] if one == other or None in (one, other) else [f"{what} {one!s:.60} against {other!s:.60}"]
    )  # None: unknown


def check_comparable(candidate: Run, baseline: Run, *, common: bool = False) -> None:
    """Refuse to compare what cannot be compared.

    Raises:
        PerpoError: The runs differ in suite, tasks, data, frame, judge or number of samples; all
            differences are listed. With `common`, only what would make equal samples mean different things counts.
    """
    if differences := mismatches(candidate.record, baseline.record, common=common):
        raise PerpoError(
            f"{candidate.record.name} and {baseline.record.name} cannot be compared: {'; '.join(differences)}",
            "evaluate both with the same suite, data, tasks, limit, prompt_style, max_new_tokens and judge",
        )


def shared_samples(candidate: Scores, baseline: Scores) -> tuple[Scores, Scores]:
    """Return the samples that both runs have in the same task.

    Raises:
        PerpoError: There are none, or some stand on other images in one run than in the other.
    """
    mine, known = (np.char.add(np.char.add(scores.tasks, "\x1f"), scores.keys) for scores in (candidate, baseline))
    shared, ours, theirs = np.intersect1d(mine, known, assume_unique=True, return_indices=True)
    if not len(shared):
        raise PerpoError("the runs have no sample of a task in common", "evaluate both on the same data")
    order = np.argsort(candidate.keys[ours])
    new, old = candidate.take(ours[order]), baseline.take(theirs[order])
    if changed := int((new.clusters != old.clusters).sum()):
        raise PerpoError(f"{changed} shared samples are about other images", "evaluate both on the same images")
    return new, old


def metric_difference(candidate: Scores, baseline: Scores, metric: Definition) -> Difference:
    """Candidate minus baseline in one metric over the same samples, every task weighing the same.

    A mean is tested by `perpo.stats.cluster_t`, a ratio such as F1 by `perpo.stats.cluster_bootstrap`, and what a
    function of the task's own makes of all samples by the draws that both runs hold (`perpo.stats.drawn_difference`):
    of a part of the samples, or of several tasks, it is not known, and the method is "undefined".

    Args:
        candidate: Scores of the run in question.
        baseline: Scores of the run it is held against.
        metric: The metric. Samples that lack one of its scores in both runs are left out, and those that got no
            answer in either; of a judged one, samples that lack it in either.

    Raises:
        PerpoError: The two hold different samples, or a score is missing in one of them alone.
    """
    if len(candidate.keys) != len(baseline.keys) or (candidate.keys != baseline.keys).any():
        shared = len(np.intersect1d(candidate.keys, baseline.keys))
        raise PerpoError(
            f"the runs share {shared} of {len(candidate.keys)} and {len(baseline.keys)} samples",
            "evaluate both on the same data with the same limit",
        )
    candidate, baseline = both_judged(candidate, baseline, metric)
    runs = [metric.sums(scores.values) for scores in (candidate, baseline)]
    held, theirs = (~np.isnan(above) & ~np.isnan(below) for above, below in runs)
    if (held != theirs).any():
        raise PerpoError(
            f"{metric.name} is missing for samples of one run alone", "score both again: perpo-eval --rescore"
        )
    if metric.own:
        return _own_difference(candidate.take(held), baseline.take(held), metric)
    ours, base = ((above[held], below[held]) for above, below in runs)
    sums = paired_sums(ours, base, baseline.clusters[held], baseline.tasks[held])
    reach = metric.reach(ours[1], base[1])
    if not metric.bottom:  # a judge may leave its scale, and a task of lmms-eval's has none that is known
        reach = max(reach, float(np.abs(ours[0] - base[0]).max(initial=0.0)))
    return (cluster_bootstrap if metric.bottom else cluster_t)(sums, bounds=(-reach, reach))


def metric_value(scores: Scores, metric: Definition) -> float | None:
    """Return a metric over some samples of a run, every task weighing the same; None where that is not defined.

    What a function of the task's own makes of all samples is known of all samples alone.
    """
    if not metric.own:
        return metric.estimate(scores.values, scores.clusters, scores.tasks).value
    number = _own_number(scores.take(~np.isnan(scores.values[metric.name])), metric)
    return None if number is None else number.value


def _own_number(scores: Scores, metric: Definition) -> OwnNumber | None:
    """The number of these samples, which all have the metric; None where they are not all that it was made of."""
    tasks = np.unique(scores.tasks).tolist()
    number = scores.own.get((tasks[0], metric.name)) if len(tasks) == 1 else None
    return number if number is not None and number.n == len(scores.keys) else None


def _own_difference(candidate: Scores, baseline: Scores, metric: Definition) -> Difference:
    ours, theirs = _own_number(candidate, metric), _own_number(baseline, metric)
    n, clusters = len(candidate.keys), len(np.unique(candidate.clusters))
    if ours is None or theirs is None or ours.clusters != theirs.clusters or len(ours.draws) != len(theirs.draws):
        return Difference(None, None, None, None, None, n, clusters, "undefined")
    other = candidate.values[metric.name] != baseline.values[metric.name]
    differing = len(np.unique(candidate.clusters[other]))
    return drawn_difference((ours.value, theirs.value), (ours.draws, theirs.draws), n, clusters, differing)


def both_judged(candidate: Scores, baseline: Scores, metric: Definition) -> tuple[Scores, Scores]:
    """Return the samples that two runs are compared on: those that are answered, of a judged metric scored, in both."""
    if not metric.judged:
        absent = [run.failed for run in (candidate, baseline) if run.failed is not None and run.failed.any()]
        if not absent:
            return candidate, baseline
        answered = ~np.any(absent, axis=0)
        return candidate.take(answered), baseline.take(answered)
    sums = [part for scores in (candidate, baseline) for part in metric.sums(scores.values)]
    held = ~np.isnan(np.sum(sums, axis=0))
    return candidate.take(held), baseline.take(held)


def paired_difference(candidate: Scores, baseline: Scores, score: str) -> Estimate:
    """`metric_difference` of a score's mean, as an estimate.

    Args:
        candidate: As there.
        baseline: As there.
        score: A key of `values`, such as "acc@0.5".
    """
    difference = metric_difference(candidate, baseline, Definition(score, score))
    low, high = difference.interval or (None, None)
    return Estimate(
        difference.value, difference.stderr, low, high, difference.n, difference.n_clusters, difference.method
    )
