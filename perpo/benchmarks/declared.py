"""Benchmarks that this perpo knows nothing of: what a stored run's task says of its own metrics. No torch.

Any task of lmms-eval can be run. The record of such a task declares what is needed to compare two runs of it without
lmms-eval (`perpo.records.run_record.TaskResult.declared`):

    primary     the metric that stands for the task
    sample      the score by which its answers are held against each other
    right       what that score is for a right answer, or None where that is not known
    span        what that score can be at least and at most
    max_new_tokens   where answers are cut by default
    metrics     for each: name, higher_is_better, unit, scale, bounds (of a sample's score), aggregate ("mean", or
                "own function NAME"), and of the latter draws: what the bootstrap gave, see `perpo.stats.drawn`
    lmms_eval, task_file, generation_kwargs    where it comes from; nothing is computed from these
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from perpo.benchmarks.base import BenchmarkInfo, Definition, Rule
from perpo.benchmarks.table import INFO, info_of
from perpo.errors import PerpoError

OWN_FUNCTION = "own function "
"""How `aggregate` begins where a function of the task's own makes the number; its name follows."""

TASKS_SUITE = "tasks"
"""What the suite of a run of such tasks is called."""


class Declares(Protocol):
    """A task of a stored run: which benchmark it is, and what it declares of it."""

    @property
    def benchmark(self) -> str:
        """Its name."""
        ...

    @property
    def declared(self) -> dict[str, Any] | None:
        """Return what it says of its metrics; None of a benchmark that is known."""
        ...


def infos(tasks: Iterable[Declares]) -> dict[str, BenchmarkInfo]:
    """Return what is known of the benchmarks of a run's tasks, by name; what nobody knows is left out.

    Raises:
        PerpoError: A task declares what cannot be read.
    """
    known: dict[str, BenchmarkInfo] = {}
    for task in tasks:
        if task.benchmark in INFO:
            known[task.benchmark] = INFO[task.benchmark]
        elif task.declared is not None and task.benchmark not in known:
            known[task.benchmark] = _info(task.benchmark, task.declared)
    return known


def info_in(tasks: Iterable[Declares], benchmark: str) -> BenchmarkInfo:
    """Return what is known of a benchmark of a run.

    Args:
        tasks: The run's.
        benchmark: Its name.

    Raises:
        PerpoError: Nothing is known of it: a later perpo may have stored the run.
    """
    return infos(tasks).get(benchmark) or info_of(benchmark)


def _info(benchmark: str, declared: Mapping[str, Any]) -> BenchmarkInfo:
    try:
        metrics = tuple(_definition(benchmark, each) for each in declared["metrics"])
        names = [metric.name for metric in metrics]
        primary = metrics[names.index(declared["primary"])]
        right, span = declared["right"], tuple(map(float, declared["span"]))
        rule = Rule(
            "its score says nothing of it" if right is None else f"its score is {right:g}, as the truth's",
            declared["sample"] if right is not None else "",
            0.0 if right is None else float(right),
            declared["sample"],
            "score",
            (span[0], span[1]),
            primary.higher_is_better is not False,
        )
        return BenchmarkInfo(
            name=benchmark,
            answer="open",
            metrics=metrics,
            primary=primary.name,
            shown=(primary.name, *(name for name in names if name != primary.name)),
            meanings={each["name"]: _meaning(each) for each in declared["metrics"]},
            right=rule,
            flip_scores=(declared["sample"],),
            told_scores=(declared["sample"],),
            suites=(TASKS_SUITE,),
            max_new_tokens=int(declared["max_new_tokens"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise PerpoError(
            f"what the run declares of '{benchmark}' cannot be read: {type(error).__name__}: {error}",
            "use the perpo that stored the run, or run the evaluation again",
        ) from error


def _definition(benchmark: str, metric: Mapping[str, Any]) -> Definition:
    task = benchmark.partition(":")[2]  # tables name it beside the metric
    low, high = map(float, metric["bounds"])
    aggregate = str(metric["aggregate"])
    return Definition(
        name=metric["name"],
        title=metric["name"].removeprefix(f"{task}_").replace("_", " "),
        higher_is_better=metric["higher_is_better"],
        unit=metric["unit"],
        scale=float(metric["scale"]),
        bounds=(low, high),
        own=aggregate.removeprefix(OWN_FUNCTION) if aggregate.startswith(OWN_FUNCTION) else "",
    )


def _meaning(metric: Mapping[str, Any]) -> str:
    aggregate = str(metric["aggregate"])
    if aggregate.startswith(OWN_FUNCTION):
        return f"what {aggregate.removeprefix(OWN_FUNCTION)} of the task makes of all its samples"
    return "mean of what the task gives each sample"
