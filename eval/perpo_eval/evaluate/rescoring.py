"""Scoring without a model: answers that were made elsewhere, and the responses of a stored run."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from perpo.benchmarks.metrics import JUDGED
from perpo.boxes import PARTS, Resize
from perpo.common.files import check_writable
from perpo.errors import PerpoError
from perpo.models.families import FAMILIES, Family, family_of, unlisted, with_declared
from perpo.records import provenance
from perpo.records.run_record import ModelInfo, RunRecord, TaskResult, sample_key
from perpo.records.store import new_run_id, read_run, resolve_run, write_run
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.engines.responses import Response
from perpo_eval.evaluate import numbers, scoring
from perpo_eval.evaluate.checks import check_family
from perpo_eval.evaluate.reviewing import expressions_of, reviewed, stored_verdicts, with_note, with_verdicts
from perpo_eval.evaluate.storing import box_fields, misread
from perpo_eval.evaluate.versions import SUITE_VERSION, VERSIONS, suite_sha256
from perpo_eval.judge.from_flags import check_swap, judge_of
from perpo_eval.rows.label_review import LabelReview, read_reviews
from perpo_eval.rows.loading import TaskData
from perpo_eval.rows.suites import TaskSpec, spec_of
from perpo_eval.wanted import MOST_ERRORS, Reading, RunWanted

if TYPE_CHECKING:
    import pyarrow as pa

    from perpo_eval.arguments import JudgeArguments


def check_responses(answers: Mapping[str, Response], data: Sequence[TaskData], limit: int | None) -> None:
    """Refuse answers that were made elsewhere where they are not those to the questions of these tasks.

    Args:
        answers: By sample key.
        data: The tasks with their documents.
        limit: Only the first so many documents of each task are asked.

    Raises:
        PerpoError: A question without an answer, or an answer without a question.
    """
    missing, known = [], set()
    for task in data:
        for doc in task.first(limit):
            key = sample_key(task.dataset, task.revision, task.spec.split, doc["source_id"], doc["query"])
            known.add(key)
            if key not in answers:
                missing.append(f"{task.spec.name} {doc['source_id']}")
    hint = "perpo-eval --questions FILE writes every question with its sample_key"
    if missing:
        raise PerpoError(f"{len(missing):,} of {len(known):,} questions have no response, such as {missing[0]}", hint)
    if strange := set(answers) - known:
        raise PerpoError(f"{len(strange):,} responses have a sample_key that these tasks do not have", hint)
    if any(answer.question is None for answer in answers.values()):
        print(
            "note: some responses do not say what was asked; for them the question of perpo-eval is recorded",
            file=sys.stderr,
        )


def model_elsewhere(name: str, family: str | None) -> ModelInfo:
    """Return what is known of a model that answered elsewhere."""
    unknown = dict.fromkeys((field.name for field in fields(ModelInfo)), None)
    return ModelInfo(**unknown | {"id": name, "engine": "elsewhere", "family": family})  # type: ignore[arg-type]


def rescored(path: Path, wanted: RunWanted, reading: Reading, reviewed_labels: str | None = None) -> Path:
    """Score a stored run's responses again, and store that as another run.

    Args:
        path: Its folder.
        wanted: The other run.
        reading: How its boxes are read now.
        reviewed_labels: Where a review of its labels lies; without one, what an earlier review said stays.

    Raises:
        PerpoError: No such run, boxes of which nobody says how they are written, or no such review.
    """
    check_writable(Path(wanted.output))
    clock = time.perf_counter()
    run = read_run(path)
    old, samples = run.record, run.samples()
    named = reading.family or old.model.family
    family = _family(reading, old)
    tables, specs = [], [_known_spec(result) for result in old.tasks]
    reviews = read_reviews(reviewed_labels, specs)
    for place, (spec, result) in enumerate(zip(specs, old.tasks, strict=True)):
        check_family(family, [spec])
        stored = _of_task(samples, spec)
        _check_sizes(stored, result, family)
        table = scoring.rescore(stored, spec, family)
        old, table = _reviewed(old, place, stored, table, reviews.get(spec.name))
        tables.append(table)
    old = dataclasses.replace(
        old, model=dataclasses.replace(old.model, family=named), warnings=misread(tables, specs, family)
    )
    return _store_again(old, wanted, tables, specs, clock, family)


def _reviewed(
    old: RunRecord, place: int, stored: pa.Table, table: pa.Table, review: LabelReview | None
) -> tuple[RunRecord, pa.Table]:
    """A task's new rows with what a review says of its labels, and the record that says so."""
    if review is None:
        verdicts = stored_verdicts(stored)
        return old, table if verdicts is None else with_verdicts(table, verdicts)
    result = old.tasks[place]
    labels = reviewed(result.task, table, review, expressions_of(stored, result.prompt, review))
    tasks = list(old.tasks)
    tasks[place] = dataclasses.replace(result, note=with_note(result.note, labels.note))
    reviews = {**old.generation.get("reviewed_labels", {}), result.task: labels.about}
    return dataclasses.replace(old, tasks=tasks, generation=old.generation | {"reviewed_labels": reviews}), labels.table


def judge_run(args: JudgeArguments) -> Path:
    """Let a judge score a stored run's responses, and store that as another run.

    Raises:
        PerpoError: No such run, none with judged tasks, or as `perpo_eval.judge.asking.ask_judge`.
    """
    wanted, judge_wanted = args.run_wanted, args.judge_wanted
    judge = judge_of(judge_wanted, wanted.output)
    check_writable(Path(wanted.output))
    clock = time.perf_counter()
    run = resolve_run(args.run, Path(wanted.output))
    old, samples = run.record, run.samples()
    specs = [_known_spec(result) for result in old.tasks]
    if not any(spec.benchmark in JUDGED for spec in specs):
        raise PerpoError(f"{run.path} holds no task that needs a judge", "give a run of perpo-eval --suite judged")
    check_swap(judge_wanted, {spec.benchmark for spec in specs})
    family = FAMILIES.get(old.model.family or "")
    # As they are stored: the columns of a task's own scores, and null for all that a judge gives.
    tables = [scoring.rescore(_of_task(samples, spec), spec, family) for spec in specs]
    tables, about = scoring.judge(tables, specs, judge)
    old = dataclasses.replace(old, judge=about)
    return _store_again(old, wanted, tables, specs, clock, family)


def _of_task(samples: pa.Table, spec: TaskSpec) -> pa.Table:
    import pyarrow.compute as pc

    return samples.filter(pc.equal(samples["task"], spec.name))


def _store_again(
    old: RunRecord,
    wanted: RunWanted,
    tables: Sequence[pa.Table],
    specs: Sequence[TaskSpec],
    clock: float,
    family: Family | None,
) -> Path:
    """Store new scores of a run's responses as another run."""
    results = []
    for result, table, spec in zip(old.tasks, tables, specs, strict=True):
        kept = {field.name: getattr(result, field.name) for field in fields(result)}
        for measured in ("n_scored", "n_parse_fail", "n_error", "metrics", *numbers.ENDS):
            del kept[measured]
        frame = table["box_frame"][0].as_py() if table.num_rows else None
        read = {"box_frame": frame, **box_fields(family, BENCHMARKS[spec.benchmark].has_boxes)}
        results.append(numbers.task_result(kept | read | {"task_version": VERSIONS[spec.benchmark]}, table))
    now, name = datetime.now(UTC), wanted.name or old.name
    record = dataclasses.replace(
        old,
        run_id=new_run_id(name, old.suite["name"], now),
        name=name,
        status=numbers.status(tables, specs, old.generation.get("max_error_share", MOST_ERRORS)),
        created_utc=now.isoformat(timespec="seconds"),
        duration_s=round(time.perf_counter() - clock, 3),
        command=wanted.command,
        code=provenance.code_version(),
        packages=provenance.package_versions(),
        suite=old.suite | {"version": SUITE_VERSION, "sha256": suite_sha256()},
        tasks=results,
        groups=numbers.groups(results, tables),
        samples=None,
        rescored_from=old.run_id,
    )
    return write_run(Path(wanted.output), record, scoring.join(tables)).path


def _family(reading: Reading, record: RunRecord) -> Family | None:
    """How a stored run's boxes are read now: as the user says, else as they were read then.

    Another family is read as that family writes them, but for what is declared.
    """
    said = reading.declared
    if reading.family in (None, record.model.family):
        for part in PARTS:
            then = (value for task in record.tasks if (value := getattr(task, f"box_{part}")) is not None)
            said[part] = said[part] or next(then, None)
    named = reading.family or record.model.family
    if named not in FAMILIES and said["scale"] is None:
        return None if named is None else family_of(named)
    family = FAMILIES.get(named or "") or unlisted(named or "")
    if family.boxes is not None and family.boxes.resize is not None and (sizes := record.generation.get("box_resize")):
        family = dataclasses.replace(family, boxes=dataclasses.replace(family.boxes, resize=Resize(**sizes)))
    return with_declared(family, **said)


def _check_sizes(samples: pa.Table, then: TaskResult, family: Family | None) -> None:
    """Refuse another kind of boxes where no sizes are known: truths are in pixels or in shares as those then were.

    Raises:
        PerpoError: They can't be read in this way.
    """
    import pyarrow.compute as pc

    if then.box_scale is None or family is None or pc.struct_field(samples["image"], "width").null_count == 0:
        return
    boxes = family.box_format
    if boxes.frame != "original" or (boxes.scale == "pixels") != (then.box_scale == "pixels"):
        raise PerpoError(
            f"{then.task} was imported without the pictures' sizes, so its boxes can't be read in {boxes.scale} of the "
            f"{boxes.frame} picture",
            "import it again with width and height",
        )


def _known_spec(result: TaskResult) -> TaskSpec:
    if result.declared is not None:
        raise PerpoError(
            f"the task '{result.task}' is scored by its own task file with its own rows, which a run does not hold",
            "run the same perpo-eval again; with perpo-eval --responses it scores answers that are there",
        )
    try:
        return spec_of(result.task)
    except KeyError:
        raise PerpoError(
            f"the run has the task '{result.task}', which this version of perpo does not know",
            "use the version of perpo that stored the run",
        ) from None
