"""Suites: the tasks of each, and where their rows come from: the tiny world, a folder, or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError
from perpo.models.checkpoints import files_digest
from perpo_eval.benchmarks.base import TaskSpec
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.rows.published import PUBLISHED
from perpo_eval.rows.tiny_data import tiny_version

TASKS_FOLDER = Path(__file__).parents[1] / "tasks"

_ALL = [benchmark.info for benchmark in BENCHMARKS.values()]

SUITES: dict[str, tuple[str, ...]] = {
    suite: tuple(info.name for info in _ALL if suite in info.suites)
    for suite in dict.fromkeys(suite for info in _ALL for suite in info.suites)
}
"""The benchmarks of each suite."""

TASKS: dict[str, TaskSpec] = {spec.name: spec for benchmark in BENCHMARKS.values() for spec in benchmark.tasks}
"""Every task that has a name of its own."""

_OWN_DATA = {info.own_files: info for info in _ALL if info.own_files}
"""What a file of one's own is, by the beginning of its name."""


def spec_of(name: str) -> TaskSpec:
    """Return the task of that name; a file of one's own is one by its name.

    Raises:
        KeyError: There is none.
    """
    for start, info in _OWN_DATA.items():
        if name.startswith(start) and len(name) > len(start):
            return TaskSpec(name, info.name, name, name.removeprefix(start), info.max_new_tokens)
    return TASKS[name]


def is_ours(name: str) -> bool:
    """Return whether a task is perpo's own: one of its tasks, or a file of one's own by the beginning of its name."""
    return name in TASKS or any(name.startswith(start) for start in _OWN_DATA)


def select_tasks(suite: str, data: str, tasks: Sequence[str]) -> list[TaskSpec]:
    """Return the tasks to run, before anything is read.

    Args:
        suite: A key of `SUITES`.
        data: "tiny", "hub", or a folder of <task>.parquet files or of published benchmarks.
        tasks: What the user asked for; empty for all of the suite that the data serve.

    Raises:
        PerpoError: No such folder, or a task that the data do not serve.
    """
    wanted = [spec for spec in TASKS.values() if spec.benchmark in SUITES[suite]]
    if data == "tiny":
        served = [spec for spec in wanted if spec.tiny]
    elif data == "hub":
        served = [spec for spec in wanted if spec.hub is not None or spec.name in PUBLISHED]
    else:
        served = _in_folder(data, wanted, suite)
    known = {spec.name: spec for spec in served}
    for task in tasks:
        if task not in known:
            raise PerpoError(f"--data {data} has no task '{task}' for --suite {suite}", _missing_hint(task, known))
    if not served:
        raise PerpoError(f"--data {data} has no task of --suite {suite}", _builds(wanted))
    order = {benchmark: place for place, benchmark in enumerate(SUITES[suite])}
    usual = [spec for spec in served if suite not in spec.named_in]
    chosen = [known[task] for task in dict.fromkeys(tasks)] or usual
    return sorted(chosen, key=lambda spec: order[spec.benchmark])


def missing_tasks(suite: str, data: str, specs: Sequence[TaskSpec]) -> str | None:
    """Return what the data lack of a suite and how to build it, in one sentence; None if they serve all of it.

    Args:
        suite: A key of `SUITES`.
        data: As for `select_tasks`; of the tiny world nothing is ever missing.
        specs: What they serve.
    """
    wanted = [spec for spec in TASKS.values() if spec.benchmark in SUITES[suite] and not spec.tiny]
    absent = [spec for spec in wanted if spec not in specs]
    if data == "tiny" or not absent:
        return None
    names = ", ".join(spec.name for spec in absent)
    return f"--data {data} lacks {names} of --suite {suite}; {_builds(absent)}"


def _in_folder(data: str, wanted: Sequence[TaskSpec], suite: str) -> list[TaskSpec]:
    if not Path(data).is_dir():
        raise PerpoError(
            f"--data is {data}, which is not a folder", "give tiny, hub, or a folder of <task>.parquet files"
        )
    specs = [spec for spec in wanted if _sources(data, spec)]
    own = sorted(path.stem for start in _OWN_DATA for path in Path(data).glob(f"{start}?*.parquet"))
    return specs + [spec for spec in map(spec_of, own) if spec.benchmark in SUITES[suite]]


def _missing_hint(task: str, known: dict[str, TaskSpec]) -> str:
    spec = TASKS.get(task)
    if spec is not None and task in PUBLISHED:
        return _builds([spec])
    if spec is not None and spec.build:
        return f"build it with {spec.build} --output FOLDER, and give --data FOLDER"
    return did_you_mean(task, known)


def _builds(wanted: Sequence[TaskSpec]) -> str:
    if fetched := [PUBLISHED[spec.name].repository for spec in wanted if spec.name in PUBLISHED]:
        return f"fetch {' and '.join(fetched)} from the hub with their images into FOLDER, and give --data FOLDER"
    commands = dict.fromkeys(spec.build.split(" --")[0] for spec in wanted if spec.build)
    return f"build the files with {' or '.join(commands)} --output FOLDER, and give --data FOLDER"


def data_version(data: str, specs: Sequence[TaskSpec]) -> str:
    """Return what the rows of these tasks are read from, such that other rows have another version.

    The hub's rows may change; a run's record names their commit, and runs on different rows are not compared.
    """
    if data == "hub":
        return data
    if data == "tiny":
        return tiny_version([spec.name for spec in specs])
    return files_digest([file for spec in specs for file in _sources(data, spec)])


def _sources(data: str, spec: TaskSpec) -> list[Path]:
    """The files of a folder that a task's rows are read from; none if they are not there."""
    published = PUBLISHED.get(spec.name)
    if published is not None:
        files = published.find(Path(data))
        return [] if files is None else published.versioned(files)
    file = task_file(data, spec.name)
    return [file] if file.is_file() else []


def task_file(data: str, task: str) -> Path:
    """Return the file of a folder that a task's rows would be in."""
    return Path(data) / f"{task}.parquet"
