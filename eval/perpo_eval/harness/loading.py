"""A task of lmms-eval with its rows: from the hub as its file says, or from a folder that stands in for the hub."""

from __future__ import annotations

import copy
import hashlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.data.images import listing
from perpo.errors import PerpoError
from perpo_eval.benchmarks.base import TaskSpec
from perpo_eval.harness.documents import Document, document, row_digest
from perpo_eval.harness.finding import TaskFile, find_tasks
from perpo_eval.harness.quiet import quiet_lmms_eval
from perpo_eval.harness.refusing import check_task
from perpo_eval.rows.loading import TaskData
from perpo_eval.rows.suites import TASKS_FOLDER, is_ours
from perpo_eval.wanted import RowsWanted

if TYPE_CHECKING:
    from datasets import Dataset

USUAL_TOKENS = 256
"""Where an answer is cut whose task does not say."""

_ENDINGS = (".parquet", ".jsonl", ".json")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HarnessSpec(TaskSpec):
    """A task that lmms-eval defines.

    Attributes:
        file: Its task file.
    """

    file: TaskFile = None  # type: ignore[assignment]


@dataclass(frozen=True)
class HarnessData(TaskData):
    """A task of lmms-eval's with its documents.

    Attributes:
        spec: The task.
        task: lmms-eval's object, which asks and scores.
        shown: For each document, what tells the pictures that are shown for it from others.
        total: How many rows the task has; `docs` are those that are asked.
        limits: What it makes of truths and of empty answers: `perpo_eval.harness.scoring.ScoreLimits`.
    """

    spec: HarnessSpec
    task: Any = None
    shown: tuple[str, ...] = ()
    total: int = 0
    limits: Any = None

    @property
    def n_total(self) -> int:
        """Return how many rows the task has."""
        return self.total

    @property
    def config(self) -> dict[str, Any]:
        """The task file's settings, with the rows that were read before."""
        docs = self.task.eval_docs
        return _pointing(self.spec.file, lambda _: docs)


def harness_specs(rows: RowsWanted) -> list[HarnessSpec]:
    """Return the tasks of lmms-eval that are asked for; none where all that is asked for is perpo's.

    Raises:
        PerpoError: Names of both kinds, a task that is not known or cannot be run here, or a setting without use.
    """
    foreign = [name for name in rows.tasks if not is_ours(name)]
    if not foreign:
        if rows.include_path is not None:
            raise PerpoError("--include_path has no use without --tasks of its own", "name a task of that folder")
        return []
    files = find_tasks(foreign, rows.include_path)
    if ours := [name for name in rows.tasks if is_ours(name)]:
        raise PerpoError(
            f"{ours[0]} is perpo's task and {foreign[0]} is lmms-eval's", "run the two kinds one after the other"
        )
    for file in files:
        check_task(file)
    return [_spec(file) for file in files]


def _spec(file: TaskFile) -> HarnessSpec:
    config = file.config
    split = config.get("test_split") or config.get("validation_split")
    if split is None or not file.config.get("metric_list"):
        lacks = "test_split or validation_split" if split is None else "metric_list"
        raise PerpoError(f"the task file {file.path} has no {lacks}", "see lmms-eval's guide to task files")
    tokens = (config.get("generation_kwargs") or {}).get("max_new_tokens", USUAL_TOKENS)
    return HarnessSpec(file.name, f"lmms:{file.name}", file.name, str(split), int(tokens), file=file)


def load_harness(spec: HarnessSpec, rows: RowsWanted, model: str) -> HarnessData:
    """Read a task's rows and make its documents.

    Args:
        spec: The task.
        rows: Which rows; "tiny" and "hub" are both what the task file says.
        model: Which of the task file's `lmms_eval_specific_kwargs` are meant, if it has some for this model.

    Raises:
        PerpoError: Rows that cannot be had or read (exit code 3 where the hub cannot be reached).
    """
    file = _own_file(spec, rows)
    config = _full(spec.file) if file is None else _pointing(spec.file, _reader(spec, file))
    task = _configured(spec, config, model, file)
    docs, total = task.eval_docs, len(task.eval_docs)
    asked = total if rows.limit is None else min(rows.limit, total)
    made, problems = [], []
    for number in range(asked):
        try:
            made.append(document(task, docs, number))
        except OSError as error:
            problems.append(f"row {number}: {error}")
    if problems:
        raise PerpoError(f"{spec.name}: {len(problems)} images cannot be read: {listing(problems)}", "fetch them again")
    digest = hashlib.sha256("".join(row_digest(docs, number) for number in range(total)).encode()).hexdigest()
    dataset = f"dir:{spec.name}" if file is not None else f"hub:{spec.file.config.get('dataset_path')}"
    revision = None if file is not None else _revision(docs)
    return HarnessData(
        spec,
        dataset,
        revision,
        _dataset(made),
        digest,
        task=task,
        shown=tuple(each.shown for each in made),
        total=total,
    )


def check_pictures(data: HarnessData) -> None:
    """Refuse rows that perpo's own engine cannot be asked: those without a picture, or with several.

    Raises:
        PerpoError: There are some.
    """
    other = [number for number, count in enumerate(data.docs["pictures"]) if count != 1]
    if other:
        count = data.docs["pictures"][other[0]]
        raise PerpoError(
            f"{len(other):,} of {len(data.docs):,} rows of {data.spec.name} show another number of pictures than one "
            f"(row {other[0]}: {count}), and perpo's engine takes one",
            "use --engine lmms:<model>",
        )


def _dataset(made: Sequence[Document]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_list([each.columns for each in made])


def _own_file(spec: HarnessSpec, rows: RowsWanted) -> Path | None:
    """The file of a folder that stands in for the hub; None where the rows are those that the task file says."""
    if rows.data in ("tiny", "hub"):
        if rows.data == "tiny" and spec.file.config.get("dataset_path") is not None:
            print(
                f"note: the rows of {spec.name} are those that its task file names "
                f"({spec.file.config['dataset_path']}); --data tiny has none of it",
                file=sys.stderr,
            )
        return None
    folder = Path(rows.data)
    files = [folder / f"{spec.name}{ending}" for ending in _ENDINGS]
    file_of_task = next((file for file in files if file.is_file()), None)
    if file_of_task is None:
        hint = "put rows in the task's own columns there, or leave --data out for those that its file names"
        raise PerpoError(f"{folder} holds no {spec.name}.parquet, .jsonl or .json", hint)
    return file_of_task


def _reader(spec: HarnessSpec, file: Path) -> Callable[[Any], Any]:
    """What hands lmms-eval the rows of a file in place of the hub's; the task's own process_docs follows."""
    process = spec.file.config.get("process_docs")

    def read(_: Any) -> Any:
        docs = _rows(file)
        return docs if process is None else process(docs)

    return read


def _rows(file: Path) -> Dataset:
    """The rows of a file; columns of {bytes, path}, and of names of files that are there, are pictures."""
    from datasets import Dataset, Features, Image

    from perpo.data.rows import read_rows

    rows = list(read_rows(file))
    if not rows:
        raise PerpoError(f"{file} holds no rows", "give rows in the task's own columns")
    for row in rows:
        for name, value in row.items():
            if isinstance(value, str) and "image" in name.lower() and (file.parent / value).is_file():
                row[name] = {"bytes": None, "path": str(file.parent / value)}
    docs = Dataset.from_list(rows)
    pictures = {name: Image() for name, kind in docs.features.items() if _is_picture(kind)}
    return docs.cast(Features({**docs.features, **pictures})) if pictures else docs


def _is_picture(kind: Any) -> bool:
    return isinstance(kind, dict) and set(kind) == {"bytes", "path"}


def _full(file: TaskFile) -> dict[str, Any]:
    """The settings of a task file, as an object of lmms-eval's may change them."""
    return {**copy.deepcopy({k: v for k, v in file.config.items() if not callable(v)}), **_functions(file)}


def _functions(file: TaskFile) -> dict[str, Any]:
    return {name: value for name, value in file.config.items() if callable(value)}


def _pointing(file: TaskFile, process_docs: Callable[[Any], Any]) -> dict[str, Any]:
    """The settings of a task file whose rows come from elsewhere."""
    pointer = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"rows": str(TASKS_FOLDER / "rows_are_made_elsewhere.json")}},
        "test_split": "rows",
        "process_docs": process_docs,
    }
    return {**_full(file), **dict.fromkeys(("training_split", "validation_split", "fewshot_split")), **pointer}


def _configured(spec: HarnessSpec, config: dict[str, Any], model: str, file: Path | None) -> Any:
    """lmms-eval's object of a task, with its rows."""
    from tenacity import RetryError

    with quiet_lmms_eval() as module:
        try:
            return module.ConfigurableTask(config=config, model_name=model)
        except PerpoError:
            raise
        except Exception as error:  # any code of the task's, or of what fetches its rows
            cause = error.last_attempt.exception() or error if isinstance(error, RetryError) else error
            if isinstance(cause, PerpoError):
                raise cause from error
            told = f"{type(cause).__name__}: {' '.join(str(cause).split()):.300}"
            if file is not None:
                raise PerpoError(
                    f"{file} cannot be read as rows of {spec.name}: {told}", "give rows in the task's own columns"
                ) from cause
            raise PerpoError(
                f"the rows of {spec.name} ({spec.file.config.get('dataset_path')}) cannot be had: {told}",
                f"check the network, or give --data FOLDER with {spec.name}.parquet in its columns",
                exit_code=3,
            ) from cause


def _revision(docs: Dataset) -> str | None:
    """The hub's commit, where `datasets` says it."""
    names = [str(url) for url in (docs.info.download_checksums or {})]
    names += [Path(file["filename"]).parent.name for file in docs.cache_files]
    commits = (match.group() for name in names if (match := _COMMIT.search(name)))
    return next(commits, None)
