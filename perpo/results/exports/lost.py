"""The samples that a run lost, as questions for perpo-sample: train on what it lost. No torch.

Evaluations ask about data that no training may see. So only files of one's own and train splits are taken, unless more
is explicitly allowed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpo.benchmarks.base import BenchmarkInfo
from perpo.benchmarks.declared import info_in
from perpo.boxes import box_problem, format_box
from perpo.data import Question
from perpo.data.embedded import find_image, picture_key
from perpo.data.images import listing
from perpo.data.truths import format_fields
from perpo.errors import PerpoError
from perpo.records.run_record import RunRecord, TaskResult
from perpo.records.store import Run
from perpo.results.box_readings import box_format
from perpo.results.compare import check_comparable

_COLUMNS = ("sample_key", "task", "image", "question", "target", "scores")
_ASKED = ("box", "yes_no", "page")  # of open questions no reward knows the truth


@dataclass(frozen=True)
class Lost:
    """The samples that a run lost.

    Attributes:
        questions: Its questions with their truths.
        evaluated: Tasks among them that are evaluations, which were explicitly allowed.
        left_out: How many samples are no questions, by why.
    """

    questions: list[Question]
    evaluated: list[str]
    left_out: dict[str, int]


def lost_questions(run: Run, baseline: Run | None, images: Path | None, *, allow_test: bool = False) -> Lost:
    """Return the samples that a run answered wrongly, as questions.

    Args:
        run: The run.
        baseline: Only what this run, on the same samples, answered rightly; None for all.
        images: The folder from which image paths start; pictures that perpo unpacked are found without.
        allow_test: Whether to take questions of evaluations, too.

    Raises:
        PerpoError: Questions of evaluations that are not allowed, pictures that are not there, or nothing lost.
    """
    evaluated = {task.task for task in run.record.tasks if not _own(task)}
    refused = set() if allow_test else evaluated
    if len(refused) == len(run.record.tasks):
        raise PerpoError(
            f"{', '.join(sorted(refused))}: these are questions of an evaluation, and a model that trains on them has "
            "no honest score there any more",
            "evaluate data of your own (boxes_*, yesno_*, pages_*) or a train split; --allow_test takes them anyway",
        )
    won = None if baseline is None else _won(run, baseline)
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    for row in run.samples(_COLUMNS).to_pylist():
        if row["task"] in refused:
            left_out[f"they are of the evaluation {row['task']}"] += 1
        elif (right := _right(run.record, row)) is None:
            left_out["they have no answer"] += 1
        elif not right and (won is None or row["sample_key"] in won):
            rows.append(row)
    files = _files(rows, images)
    questions = []
    for row in rows:
        question = _question(run.record, row, files[picture_key(row["image"])])
        if question is None:
            left_out["their boxes are empty as the model writes them"] += 1
        else:
            questions.append(question)
    if not questions:
        raise PerpoError(f"{run.record.name} lost no sample", "there is nothing to train on")
    leaked = {row["task"] for row in rows} & evaluated
    return Lost(questions, sorted(leaked), dict(left_out))


def _own(task: TaskResult) -> bool:
    """Whether a task's questions may be trained on: a file of one's own, or a split for training."""
    own = info_in([task], task.benchmark).own_files
    return task.split == "train" or bool(own and task.task.startswith(own))


def _won(run: Run, baseline: Run) -> set[str]:
    """The keys of what a baseline answered rightly."""
    check_comparable(run, baseline, common=True)
    rows = baseline.samples(["sample_key", "task", "scores"]).to_pylist()
    return {row["sample_key"] for row in rows if _right(baseline.record, row)}


def _right(record: RunRecord, row: Mapping[str, Any]) -> bool | None:
    """Whether a sample was answered rightly, by its benchmark's rule; None where it was not answered."""
    return _info(record.task(row["task"])).right.holds(row["scores"])


def _info(task: TaskResult) -> BenchmarkInfo:
    info = info_in([task], task.benchmark)
    if info.answer not in _ASKED:
        raise PerpoError(
            f"{task.task} asks open questions, to which no truth is known that answers could be rewarded by",
            "give a run of boxes, yes/no questions or pages",
        )
    return info


def _files(rows: list[dict[str, Any]], images: Path | None) -> dict[str, Path]:
    """The files of the pictures; all that are missing are counted and ten are named."""
    if any(row["image"]["sha256"] is None for row in rows):
        raise PerpoError(
            "the run has no digests of its pictures, so that none can be known again",
            "import the predictions with --image_root FOLDER",
        )
    named = {picture_key(row["image"]): row["image"] for row in rows}
    files = {key: find_image(image, images) for key, image in named.items()}
    if missing := sorted(str(named[key]["path"]) for key, file in files.items() if file is None):
        raise PerpoError(
            f"{len(missing)} of {len(named)} pictures are not there, or have other contents:\n  {listing(missing)}",
            "give the folder of the images as --images",
        )
    return {key: file.resolve() for key, file in files.items() if file is not None}


def _question(record: RunRecord, row: Mapping[str, Any], file: Path) -> Question | None:
    """A sample as a question; None where its model cannot write its box."""
    task, target = record.task(row["task"]), json.loads(row["target"])
    image_id = str(row["image"]["path"])
    if info_in([task], task.benchmark).answer != "box":
        return Question(image_path=str(file), question=row["question"], answer=str(target), image_id=image_id)
    boxes, size = box_format(record, task), (row["image"]["width"], row["image"]["height"])
    answer = format_box(target, boxes, size)
    if box_problem(answer, boxes, size):
        return None
    said = format_fields(boxes)
    return Question(image_path=str(file), question=row["question"], answer=answer, image_id=image_id, **said)
