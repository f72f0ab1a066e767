"""A run's stored answers, read in every scale, order and frame: a table for people, which decides nothing. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from perpo.answers import after_prompt
from perpo.benchmarks.declared import info_in
from perpo.boxes import BoxFormat, Resize
from perpo.boxes.readings import Answered, ReadAs, every_reading
from perpo.errors import PerpoError
from perpo.records.run_record import RunRecord, TaskResult
from perpo.records.store import Run
from perpo.results.text import Text

_LEAST = 0.01
"""Readings with a smaller mean IoU are counted, not shown."""


def box_format(record: RunRecord, task: TaskResult) -> BoxFormat:
    """Return how a run's model writes boxes; pixels of the picture where the record does not say."""
    sizes = record.generation.get("box_resize")
    if task.box_scale is None or (task.box_scale == "pixels" and task.box_frame == "resized" and not sizes):
        return BoxFormat("pixels")
    resize = None if not sizes else Resize(**sizes)
    return BoxFormat(task.box_scale, task.box_order or "xyxy", task.box_frame or "original", resize)  # type: ignore[arg-type]


def answered(rows: Iterable[Mapping[str, Any]]) -> list[Answered]:
    """Return the answers of samples about boxes: those with an answer and a true box.

    Args:
        rows: `prompt`, `response`, `target` (JSON) and `image` of each sample.
    """
    known = [(row, json.loads(row["target"])) for row in rows if row["response"] is not None]
    known = [(row, box) for row, box in known if box is not None]
    # Of boxes that were imported without sizes: a picture that all of them lie within.
    sides = [max(1, math.ceil(max((box[side] for _, box in known), default=1))) for side in (2, 3)]
    return [
        Answered(
            after_prompt(row["prompt"], row["response"]),
            box,
            (row["image"]["width"] or sides[0], row["image"]["height"] or sides[1]),
        )
        for row, box in known
    ]


def readings_table(run: Run, usual: Resize, whose: str) -> Text:
    """Return a table of what each way to read a run's boxes gives.

    Args:
        run: The run.
        usual: The limits of resizing that are tried where the record holds none.
        whose: The family that has them, for a note.

    Raises:
        PerpoError: The run has no answers about boxes, or they were read in several ways.
    """
    tasks = [task for task in run.record.tasks if info_in([task], task.benchmark).answer == "box"]
    names = {task.task for task in tasks}
    rows = [row for row in _samples(run) if row["task"] in names] if tasks else []
    if any(task.box_scale is None for task in tasks):
        said = f"the record of {run.record.name} does not say how its boxes were read: it is an older one"
        raise PerpoError(said, "perpo-eval --rescore RUN writes a record that does")
    answers = answered(rows)
    if not answers:
        raise PerpoError(
            f"{run.record.name} holds no answers about boxes",
            "evaluate it with --suite grounding, or import its answers",
        )
    formats = {box_format(run.record, task) for task in tasks}
    if len(formats) > 1:
        raise PerpoError(f"the tasks of {run.record.name} are read in several ways", "evaluate one of them alone")
    declared = formats.pop()
    read = every_reading(answers, declared if declared.resize else replace(declared, resize=usual))
    table, hidden = _rows(read)
    notes = _notes(answers, hidden)
    if declared.resize is None:
        notes.append(f"The frame resized is tried with the usual limits of {whose}; the record holds none.")
    header = ["", "scale", "order", "frame", "mean IoU", "Acc@0.5 (%)", "boxes read", "inside the frame"]
    return Text(f"{run.record.name}: {len(answers):,} answers, read in every way", header, table, notes)


def _samples(run: Run) -> list[dict[str, Any]]:
    return run.samples(["task", "prompt", "response", "target", "image"]).to_pylist()


def _rows(readings: Sequence[ReadAs]) -> tuple[list[list[str]], int]:
    """Readings as rows, the declared one marked and the best mean IoU first, and how many are not shown.

    Frames that give the same for a scale and an order stand in one row.
    """
    declared = readings[0]
    frames: dict[tuple[Any, ...], list[ReadAs]] = {}
    for each in readings:
        numbers = (
            each.boxes.scale,
            each.boxes.order,
            float(each.overlaps.mean()),
            each.hits,
            each.readable,
            each.inside,
        )
        frames.setdefault(numbers, []).append(each)
    shown = {key: group for key, group in frames.items() if key[2] >= _LEAST or group[0] is declared}
    rows = []
    for (scale, order, mean, hits, readable, inside), group in sorted(shown.items(), key=lambda item: -item[0][2]):
        mark = "declared" if group[0] is declared else ""
        share = f"{100 * hits / len(declared.overlaps):.1f}"
        counts = [f"{mean:.3f}", share, f"{readable:,}", f"{inside:,}"]
        rows.append([mark, scale, order, ", ".join(each.boxes.frame for each in group), *counts])
    return rows, sum(len(group) for key, group in frames.items() if key not in shown)


def _notes(answers: Sequence[Answered], hidden: int) -> list[str]:
    notes = ["This table decides nothing: numbers are read as declared (--box_scale, --box_order, --box_frame)."]
    if len(answers) < 20:
        notes.append(f"{len(answers)} answers are few: two readings may lie close together by chance.")
    if all(width == height for width, height in (each.image_size for each in answers)):
        notes.append("All pictures are square, so that most frames are the same: take others to tell frames apart.")
    notes.append("0-1000 and 0-999 differ by a thousandth: only the model's authors can tell them apart.")
    if hidden:
        notes.append(f"{hidden} further readings have a mean IoU below {_LEAST}.")
    return notes
