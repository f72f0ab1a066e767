"""Time and peak memory of scoring and storing many rows of each kind, with answers made up here.

Rows become documents, made-up answers are scored, the run is written and read back, all in one process
and without a model. What should come out is counted here as the answers are made, and has to agree with
the metrics and with the scores that are read back. There is no peer: lmms-eval holds every row with its
decoded image, so that so many do not fit. Run: python benchmarks/score_rows.py
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from perpo.common.program import quiet_libraries

quiet_libraries()

import numpy as np
from measure import cost, resident_mib
from PIL import Image

from perpo.boxes import format_box
from perpo.models.families import FAMILIES
from perpo.records.run_record import SCHEMA_VERSION, ModelInfo, RunRecord, metric_of
from perpo.records.store import Run, read_run, write_run
from perpo.results.samples import read_scores
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.engines.responses import Response
from perpo_eval.evaluate import numbers, scoring
from perpo_eval.evaluate.versions import VERSIONS
from perpo_eval.rows.documents import documents, fingerprint
from perpo_eval.rows.loading import TaskData
from perpo_eval.rows.suites import TASKS

WIDTH, HEIGHT = 64, 48
EXPRESSIONS = 3
"""Samples of one grounding row; RefCOCO's have about as many."""

LLAVA = FAMILIES["llava"]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Kind:
    """One kind of row.

    Attributes:
        task: The task that the rows are called.
        row: Row `number` about an image {bytes, path}.
        samples: Samples of a row.
        answer: What is said to sample `number` with that target.
        expected: For some metrics, what sample `number` adds to their mean.
    """

    task: str
    row: Callable[[int, Mapping[str, Any]], dict[str, Any]]
    samples: int
    answer: Callable[[int], str]
    expected: Callable[[int], dict[str, float]]


def main() -> None:
    """Print a line for each step and kind, and the peak of the whole process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="samples of each kind")
    parser.add_argument("--images", type=int, default=500, help="different images, each shared by many rows")
    args = parser.parse_args()

    print(f"{args.rows:,} samples of each kind about {args.images:,} images, one process")
    print(f"{'':<40} {'seconds':>8} {'samples/s':>10} {'peak MiB':>9}")
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # the images are kept there, not in the user's cache
        for kind in KINDS:
            peaks += _measured(kind, args.rows, args.images, Path(folder))
    print(f"{'peak of the whole process':<40} {'':>8} {'':>10} {max(peaks):>9.0f} MiB")
    print("metrics and scores equal what was counted when the answers were made")


def _measured(kind: Kind, rows: int, images: int, folder: Path) -> list[float]:
    """Every step of one kind; the peaks of the steps in MiB."""
    spec, peaks = TASKS[kind.task], [resident_mib("VmHWM")]
    form = BENCHMARKS[spec.benchmark]
    template = form.prompt(LLAVA, "paper")

    def step(label: str, work: Callable[[], _T]) -> _T:
        results: list[_T] = []
        spent = cost(lambda: results.append(work()))
        peaks.append(resident_mib("VmHWM"))
        name = f"{spec.benchmark}: {label}"
        print(f"{name:<40} {spent.seconds:>8.2f} {rows / spent.seconds:>10,.0f} {peaks[-1]:>9.0f}", flush=True)
        return results[0]

    docs = step("rows to documents", lambda: documents(_rows(kind, rows, images), form.rows, "made up"))
    docs = docs.select(range(rows))
    digest = step("fingerprint", lambda: fingerprint(docs))
    data = TaskData(spec, f"dir:{spec.dataset}", None, docs, digest)
    answers = [Response(kind.answer(n), "USER: <image>\n" + template, 12, "stop", 1.5) for n in range(rows)]
    table = step("score", lambda: scoring.score_task(data, template, LLAVA, lambda number, key: answers[number], None))
    result = step("metrics of the task", lambda: numbers.task_result(_about(data, template), table))
    groups = step("metrics of the group", lambda: numbers.groups([result], [table]))
    record = _record(result, groups)
    run = step("join, write, check", lambda: write_run(folder / "results", record, scoring.join([table])))
    read = step("read all columns", lambda: _samples(run.path))
    scores = step("read scores for a comparison", lambda: read_scores(read_run(run.path)))
    _check(kind, rows, read[0], scores.values)
    if not read[1].equals(table):
        raise SystemExit("what was read back is not what was written")
    return peaks


def _samples(path: Path) -> tuple[Run, Any]:
    run = read_run(path)
    return run, run.samples()


def _check(kind: Kind, rows: int, run: Run, scores: Mapping[str, np.ndarray]) -> None:
    """Hold metrics and scores against what was counted."""
    counted = [kind.expected(number) for number in range(rows)]
    for name in counted[0]:
        expected = sum(sample[name] for sample in counted) / rows
        metric = metric_of(run.record.tasks[0].metrics, name)
        stored = {"the metric": metric and metric.value, "the mean of the scores": scores[name].mean()}
        for what, value in stored.items():
            if value is None or abs(value - expected) > 1e-9:
                raise SystemExit(f"{kind.task}: {what} {name} is {value}, counted were {expected}")


def _rows(kind: Kind, samples: int, images: int) -> Iterator[dict[str, Any]]:
    """Rows for at least so many samples; as a file has it, those about one image stand together."""
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(images):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, format="PNG")
        pictures.append({"bytes": buffer.getvalue(), "path": f"{number:06d}.png"})
    rows = -(-samples // kind.samples)
    return (kind.row(number, pictures[number * images // rows]) for number in range(rows))


def _box(row: int) -> list[float]:
    """x, y, width and height of a row's truth: it stays within the left two thirds of the image."""
    return [float(row % 16), float(row % 12), 20.0 + row % 7, 24.0 + row % 11]


def _grounding_row(number: int, image: Mapping[str, Any]) -> dict[str, Any]:
    texts = [f"the thing number {number} on the {side}" for side in ("left", "right", "floor")]
    return {
        "question_id": str(number),
        "image": image,
        "question": "",
        "answer": texts[:EXPRESSIONS],
        "bbox": _box(number),
        "iscrowd": 0,
        "file_name": image["path"],
    }


def _grounding_answer(number: int) -> str:
    """By turns the true box, one in the right lower corner, no box, and the true box in a sentence."""
    x, y, width, height = _box(number // EXPRESSIONS)
    form, size = LLAVA.box_format, (WIDTH, HEIGHT)
    true = format_box([x, y, x + width, y + height], form, size)
    elsewhere = format_box([WIDTH - 12, HEIGHT - 10, WIDTH - 2, HEIGHT - 2], form, size)
    return (true, elsewhere, "I see no such thing.", f"It is at {true}, next to the wall.")[number % 4]


def _grounding_expected(number: int) -> dict[str, float]:
    # Two decimals move an edge by less than a third of a pixel, so a true box of 20 x 24 keeps its IoU above 0.9.
    return {"acc@0.5": float(number % 4 in (0, 3)), "parse_fail": float(number % 4 == 2)}


def _pope_row(number: int, image: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": str(number),
        "question_id": str(number + 1),
        "question": f"Is there a thing number {number} in the image?",
        "answer": "yes" if number % 8 < 4 else "no",
        "image_source": image["path"].removesuffix(".png"),
        "image": image,
        "category": "random",
    }


_POPE_ANSWERS = {"Yes": "yes", "No, there is none.": "no", "no": "no", "Hard to tell.": "yes"}
"""What is said, by turns, and how the official rule reads it; the strict one cannot read the last."""


def _pope_answer(number: int) -> str:
    return list(_POPE_ANSWERS)[number % 4]


def _pope_expected(number: int) -> dict[str, float]:
    read, true = _POPE_ANSWERS[_pope_answer(number)], "yes" if number % 8 < 4 else "no"
    return {"accuracy": float(read == true), "parse_fail": float(number % 4 == 3)}


KINDS = (
    Kind("refcoco_val", _grounding_row, EXPRESSIONS, _grounding_answer, _grounding_expected),
    Kind("coco_pope_random", _pope_row, 1, _pope_answer, _pope_expected),
)


def _about(data: TaskData, template: str) -> dict[str, Any]:
    spec = data.spec
    return {
        "task": spec.name,
        "benchmark": spec.benchmark,
        "task_version": VERSIONS[data.spec.benchmark],
        "dataset": data.dataset,
        "revision": data.revision,
        "data_sha256": data.data_sha256,
        "split": spec.split,
        "prompt": template,
        "max_new_tokens": spec.max_new_tokens,
        "box_frame": LLAVA.box_format.frame if BENCHMARKS[spec.benchmark].has_boxes else None,
        "note": None,
        "n_total": len(data.docs),
        "cluster_key": "image sha256",
    }


def _record(result: Any, groups: list[Any]) -> RunRecord:
    unknown: dict[str, Any] = dict.fromkeys((field.name for field in fields(ModelInfo)), None)
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=f"made-up-{result.task}",
        name="made up",
        status="complete",
        created_utc="2026-01-01T00:00:00+00:00",
        duration_s=None,
        command=None,
        code={},
        packages={},
        hardware={},
        model=ModelInfo(**unknown | {"id": "made-up", "engine": "elsewhere"}),
        training_run=None,
        suite={"name": result.benchmark},
        generation={},
        tasks=[result],
        groups=groups,
        judge=None,
        samples=None,
        source="measured",
    )


if __name__ == "__main__":
    main()
