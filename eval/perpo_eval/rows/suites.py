"""Which tasks a suite has, and where their rows come from: the tiny world, a folder, or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError
from perpo.models.checkpoints import files_digest
from perpo.prepare.hub.rows import HubTask, hub_tasks
from perpo_eval.rows.published import PUBLISHED, Published
from perpo_eval.rows.tiny_data import tiny_version

TASKS_FOLDER = Path(__file__).parents[1] / "tasks"

SUITES: dict[str, tuple[str, ...]] = {
    "grounding": ("grounding",),
    "pope": ("pope",),
    "ocr": ("ocr",),
    "paper": ("grounding", "pope", "ocr"),
    "judged": ("llava_bench", "mmhal"),
}
"""The benchmarks of each suite."""


_SPLITS = {"": ("val", "testA", "testB"), "+": ("val", "testA", "testB"), "g": ("val", "test")}
_STRATEGIES = ("random", "popular", "adversarial")
_PAGE_TOKENS = 2048
_ANSWER_TOKENS = 1024
_LONGEST = {"grounding": 64, "pope": 128, "ocr": _PAGE_TOKENS}


@dataclass(frozen=True)
class TaskSpec:
    """One task.

    Attributes:
        name: As in the task files.
        benchmark: A key of `perpo_eval.benchmarks.table.BENCHMARKS`.
        dataset: Name of the data set, such as refcoco+.
        split: Name of the split.
        max_new_tokens: Where an answer is cut.
        hub: Its rows on the hub, or None.
        build: The command that makes its file.
    """

    name: str
    benchmark: str
    dataset: str
    split: str
    max_new_tokens: int
    hub: HubTask | None = None
    build: str = ""

    @property
    def group(self) -> str:
        """What it is averaged with: its benchmark, or nothing but itself (a file of one's own, a language of Fox)."""
        return self.name if self.dataset in (self.name, "fox_ocr") else self.benchmark

    @property
    def tiny(self) -> bool:
        """Whether the tiny world draws it."""
        return self.dataset.startswith(("refshapes", "tiny"))

    @property
    def published(self) -> Published | None:
        """How its authors' files are read, where it is read from them."""
        return PUBLISHED.get(self.name)


def _specs() -> list[TaskSpec]:
    specs, hub = [], hub_tasks()
    for flavour, splits in _SPLITS.items():
        for split in splits:
            specs.append(TaskSpec(f"refshapes{flavour}_{split}", "grounding", f"refshapes{flavour}", split, 64))
            name = f"refcoco{flavour}_{split}"
            build = f"perpo-data refer --datasets refcoco{flavour}"
            specs.append(TaskSpec(name, "grounding", f"refcoco{flavour}", split, 64, hub[name], build))
    for strategy in _STRATEGIES:
        specs.append(TaskSpec(f"tinypope_{strategy}", "pope", "tinypope", strategy, 128))
        name = f"coco_pope_{strategy}"
        specs.append(TaskSpec(name, "pope", "coco_pope", strategy, 128, hub[name], "perpo-data pope"))
    specs.append(TaskSpec("tinypages_test", "ocr", "tinypages", "test", 64))
    for language in ("en", "cn"):
        specs.append(TaskSpec(f"fox_ocr_{language}", "ocr", "fox_ocr", language, _PAGE_TOKENS, None, "perpo-data fox"))
    for name, dataset, benchmark in (
        ("llava_bench_wild", "tinywild", "llava_bench"),
        ("mmhal_bench", "tinymmhal", "mmhal"),
    ):
        specs.append(TaskSpec(f"{dataset}_test", benchmark, dataset, "test", 64))
        specs.append(TaskSpec(name, benchmark, name, "test", _ANSWER_TOKENS))
    return specs


TASKS: dict[str, TaskSpec] = {spec.name: spec for spec in _specs()}
"""Every task that has a name of its own. The eight RefCOCO splits are the columns of the paper's table."""

_OWN_DATA = {"boxes_": "grounding", "yesno_": "pope", "pages_": "ocr"}
"""What a file of one's own is, by the beginning of its name."""


def spec_of(name: str) -> TaskSpec:
    """The task of that name; a file of one's own is one by its name.

    Raises:
        KeyError: There is none.
    """
    for start, benchmark in _OWN_DATA.items():
        if name.startswith(start) and len(name) > len(start):
            return TaskSpec(name, benchmark, name, name.removeprefix(start), _LONGEST[benchmark])
    return TASKS[name]


def select_tasks(suite: str, data: str, tasks: Sequence[str]) -> list[TaskSpec]:
    """The tasks to run, before anything is read.

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
        served = [spec for spec in wanted if spec.hub is not None or spec.published is not None]
    else:
        served = _in_folder(data, wanted, suite)
    known = {spec.name: spec for spec in served}
    for task in tasks:
        if task not in known:
            raise PerpoError(f"--data {data} has no task '{task}' for --suite {suite}", _missing_hint(task, known))
    if not served:
        raise PerpoError(f"--data {data} serves no task of --suite {suite}", _builds(wanted))
    order = {benchmark: place for place, benchmark in enumerate(SUITES[suite])}
    chosen = [known[task] for task in dict.fromkeys(tasks)] or served
    return sorted(chosen, key=lambda spec: order[spec.benchmark])


def missing_tasks(suite: str, data: str, specs: Sequence[TaskSpec]) -> str | None:
    """What the data lack of a suite and how to build it, in one sentence; None if they serve all of it.

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
        raise PerpoError(f"--data is {data}, which is no folder", "give tiny, hub, or a folder of <task>.parquet files")
    found = [spec for spec in wanted if _sources(data, spec)]
    own = sorted(path.stem for start in _OWN_DATA for path in Path(data).glob(f"{start}?*.parquet"))
    return found + [spec for spec in map(spec_of, own) if spec.benchmark in SUITES[suite]]


def _missing_hint(task: str, known: dict[str, TaskSpec]) -> str:
    spec = TASKS.get(task)
    if spec is not None and spec.published is not None:
        return _builds([spec])
    if spec is not None and spec.build:
        return f"build it with {spec.build} --output FOLDER, and give --data FOLDER"
    return did_you_mean(task, known)


def _builds(wanted: Sequence[TaskSpec]) -> str:
    if fetched := [spec.published.repository for spec in wanted if spec.published is not None]:
        return f"fetch {' and '.join(fetched)} from the hub with their images into FOLDER, and give --data FOLDER"
    commands = dict.fromkeys(spec.build.split(" --")[0] for spec in wanted if spec.build)
    return f"build the files with {' or '.join(commands)} --output FOLDER, and give --data FOLDER"


def data_version(data: str, specs: Sequence[TaskSpec]) -> str:
    """What the rows of these tasks are read from, such that other rows have another version.

    The hub's rows may change; a run's record names their commit, and runs on different rows are not compared.
    """
    if data == "hub":
        return data
    if data == "tiny":
        return tiny_version()
    return files_digest([file for spec in specs for file in _sources(data, spec)])


def _sources(data: str, spec: TaskSpec) -> list[Path]:
    """The files of a folder that a task's rows are read from; none if they are not there."""
    if spec.published is not None:
        files = spec.published.find(Path(data))
        return [] if files is None else spec.published.versioned(files)
    file = task_file(data, spec.name)
    return [file] if file.is_file() else []


def task_file(data: str, task: str) -> Path:
    """The file of a folder that a task's rows would be in."""
    return Path(data) / f"{task}.parquet"
