"""The run record: what one model did on one suite, in full, so that two runs can be compared. No torch.

`run.json` holds a `RunRecord`; `samples.parquet` beside it holds one row per sample with the columns
of `SAMPLE_COLUMNS`. `perpo.records.store` writes and reads both, and `perpo.records.run_json` the text of run.json.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from perpo.common.times import in_utc

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

SCHEMA_VERSION = 6
"""Raised when a field changes its meaning; readers refuse what is later than theirs."""

CUT = ("length", "repetition")
"""The finish reasons of answers that have no end."""

SAMPLE_COLUMNS: dict[str, str] = {
    "sample_key": "sha256 of dataset, revision, split, source id and expression; unique in a run",
    "task": "name of the task",
    "cluster_id": "what intervals cluster by: the image's sha256",
    "image": "{sha256 of the file, path as the dataset names it, width, height in pixels}",
    "question": "the user's turn",
    "prompt": "what the model read, chat template included",
    "response": "what the model said, or null where it gave no answer (error says why)",
    "parse_ok": "whether an answer could be read from the response, or null where there is none",
    "prediction": "the answer as read (JSON; for boxes xyxy in pixels of the original image), or null",
    "target": "the truth in the same form (JSON)",
    "layout": "how the page is laid out, as its row says, or null",
    "box_frame": "the frame that the response's coordinates were read in, or null",
    "scores": "one number per score; null where it does not apply or could not be had",
    "tokens_out": "generated tokens, the end token included",
    "latency_ms": "wall time of the sample's batch divided by the batch's size",
    "finish_reason": "stop (end token or stop string), length (cut at the token limit) or repetition (it looped)",
    "error": "what went wrong, or null",
    "judge": "what a judge said (JSON), or null",
}


@dataclass(frozen=True, config=_STRICT)
class Metric:
    """One number of a task with its uncertainty; None where a value is undefined, never 0.

    `unit` is "fraction" (0 to 1) or what the score counts in. `higher_is_better` is None for a share such as
    POPE's yes ratio. `ci_low` and `ci_high` bound the 95% interval made by `ci_method` (see `perpo.stats`). A
    reported number mostly comes without uncertainty and counts.
    """

    name: str
    value: float | None
    stderr: float | None
    ci_low: float | None
    ci_high: float | None
    ci_method: str | None
    n: int | None
    n_clusters: int | None
    higher_is_better: bool | None
    unit: str


@dataclass(frozen=True, config=_STRICT)
class TaskResult:
    """The result of one task (benchmark, split and scorer).

    `data_sha256` covers every row of the task's data, also those that a limit left out; `n_total`
    counts them, `n_scored` those that were asked; `n_error` of these have no answer or no judgement, and
    no score. `n_truncated` counts the answers that were cut: at the token limit, or where they looped
    (--stop_on_repetition). `n_looped` counts those that end in a loop (`perpo.texts.repetition`), and
    `n_looped_truncated` those of them that were cut; what of this is not known is None.
    `benchmark` is a key of `perpo.benchmarks.table.INFO`, or one that `declared` describes: what a task
    says of its own metrics where this perpo knows nothing of them; None for those that it knows.
    `prompt` is what was asked, with the place of the sample's own words in braces; `note` is what a
    reader of the numbers must know, such as rows of two data sets in one split. `box_frame`, `box_scale` and
    `box_order` are how boxes were read (`perpo.boxes.formats`). What a reported number leaves open is None.
    """

    task: str
    benchmark: str
    task_version: str | None
    dataset: str
    revision: str | None
    data_sha256: str | None
    split: str
    prompt: str | None
    max_new_tokens: int | None
    box_frame: str | None
    note: str | None
    n_total: int | None
    n_scored: int | None
    n_parse_fail: int | None
    n_error: int | None
    cluster_key: str | None
    metrics: list[Metric]
    n_truncated: int | None = None
    box_scale: str | None = None
    box_order: str | None = None
    declared: dict[str, Any] | None = None
    n_looped: int | None = None
    n_looped_truncated: int | None = None


@dataclass(frozen=True, config=_STRICT)
class GroupResult:
    """Metrics over tasks that belong together, which weigh the same; images that several share are one cluster.

    `name` is the benchmark's, or the task's where a task stands alone: a file of one's own, or a language of Fox.
    """

    name: str
    benchmark: str
    tasks: list[str]
    metrics: list[Metric]


@dataclass(frozen=True, config=_STRICT)
class ModelInfo:
    """The weights that answered. `id` is "tiny", a hub id, or a directory's name (never its path).

    `engine` is what ran them: "perpo", "vllm", "server", "lmms:<model>", or "elsewhere" where only
    the answers are known.
    `served` is what a server said of its model: {model, root, software, version}, or {software, version, adapter, ...}
    of vLLM in the same process; None where neither answered.
    """

    id: str
    family: str | None
    engine: str
    revision: str | None
    weights_sha256: str | None
    adapter: str | None
    adapter_sha256: str | None
    processor: str | None
    processor_sha256: str | None
    dtype: str | None
    attention: str | None
    served: dict[str, Any] | None = None


@dataclass(frozen=True, config=_STRICT)
class SamplesFile:
    """The table of samples beside the record."""

    path: str
    sha256: str
    rows: int


@dataclass(frozen=True, config=_STRICT)
class RunRecord:
    """One model on one suite.

    Attributes:
        schema_version: `SCHEMA_VERSION` of the writer.
        run_id: Unique name, also the folder's.
        name: What tables call the model.
        status: complete, partial (more than a twentieth of the judgements or more than --max_error_share of the answers
            are missing), failed (no question got an answer), or "awaiting judge" (no judge was asked).
        created_utc: When the run began, ISO 8601; when they were copied for reported numbers.
        duration_s: Wall time in seconds.
        command: What would repeat it.
        code: {version, commit, dirty}; commit and dirty are None outside of a git checkout.
        packages: Version of each package that matters to the numbers.
        hardware: {machine, cpus, device}.
        model: The weights.
        training_run: training.json of the adapter, or None.
        suite: {name, version, sha256 of the task files}.
        generation: {batch_size, temperature, top_p, seed, limit, prompt_style, stop_on_repetition (left out before
            there was such a setting)}; smallest_batch_limit where memory had
            room for less, max_error_share of an lmms-eval model; reviewed_labels: by task, which review told right
            labels from wrong ones, and the counts.
        tasks: One result per task.
        groups: One result per benchmark, and per task that stands alone.
        judge: {id, served_as (names that the server gave), prompt_sha256 by benchmark, settings, deviations from what
            was published}; None where none was asked.
        samples: The table of samples, or None for a reported record.
        source: measured, or reported by somebody else.
        rescored_from: Id of the run whose responses were scored again, or None.
        warnings: What was said of how answers were read, which changed no number; None where nothing was.
        imported: Where answers came from that were made elsewhere: files with their digests, their layout, what they
            were matched by and what did not match; None where this perpo asked.
    """

    schema_version: int
    run_id: str
    name: str
    status: Literal["complete", "partial", "failed", "awaiting judge"]
    created_utc: str
    duration_s: float | None
    command: str | None
    code: dict[str, Any]
    packages: dict[str, str]
    hardware: dict[str, Any]
    model: ModelInfo
    training_run: dict[str, Any] | None
    suite: dict[str, Any]
    generation: dict[str, Any]
    tasks: list[TaskResult]
    groups: list[GroupResult]
    judge: dict[str, Any] | None
    samples: SamplesFile | None
    source: Literal["measured", "reported"]
    rescored_from: str | None = None
    warnings: list[str] | None = None
    imported: dict[str, Any] | None = None

    @property
    def when(self) -> datetime:
        """`created_utc` as a time that can be compared: UTC, also where it names no zone."""
        return in_utc(self.created_utc)

    @property
    def origin(self) -> str:
        """Return where its numbers are from: measured, imported (answers made elsewhere) or reported."""
        return self.source if self.imported is None else "imported"

    def group(self, name: str) -> GroupResult | None:
        """Return the group of that name, or None."""
        return next((group for group in self.groups if group.name == name), None)

    def task(self, name: str) -> TaskResult:
        """Return the result of the task called `name`.

        Raises:
            KeyError: The run has no such task.
        """
        for result in self.tasks:
            if result.task == name:
                return result
        raise KeyError(name)


def sample_key(dataset: str, revision: str | None, split: str, source_id: str, expression: str) -> str:
    """Return a sample's identity across runs, a hexadecimal sha256.

    The parts are separated by a byte that no text holds, so that no two tuples share a key.
    """
    return hashlib.sha256("\x1f".join((dataset, revision or "", split, source_id, expression)).encode()).hexdigest()


def metric_of(metrics: list[Metric], name: str) -> Metric | None:
    """Return the metric called `name`, or None."""
    return next((metric for metric in metrics if metric.name == name), None)
