"""Which tasks a suite has, and where their rows come from: the tiny world, a folder, or the hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.checkpoints import files_digest
from perpo.errors import PerpoError
from perpo.nearest import did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset

TASKS_FOLDER = Path(__file__).parent / "tasks"

SUITES = {"grounding": "1"}
"""Name and version of each suite."""

_HUB = {
    "refcoco": "lmms-lab-encoder/RefCOCO",
    "refcoco+": "lmms-lab-encoder/RefCOCOplus",
    "refcocog": "lmms-lab-encoder/RefCOCOg",
}
_SPLITS = {"": ("val", "testA", "testB"), "+": ("val", "testA", "testB"), "g": ("val", "test")}
TINY_TASKS = [f"refshapes{flavour}_{split}" for flavour, splits in _SPLITS.items() for split in splits]
REFCOCO_TASKS = [f"refcoco{flavour}_{split}" for flavour, splits in _SPLITS.items() for split in splits]
"""The eight columns of the paper's table. The hub's RefCOCO and RefCOCOg val hold Google's rows too."""


@dataclass(frozen=True)
class TaskData:
    """A task with its documents.

    Attributes:
        task: Its name, as in the task files.
        dataset: "tiny:<benchmark>", "dir:<benchmark>", or "hub:<repository>".
        revision: The tiny world's version, the hub's commit, or None for a folder.
        split: Name of the split.
        docs: One document per expression; see `perpo_eval.tasks.grounding.rows`.
        data_sha256: Digest of what the documents say and of their images, in their order.
    """

    task: str
    dataset: str
    revision: str | None
    split: str
    docs: Dataset
    data_sha256: str


def select_tasks(data: str, tasks: Sequence[str]) -> list[str]:
    """The names of the tasks to run, before anything is read.

    Args:
        data: "tiny", "hub", or a folder of <task>.parquet files.
        tasks: What the user asked for; empty for all that the data serve.

    Raises:
        PerpoError: No such folder, or a task that the data do not serve.
    """
    known = {"tiny": TINY_TASKS, "hub": REFCOCO_TASKS}.get(data)
    if known is None:
        if not Path(data).is_dir():
            raise PerpoError(
                f"--data is {data}, which is no folder", "give tiny, hub, or a folder of <task>.parquet files"
            )
        known = [task for task in REFCOCO_TASKS + TINY_TASKS if _file(data, task).is_file()]
        if not known:
            names = ", ".join(f"{task}.parquet" for task in REFCOCO_TASKS)
            raise PerpoError(f"{data} holds no data of a task", f"it should hold one or more of {names}")
    for task in tasks:
        if task not in known:
            raise PerpoError(f"--data {data} has no task '{task}'", did_you_mean(task, known))
    return list(dict.fromkeys(tasks)) or known


def load_task(task: str, data: str) -> TaskData:
    """Read a task's rows and make its documents.

    Raises:
        PerpoError: Rows or images that cannot be read.
    """
    from perpo_eval.tasks.grounding import rows

    benchmark, split = task.rsplit("_", 1)
    revision: str | None = None
    if data == "tiny":
        from perpo.tiny.world import WORLD_VERSION

        dataset, revision = f"tiny:{benchmark}", str(WORLD_VERSION)
        docs = rows.parquet_documents(rows.tiny_parquet(benchmark, split))
    elif data == "hub":
        dataset = f"hub:{_HUB[benchmark]}"
        hub_rows, revision = _from_hub(_HUB[benchmark], split)
        docs = rows.hub_documents(hub_rows)
    else:
        dataset = f"dir:{benchmark}"
        docs = rows.parquet_documents(_file(data, task))
    return TaskData(task, dataset, revision, split, docs, _fingerprint(docs))


def data_version(data: str, tasks: Sequence[str]) -> str:
    """What the rows of these tasks are read from, such that other rows have another version.

    The hub's rows may change; a run's record names their commit, and runs on different rows are not compared.
    """
    if data == "hub":
        return data
    return tiny_version() if data == "tiny" else files_digest([_file(data, task) for task in tasks])


def tiny_version() -> str:
    """The tiny world's version, with a digest of what draws it: a world in the making changes although its
    version stands.
    """
    from perpo.tiny import expressions, scenes, world

    modules = (expressions, scenes, world)
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in modules) + world.PROMPT.encode()
    return f"{world.WORLD_VERSION}-{hashlib.sha256(sources).hexdigest()[:8]}"


def suite_sha256() -> str:
    """Digest of the files under tasks/ and metrics/: what is asked, and how answers are scored."""
    folders = (TASKS_FOLDER, TASKS_FOLDER.with_name("metrics"))
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        if "__pycache__" not in path.parts:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _file(data: str, task: str) -> Path:
    return Path(data) / f"{task}.parquet"


def _from_hub(repository: str, split: str) -> tuple[Any, str]:
    """The rows of a split and the commit they are of, which is looked up so that the record can name it."""
    import datasets
    from huggingface_hub import HfApi

    try:
        commit = str(HfApi().dataset_info(repository).sha)
        return datasets.load_dataset(repository, revision=commit, split=split), commit
    except Exception as error:  # of many kinds: no network, no such commit, a file that was cut
        raise PerpoError(
            f"{repository} cannot be fetched from the hub: {type(error).__name__}: {' '.join(str(error).split())}",
            "check the network, or give --data a folder of <task>.parquet files",
            exit_code=3,
        ) from error


def _fingerprint(docs: Dataset) -> str:
    # Of the meaning, not of the Parquet bytes, which change with the version of the writer.
    digest = hashlib.sha256()
    for doc in docs.remove_columns("image_file"):
        digest.update(json.dumps(doc, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()
