"""The samples of a benchmark as predictions are matched with them, and whether a file speaks of the same ones."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from perpo.benchmarks.base import AnswerKind
from perpo.boxes import parse_boxes
from perpo.prepare.overlap.images import coco_number
from perpo.records.run_record import sample_key
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.rows.loading import TaskData

_WORDS = re.compile(r"\w+")
# POPE's older lists ask for some things "in the imange"; answers to these are answers to today's questions.
_MISPRINTS = {"imange": "image"}
_CLOSE = 0.01  # how far a truth in a file may be from the benchmark's, as a share of the picture's side


@dataclass(frozen=True)
class Sample:
    """One sample of a task.

    Attributes:
        key: Its sample key.
        task: The task's name.
        split: The task's split.
        number: Its place in the task, from 0.
        source_id: What the data set calls it.
        query: What is asked about.
        asked: What perpo-eval asks.
        target: The truth, as JSON.
        kind: What an answer is.
        image: The picture's name.
        image_sha256: Digest of the picture.
        size: (width, height) of the picture in pixels.
    """

    key: str
    task: str
    split: str
    number: int
    source_id: str
    query: str
    asked: str
    target: str
    kind: AnswerKind
    image: str
    image_sha256: str
    size: tuple[int, int]

    @property
    def ids(self) -> list[str]:
        """Return what a file may call it: its name, and that of its row."""
        return list(dict.fromkeys([self.source_id, self.source_id.partition("/")[0]]))

    @property
    def same(self) -> tuple[str, str, str]:
        """Return what two samples share that ask the same of one picture."""
        return self.image_sha256, self.query, self.target

    def __str__(self) -> str:
        return f"{self.task} {self.source_id}"


def samples_of(data: Sequence[TaskData], templates: dict[str, str]) -> list[Sample]:
    """Return the samples of some tasks, in their order."""
    samples = []
    for task in data:
        spec, benchmark = task.spec, BENCHMARKS[task.spec.benchmark]
        for number, doc in enumerate(task.docs):
            samples.append(
                Sample(
                    sample_key(task.dataset, task.revision, spec.split, doc["source_id"], doc["query"]),
                    spec.name,
                    spec.split,
                    number,
                    doc["source_id"],
                    doc["query"],
                    benchmark.asked(doc, templates[spec.name]),
                    doc["target"],
                    benchmark.info.answer,
                    doc["image_path"],
                    doc["image_sha256"],
                    (doc["width"], doc["height"]),
                )
            )
    return samples


def words_of(text: str) -> str:
    """Return a text as its words alone, in small letters; the text itself where it has none."""
    words = [_MISPRINTS.get(word, word) for word in _WORDS.findall(text.casefold())]
    return " ".join(words) or text.strip()


def image_names(name: str) -> list[str]:
    """Return what a picture may be found by, the surest first: its name as it is written, its file's, COCO's number."""
    last = PurePosixPath(name.replace("\\", "/")).name
    number = coco_number(last)
    names = [name, last, last.rpartition(".")[0] or last, *([] if number is None else [f"coco {number}"])]
    return list(dict.fromkeys(names))


def asks_same(sample: Sample, question: str) -> bool | None:
    """Return whether a file's question is the sample's: its words, alone or amid a prompt; None where it has none."""
    if not sample.query:
        return None
    asked, query = words_of(question), words_of(sample.query)
    if asked in (query, words_of(sample.asked)) or f" {query} " in f" {asked} ":
        return True
    return not sample.query.isascii() and sample.query in question  # a script without spaces between its words


def true_same(sample: Sample, truth: Any) -> bool | None:
    """Return whether a file's truth is the sample's; None where it can't be read as one."""
    target = json.loads(sample.target)
    if sample.kind == "box":
        return _same_box(target, truth, sample.size)
    if isinstance(target, dict):
        target = target["reference"]
    if not isinstance(truth, str):
        return None
    if sample.kind == "yes_no":
        said = truth.strip().strip(".").lower()
        return said == target if said in ("yes", "no") else None
    return truth.split() == target.split()


def truth_box(truth: Any) -> str:
    """Return a box in a file as a text that can be read."""
    return truth if isinstance(truth, str) else json.dumps(truth, default=str)


def _same_box(target: list[float], truth: Any, size: tuple[int, int]) -> bool | None:
    """Whether a box is the true one in any usual way to write boxes: this verifies, and gives no score."""
    text, sides, readable = truth_box(truth), np.array([*size, *size], dtype=np.float64), False
    for scale in ("pixels", "0-1", "0-1000", "percent"):
        for order in ("xyxy", "xywh"):
            boxes = parse_boxes(text, scale=scale, order=order, image_size=size)  # type: ignore[arg-type]
            readable |= len(boxes) == 1
            if len(boxes) == 1 and (np.abs(boxes[0] - np.array(target)) <= _CLOSE * sides).all():
                return True
    return False if readable else None
