"""Score and describe answers, and store them as a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.boxes.readings import other_reading
from perpo.models.families import Family
from perpo.records import provenance
from perpo.records.run_record import SCHEMA_VERSION, Metric, ModelInfo, RunRecord
from perpo.records.store import new_run_id, write_run
from perpo.results.box_readings import answered
from perpo_eval.benchmarks.table import BENCHMARKS, has_boxes
from perpo_eval.engines.responses import Response
from perpo_eval.evaluate import harnessed, numbers, scoring
from perpo_eval.evaluate.reviewing import reviewed, with_note
from perpo_eval.evaluate.versions import SUITE_VERSION, suite_sha256, version_of
from perpo_eval.harness.loading import HarnessData
from perpo_eval.rows.label_review import LabelReview
from perpo_eval.rows.loading import TaskData
from perpo_eval.rows.suites import TaskSpec
from perpo_eval.wanted import MOST_ERRORS, DecodingWanted, EngineWanted, Reading, RowsWanted, RunWanted

if TYPE_CHECKING:
    import pyarrow as pa

    from perpo_eval.judge.verdicts import Judge

ResponseOf = Callable[[str], Callable[[int, str], Response]]
"""For a task, the answer by document number and sample key."""


@dataclass(frozen=True)
class _Part:
    """One task of a run.

    Attributes:
        table: Its rows.
        about: What its result says beside the numbers.
        metrics: The numbers, where the task makes them.
        review: What the record says of a review of its labels, or None.
    """

    table: pa.Table
    about: dict[str, Any]
    metrics: list[Metric] | None
    review: dict[str, Any] | None = None


@dataclass(frozen=True)
class RunWriter:
    """Scores answers and stores them with what a record says of a run beside its results.

    Attributes:
        wanted: The run that is stored.
        rows: Which questions were asked.
        generation: How answers were made: see `generation_of`.
        model: What answered.
        family: How it writes boxes; needed for grounding.
        training: training.json of the adapter, or None.
        hardware: Where it answered.
        began: When.
        clock: `time.perf_counter()` of then.
        judge: Who scores what a judge is to score, or None.
        reviews: What is known of the labels of some tasks, by task.
        imported: Where answers came from that were made elsewhere, or None.
        settings: lmms-eval's generation_kwargs of each task; empty where nobody knows.
    """

    wanted: RunWanted
    rows: RowsWanted
    generation: Mapping[str, Any]
    model: ModelInfo
    family: Family | None
    training: dict[str, Any] | None
    hardware: dict[str, Any]
    began: datetime
    clock: float
    judge: Judge | None
    reviews: Mapping[str, LabelReview] = field(default_factory=dict)
    imported: dict[str, Any] | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def store(self, data: Sequence[TaskData], templates: dict[str, str], response_of: ResponseOf) -> Path:
        """Score the answers and write the record.

        Raises:
            PerpoError: Where a judge is asked, as `perpo_eval.judge.asking.ask_judge`.
        """
        parts = [self._part(task, templates[task.spec.name], response_of(task.spec.name)) for task in data]
        tables = [part.table for part in parts]
        specs, judge = [task.spec for task in data], None
        if self.judge is not None:
            tables, judge = scoring.judge(tables, specs, self.judge)
        results = [
            numbers.task_result(part.about, table, part.metrics) for part, table in zip(parts, tables, strict=True)
        ]
        reviews = {part.about["task"]: part.review for part in parts if part.review is not None}
        record = RunRecord(
            **self._circumstances(specs, {"reviewed_labels": reviews} if reviews else {}),
            status=numbers.status(tables, specs, self.generation.get("max_error_share", MOST_ERRORS)),
            tasks=results,
            groups=numbers.groups(results, tables),
            judge=judge,
            samples=None,
            source="measured",
            warnings=misread(tables, specs, self.family),
            imported=self.imported,
        )
        return write_run(Path(self.wanted.output), record, scoring.join(tables)).path

    def _part(self, task: TaskData, template: str, response_of: Callable[[int, str], Response]) -> _Part:
        """Score the answers to one task."""
        spec, own = task.spec, None
        if isinstance(task, HarnessData):
            table, own = harnessed.scored(task, response_of, self.settings.get(spec.name, {}))
        else:
            table = scoring.score_task(task, template, self.family, response_of, self.rows.limit)
        asked = table["question"].to_pylist() if self.elsewhere else None
        about = {
            "task": spec.name,
            "benchmark": spec.benchmark,
            "task_version": version_of(spec),
            "dataset": task.dataset,
            "revision": task.revision,
            "data_sha256": task.data_sha256,
            "split": spec.split,
            "prompt": template if isinstance(task, HarnessData) else _prompt(task, template, asked),
            "max_new_tokens": (self.generation["max_new_tokens"] or {}).get(spec.name),
            "box_frame": table["box_frame"][0].as_py() if table.num_rows else None,
            **box_fields(self.family, has_boxes(spec.benchmark)),
            "note": "; ".join(filter(None, [task.note, None if own is None else own.note])) or None,
            "n_total": task.n_total,
            "cluster_key": task.cluster_key,
        }
        if (review := self.reviews.get(spec.name)) is not None:
            labels = reviewed(spec.name, table, review, task.first(self.rows.limit)["query"])
            return _Part(labels.table, about | {"note": with_note(task.note, labels.note)}, None, labels.about)
        if own is None:
            return _Part(table, about, None)
        clusters = "image sha256" if all(task.docs["image_file"]) else "image sha256, or the row"
        return _Part(table, about | {"cluster_key": clusters, "declared": own.declared}, own.metrics)

    @property
    def elsewhere(self) -> bool:
        """Return whether the answers were made elsewhere, nobody knows how."""
        return self.model.engine == "elsewhere"

    def _circumstances(self, specs: Sequence[TaskSpec], more: Mapping[str, Any]) -> dict[str, Any]:
        info, suite = self.model, self.rows.suite
        name = self.wanted.name or "+".join(filter(None, (info.id, info.adapter)))
        return {
            "schema_version": SCHEMA_VERSION,
            "run_id": new_run_id(name, suite, self.began),
            "name": name,
            "created_utc": self.began.isoformat(timespec="seconds"),
            "duration_s": round(time.perf_counter() - self.clock, 3),
            "command": self.wanted.command,
            "code": provenance.code_version(),
            "packages": provenance.package_versions(),
            "hardware": self.hardware,
            "model": info,
            "training_run": self.training,
            "suite": {"name": suite, "version": SUITE_VERSION, "sha256": suite_sha256(specs)},
            "generation": {**self.generation, **more},
        }


def generation_of(
    rows: RowsWanted,
    reading: Reading,
    family: Family | None,
    made: tuple[EngineWanted, DecodingWanted, Mapping[str, int]] | None,
) -> dict[str, Any]:
    """Return what the record says of how answers were made.

    Args:
        rows: Which questions were asked.
        reading: How they were asked.
        family: How the model writes boxes.
        made: What answered, how tokens were chosen and where the answers to each task were cut; None for answers that
            were made elsewhere, nobody knows how.
    """
    engine, decoding, limits = made or (None, None, None)
    said: dict[str, Any] = {"limit": rows.limit, "prompt_style": reading.prompt_style, "max_new_tokens": limits}
    if engine is None or decoding is None:
        said |= dict.fromkeys(("batch_size", "temperature", "top_p", "seed", "stop_on_repetition"))
    else:
        said |= {"batch_size": engine.questions_at_once, "temperature": decoding.temperature, "top_p": decoding.top_p}
        said |= {"seed": decoding.seed if decoding.drawn else None, "stop_on_repetition": decoding.stop_on_repetition}
        said |= {} if engine.engine == "perpo" else {"max_error_share": engine.max_error_share}
    # How pictures were resized, where boxes count the pixels of what came of it.
    boxes = family and family.boxes
    return said | ({"box_resize": asdict(boxes.resize)} if boxes and boxes.resize else {})


def box_fields(family: Family | None, has_boxes: bool) -> dict[str, str | None]:
    """Return how a task's answers were read, beside their frame; None where they hold no boxes."""
    if family is None or not has_boxes:
        return {"box_scale": None, "box_order": None}
    return {"box_scale": family.box_format.scale, "box_order": family.box_format.order}


def misread(tables: Sequence[pa.Table], specs: Sequence[TaskSpec], family: Family | None) -> list[str] | None:
    """Warn of boxes that do not seem to be written as declared, and return the warnings; None where there are none."""
    rows = [
        row
        for table, spec in zip(tables, specs, strict=True)
        if has_boxes(spec.benchmark)
        for row in table.select(["prompt", "response", "target", "image"]).to_pylist()
    ]
    answers = answered(rows)
    warning = other_reading(answers, family.box_format) if family is not None and answers else None
    if warning is None:
        return None
    print(f"warning: {warning}", file=sys.stderr)
    return [warning]


def _prompt(task: TaskData, template: str, questions: Sequence[str] | None) -> str | None:
    """What was asked: the template, or the usual question where no row brings its own; None if it was another one.

    Where some rows are asked as they are written, that is said too.
    """
    benchmark = BENCHMARKS[task.spec.benchmark]
    asked = (benchmark.asked(doc, template) for doc in task.docs)
    if questions is not None and any(said != would for said, would in zip(questions, asked, strict=False)):
        return None
    if not any(task.docs["query"]):
        return benchmark.question("", template)
    kinds = {"{query}" if written else template for written in task.docs["as_written"]}
    return " or ".join(sorted(kinds))
