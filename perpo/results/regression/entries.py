"""An entry of a regression report: one run, or several of one configuration (seeds, repeats). No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perpo.errors import PerpoError
from perpo.methods import METHODS
from perpo.records.run_record import RunRecord
from perpo.records.store import Run
from perpo.results.compare import check_comparable, differ, mismatches, shared_samples
from perpo.results.regression.checks import check_complete, check_targets, other_code
from perpo.results.samples import Scores

_MODEL = ("id", "family", "engine", "revision", "weights_sha256", "processor_sha256", "dtype")
_GENERATION = ("temperature", "top_p", "limit", "prompt_style", "stop_on_repetition")
_NO_SETTING = {
    "seed",
    "data",
    "output_dir",
    "adapter",
    "image_root",
    "resume_from_checkpoint",
    "report_to",
}
_NO_SETTINGS = ("save_", "logging_", "push_", "hub_", "dataloader_", "probe_", "eval_")
"""Arguments of a training that decide where things lie, what is watched and how often, and not what is learnt."""


@dataclass(frozen=True)
class Entry:
    """Runs of one configuration, at least one; the first stands for them where one is shown."""

    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The names of the runs' models, and how many runs there are where there are several."""
        names = ", ".join(dict.fromkeys(run.record.name for run in self.runs))
        return names if len(self.runs) == 1 else f"{names} ({len(self.runs)} runs)"


def check_entry(entry: Entry, *, common: bool = False) -> list[str]:
    """Refuse runs of several configurations as one entry, and say what else is to be said of them.

    Raises:
        PerpoError: A run is named twice, or two differ in model, tasks, data, how answers were made (but for the seed),
            or how they were trained (but for the seed and what it leads to).
    """
    first, notes = entry.runs[0].record, []
    ids = [run.record.run_id for run in entry.runs]
    if twice := sorted({one for one in ids if ids.count(one) > 1}):
        raise PerpoError(f"the run {twice[0]} is named twice in one entry", "name every run of a configuration once")
    for run in entry.runs[1:]:
        differences = [*mismatches(run.record, first, common=common), *_other_configuration(run.record, first)]
        if differences:
            raise PerpoError(
                f"{run.record.run_id} and {first.run_id} are not of one configuration: {'; '.join(differences)}",
                "join runs by commas only if no more than the seed differs; runs that are apart by a blank are apart",
            )
    if len({_trained_on(run.record) for run in entry.runs}) > 1:
        notes.append(f"The runs of {entry.name} learned from sampled data that differ: their spread holds that too.")
    if len(entry.runs) > 1 and len({_weights(run.record) for run in entry.runs}) < len(entry.runs):
        notes.append(
            f"Some runs of {entry.name} have the same weights: their spread holds what sampling does, and no training."
        )
    return notes


def check_apart(candidate: Entry, baseline: Entry) -> list[str]:
    """Refuse a run that is on both sides beside others: the sides would not be drawn apart. Say so of one by itself.

    Raises:
        PerpoError: Entries of several runs share one.
    """
    shared = sorted({run.record.run_id for run in candidate.runs} & {run.record.run_id for run in baseline.runs})
    if shared and len(candidate.runs) + len(baseline.runs) > 2:
        raise PerpoError(
            f"the run {shared[0]} is in the baseline and in the candidate", "name every run on one side alone"
        )
    return [f"The candidate is the baseline itself: both are one run, {shared[0]}."] if shared else []


def _other_configuration(record: RunRecord, first: RunRecord) -> list[str]:
    """In what two runs differ that are to be of one configuration, beside what keeps any two from being compared."""
    said = [text for name in _MODEL for text in differ(f"model {name}", *_pair(record.model, first.model, name))]
    for name in _GENERATION:
        said += differ(name, record.generation.get(name), first.generation.get(name))
    trained = [(run.model.adapter_sha256 is None, run.training_run is None) for run in (record, first)]
    if trained[0] != trained[1]:
        said.append("one was trained, or has an adapter, and the other not")
    ours, theirs = (_settings(run) for run in (record, first))
    for name in sorted(set(ours) & set(theirs)):
        if ours[name] != theirs[name]:
            said.append(f"training's {name} {ours[name]!s:.60} against {theirs[name]!s:.60}")
    method = METHODS.get(str(ours.get("method")))
    if method is None or not method.samples:
        said += differ("training data", _trained_on(record), _trained_on(first))
    return said


def _pair(one: Any, other: Any, name: str) -> tuple[Any, Any]:
    return getattr(one, name), getattr(other, name)


def _settings(record: RunRecord) -> dict[str, Any]:
    arguments = (record.training_run or {}).get("arguments") or {}
    return {
        name: value
        for name, value in arguments.items()
        if name not in _NO_SETTING and not name.startswith(_NO_SETTINGS)
    }


def _trained_on(record: RunRecord) -> str | None:
    return ((record.training_run or {}).get("data") or {}).get("sha256")


def _weights(record: RunRecord) -> tuple[str | None, str | None]:
    return record.model.weights_sha256, record.model.adapter_sha256


def aligned(
    candidate: Entry, baseline: Entry, read: Callable[[Run], Scores], *, common: bool, strict: bool
) -> tuple[list[Scores], list[Scores], list[str]]:
    """Return the scores of both entries' runs on the same samples, and what is to be said of them.

    Raises:
        PerpoError: Some runs cannot be compared, or hold other samples; exit code 3 where one is not complete.
    """
    runs, first, notes = [*candidate.runs, *baseline.runs], baseline.runs[0], []
    for run in runs:
        check_complete(run)
    for run in candidate.runs:
        check_comparable(run, first, common=common)
    for run in runs:
        if run is not first:
            notes += other_code(run, first, strict)
    scores = [read(run) for run in runs]
    place = len(candidate.runs)
    if common:
        counts = [len(each.keys) for each in scores]
        for _ in range(2):  # the second time all are cut to what the last of them has
            for number in range(len(scores)):
                if number != place:
                    scores[number], scores[place] = shared_samples(scores[number], scores[place])
        shared = scores[place]
        told = f"{counts[place]:,} and {', '.join(f'{count:,}' for n, count in enumerate(counts) if n != place)}"
        notes.append(f"Compared on the {len(shared.keys):,} samples that both have, of {told}.")
        for run in runs:
            if run is not first:
                check_targets(run, first, shared)
        if absent := sorted({task.task for run in runs for task in run.record.tasks} - set(shared.tasks)):
            notes.append(f"Not compared, because one run lacks it: {', '.join(absent)}.")
    elif any(not np.array_equal(each.keys, scores[place].keys) for each in scores):
        raise PerpoError("the runs hold other samples", "give --common to compare those that both have")
    return scores[:place], scores[place:], list(dict.fromkeys(notes))


def mean_scores(runs: Sequence[Scores]) -> Scores:
    """Return the mean of several runs' scores, sample by sample; missing where one lacks it."""
    if len(runs) == 1:
        return runs[0]
    names = set.intersection(*(set(run.values) for run in runs))
    values = {name: np.mean([run.values[name] for run in runs], axis=0) for name in sorted(names)}
    return Scores(runs[0].keys, runs[0].tasks, runs[0].clusters, values)
