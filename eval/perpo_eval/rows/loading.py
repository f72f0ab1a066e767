"""A task's documents, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perpo.prepare.hub.rows import hub_rows
from perpo.prepare.parquet import file_metadata, shows_stored
from perpo_eval.benchmarks.base import TaskSpec
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.rows.published import PUBLISHED
from perpo_eval.rows.suites import task_file
from perpo_eval.rows.tiny_data import tiny_parquet

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class TaskData:
    """A task with its documents.

    Attributes:
        spec: The task.
        dataset: "tiny:<data set>", "dir:<data set>", or "hub:<repository>".
        revision: The tiny world's version, the hub's commit, or None for a folder.
        docs: One document per sample; see `perpo_eval.rows.documents`.
        data_sha256: Digest of what the documents say and of their images, in their order.
        note: What a reader of the numbers must know of these rows, or None.
        cluster_key: What intervals cluster by.
    """

    spec: TaskSpec
    dataset: str
    revision: str | None
    docs: Dataset
    data_sha256: str
    note: str | None = None
    cluster_key: str = "image sha256"

    def first(self, limit: int | None) -> Dataset:
        """Return its first so many documents; all without a limit."""
        return self.docs if limit is None else self.docs.select(range(min(limit, len(self.docs))))


def load_task(spec: TaskSpec, data: str) -> TaskData:
    """Read a task's rows and make its documents.

    Raises:
        PerpoError: Rows or images that cannot be read.
    """
    from perpo_eval.rows.documents import documents, fingerprint, hub_documents, parquet_documents

    form = BENCHMARKS[spec.benchmark].rows
    revision: str | None = None
    note: str | None = None
    if data == "tiny":
        from perpo.tiny.world.scenes import WORLD_VERSION

        dataset, revision = f"tiny:{spec.dataset}", str(WORLD_VERSION)
        docs = parquet_documents(tiny_parquet(spec.name), form)
    elif data == "hub" and spec.hub is not None:
        dataset, note = f"hub:{spec.hub.repository}", spec.hub.mixture
        rows, revision = hub_rows(spec.hub.repository, spec.hub.config, spec.hub.split)
        docs = hub_documents(rows, form)
    elif (published := PUBLISHED.get(spec.name)) is not None:
        files, revision = published.get(data)
        dataset = f"hub:{published.repository}" if data == "hub" else f"dir:{spec.dataset}"
        docs = documents(published.rows(files), form, str(files[0]))
        note = published.note(len(docs))
    else:
        file = task_file(data, spec.name)
        dataset, note = f"dir:{spec.dataset}", file_metadata(file).get("mixture")
        docs = parquet_documents(file, form, stored=spec.hub is not None or shows_stored(file))
    return TaskData(spec, dataset, revision, docs, fingerprint(docs), note)
