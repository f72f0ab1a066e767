"""Two runs side by side: may they be compared, and by how much do they differ, sample by sample. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from perpo.benchmarks.base import Definition
from perpo.errors import PerpoError
from perpo.records.run_record import RunRecord
from perpo.records.store import Run
from perpo.results.samples import OwnNumber, Scores
from perpo.stats import (
    Difference,
    Estimate,
    cluster_bootstrap,
    cluster_t,
    crossed_t,
    drawn_difference,
    paired_sums,
)
from perpo.stats.discordance import contributions


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
        differences += differ(field, candidate.generation.get(field), baseline.generation.get(field))
    differences += differ("stop_on_repetition", _stops_loops(candidate), _stops_loops(baseline))
    differences += _other_judges(candidate.judge, baseline.judge)
    for name in sorted(set(ours) & set(theirs)):
        if ours[name].box_frame != theirs[name].box_frame:
            differences.append(f"{name}: box_frame {ours[name].box_frame} against {theirs[name].box_frame}")
    fields = ["prompt", "max_new_tokens", *([] if common else ["data_sha256", "n_scored"])]
    for name in sorted(set(ours) & set(theirs)):
        for field in fields:
            differences += differ(f"{name}: {field}", getattr(ours[name], field), getattr(theirs[name], field))
    reviews = [record.generation.get("reviewed_labels") or {} for record in (candidate, baseline)]
    for name in sorted(set(reviews[0]) & set(reviews[1])):
        digests = (f"{review[name]['sha256']:.8}" for review in reviews)
        differences += differ(f"{name}: reviewed labels", *digests)
    return differences


def other_versions(candidate: RunRecord, baseline: RunRecord) -> list[str]:
    """Return the tasks of both runs whose scores have another version in one than in the other, one sentence each."""
    theirs = {result.task: result for result in baseline.tasks}
    return [
        said
        for task in candidate.tasks
        if task.task in theirs
        for said in differ(f"{task.task}: version", task.task_version, theirs[task.task].task_version)
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


def differ(what: str, one: object, other: object) -> list[str]:
    return (
        [] if one == other or None in (one, other) else [f"{what} {one!s:.60} against {other!s:.60}"]
    )  # None: unknown


def _stops_loops(record: RunRecord) -> bool | None:
    """Whether answers ended where they looped: never before there was that setting, None where nobody knows."""
    usual = None if record.generation.get("temperature") is None else False
    return record.generation.get("stop_on_repetition", usual)


def check_comparable(candidate: Run, baseline: Run, *, common: bool = False) -> None:
    """Refuse to compare what cannot be compared.

    Raises:
        PerpoError: The runs differ in suite, tasks, data, frame, judge or number of samples; all
            differences are listed. With `common`, only what would make equal samples mean different things counts.
    """
    if differences := mismatches(candidate.record, baseline.record, common=common):
        raise PerpoError(
            f"{candidate.record.name} and {baseline.record.name} cannot be compared: {'; '.join(differences)}",
            "evaluate both runs with the same suite, data, tasks, limit, prompt_style, max_new_tokens and judge",
        )


def shared_samples(candidate: Scores, baseline: Scores) -> tuple[Scores, Scores]:
    """Return the samples that both runs have in the same task.

    Raises:
        PerpoError: There are none, or some stand on other images in one run than in the other.
    """
    mine, known = (np.char.add(np.char.add(scores.tasks, "\x1f"), scores.keys) for scores in (candidate, baseline))
    shared, ours, theirs = np.intersect1d(mine, known, assume_unique=True, return_indices=True)
    if not len(shared):
        raise PerpoError("the two runs have no sample in common", "evaluate both runs on the same data")
    order = np.argsort(candidate.keys[ours])
    new, old = candidate.take(ours[order]), baseline.take(theirs[order])
    if changed := int((new.clusters != old.clusters).sum()):
        raise PerpoError(
            f"{changed} samples of both runs have different images", "evaluate both runs on the same images"
        )
    return new, old


def metric_difference(candidate: Scores, baseline: Scores, metric: Definition) -> Difference:
    """Return candidate minus baseline in one metric, as `mean_difference` of one run a side."""
    return mean_difference([candidate], [baseline], metric)


def mean_difference(
    candidates: Sequence[Scores],
    baselines: Sequence[Scores],
    metric: Definition,
    *,
    draw: bool = True,
    parts: bool = False,
) -> Difference:
    """Candidates' mean minus baselines' mean in one metric over the same samples, every task weighing the same.

    Of one run a side a mean is tested by `perpo.stats.cluster_t`, a ratio such as F1 by
    `perpo.stats.cluster_bootstrap`; of more runs both by `perpo.stats.crossed_t`. What a function of the task's own
    makes of all samples is tested by the draws that one run a side holds (`perpo.stats.drawn_difference`). Of a part of
    the samples, of several tasks, or of more runs, it is not known, and the method is "undefined".

    Args:
        candidates: Scores of the runs in question, all of one configuration.
        baselines: Scores of the runs that they are held against.
        metric: The metric. Samples that lack one of its scores in all runs are left out, and those that got no
            answer in any; of a judged one, samples that lack it in any.
        draw: Whether ratios are bootstrapped; else they are linearised, which is quicker.
        parts: Whether a difference of one run a side comes with what each cluster adds to it.

    Raises:
        PerpoError: They hold different samples, or a score is missing in some of them alone.
    """
    baseline = baselines[0]
    for run in (*candidates, *baselines[1:]):
        if len(run.keys) != len(baseline.keys) or (run.keys != baseline.keys).any():
            shared = len(np.intersect1d(run.keys, baseline.keys))
            raise PerpoError(
                f"the two runs have {shared} samples in common, of {len(run.keys)} and {len(baseline.keys)}",
                "evaluate both runs on the same data with the same limit",
            )
    runs = both_judged([*candidates, *baselines], metric)
    sums = [metric.sums(run.values) for run in runs]
    held = [~np.isnan(above) & ~np.isnan(below) for above, below in sums]
    if any((other != held[0]).any() for other in held[1:]):
        raise PerpoError(
            f"{metric.name} is missing for samples of one run but not of the other",
            "score both runs again: perpo-eval --rescore RUN; a task of your own has to give every answer a number",
        )
    if metric.own:
        return _own_difference([run.take(held[0]) for run in runs], metric)
    sums = [(above[held[0]], below[held[0]]) for above, below in sums]
    clusters, tasks = runs[-1].clusters[held[0]], runs[-1].tasks[held[0]]
    reach = metric.reach(*(below for _, below in sums))
    if not metric.bottom:  # a judge may leave its scale, and a task of lmms-eval's has none that is known
        each = np.stack([above for above, _ in sums])
        reach = max(reach, float((each.max(0) - each.min(0)).max(initial=0.0)))
    ours, theirs, bounds = sums[: len(candidates)], sums[len(candidates) :], (-reach, reach)
    if len(sums) > 2:
        return crossed_t(ours, theirs, clusters, tasks, bounds=bounds)
    paired = paired_sums(ours[0], theirs[0], clusters, tasks)
    difference = (cluster_bootstrap if metric.bottom and draw else cluster_t)(paired, bounds=bounds)
    told = difference.p_value is not None and parts
    return (
        replace(difference, parts=(np.unique(clusters), contributions(paired.above, paired.below)))
        if told
        else difference
    )


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


def _own_difference(runs: Sequence[Scores], metric: Definition) -> Difference:
    candidate, baseline = runs[0], runs[-1]
    ours, theirs = _own_number(candidate, metric), _own_number(baseline, metric)
    n, clusters = len(candidate.keys), len(np.unique(candidate.clusters))
    if (
        len(runs) > 2
        or ours is None
        or theirs is None
        or ours.clusters != theirs.clusters
        or len(ours.draws) != len(theirs.draws)
    ):
        return Difference(None, None, None, None, None, n, clusters, "undefined")
    other = candidate.values[metric.name] != baseline.values[metric.name]
    differing = len(np.unique(candidate.clusters[other]))
    return drawn_difference((ours.value, theirs.value), (ours.draws, theirs.draws), n, clusters, differing)


def both_judged(runs: Sequence[Scores], metric: Definition) -> list[Scores]:
    """Return the samples that runs are compared on: those that are answered, of a judged metric scored, in all."""
    if not metric.judged:
        absent = [run.failed for run in runs if run.failed is not None and run.failed.any()]
        if not absent:
            return list(runs)
        answered = ~np.any(absent, axis=0)
        return [run.take(answered) for run in runs]
    sums = [part for run in runs for part in metric.sums(run.values)]
    held = ~np.isnan(np.sum(sums, axis=0))
    return [run.take(held) for run in runs]


def paired_difference(candidate: Scores, baseline: Scores, score: str | Definition) -> Estimate:
    """Return `metric_difference` of a metric or of a score's mean, as an estimate.

    Args:
        candidate: As there.
        baseline: As there.
        score: The metric, or a key of `values`, such as "acc@0.5".
    """
    metric = Definition(score, score) if isinstance(score, str) else score
    difference = metric_difference(candidate, baseline, metric)
    low, high = difference.interval or (None, None)
    return Estimate(
        difference.value, difference.stderr, low, high, difference.n, difference.n_clusters, difference.method
    )
