"""The boxes of a run's samples: what was answered, what is true, in pixels of the picture. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from perpo.benchmarks.declared import info_in
from perpo.boxes import stored_box
from perpo.errors import PerpoError
from perpo.records.store import Run

XYWH = list[float]


@dataclass(frozen=True)
class BoxSample:
    """One sample of a task of boxes.

    Attributes:
        sample_key: Its identity across runs.
        task: The task's name.
        image: {sha256, path, width, height}.
        question: What was asked.
        truth: x, y, width, height in pixels.
        answer: Likewise, of an inverted box with a side of 0; None where no box could be read.
        iou: As it was scored; None where there was no answer.
    """

    sample_key: str
    task: str
    image: dict[str, object]
    question: str
    truth: XYWH
    answer: XYWH | None
    iou: float | None

    @property
    def size(self) -> tuple[int, int]:
        """The picture's width and height."""
        return int(str(self.image["width"])), int(str(self.image["height"]))


def box_samples(run: Run) -> Iterator[BoxSample]:
    """Yield the samples of a run's tasks of boxes.

    Raises:
        PerpoError: It has no such task, or no samples; or it does not say how large its pictures are. The boxes of such
            a run may be shares of their sides.
    """
    tasks = {task.task for task in run.record.tasks if info_in([task], task.benchmark).has_boxes}
    if not tasks:
        raise PerpoError(f"{run.path} holds no boxes", "give a run of perpo-eval --suite grounding")
    columns = ["sample_key", "task", "image", "question", "target", "prediction", "scores"]
    for row in run.samples(columns).to_pylist():
        truth = _xywh(row["target"])
        if row["task"] in tasks and truth is not None:
            if not row["image"]["width"] or not row["image"]["height"]:
                raise PerpoError(
                    f"{run.path} does not say how large its pictures are",
                    "import the predictions with --columns width=COLUMN height=COLUMN, or --image_root FOLDER",
                )
            about = {name: row[name] for name in ("sample_key", "task", "image", "question")}
            yield BoxSample(**about, truth=truth, answer=_xywh(row["prediction"]), iou=row["scores"].get("iou"))


def _xywh(stored: str | None) -> XYWH | None:
    box = None if stored is None else stored_box(stored)
    if box is None:
        return None
    left, top, right, bottom = (float(end) for end in box)
    return [left, top, max(right - left, 0.0), max(bottom - top, 0.0)]
