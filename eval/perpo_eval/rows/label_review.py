"""The public review of RefCOCO, RefCOCO+ and RefCOCOg: which labels of their evaluation splits are right. No torch.

The review is part of Ref-L4 (arXiv 2406.16866; the data set JierunChen/Ref-L4, CC BY-NC 4.0). Its files are called
`<task>_reviewed.json` and are in COCO's form with one entry of `images` for each expression: {id, original_id (COCO's
number of the picture), caption (the expression)}. Those of `annotations` are {image_id (the entry's id), bbox (x, y,
width, height in pixels), caption_quality (0: wrong; 1: right)}. That is how other programs read it; what is not so is
refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpo.errors import PerpoError
from perpo.prepare.hub.rows import hub_folder
from perpo.prepare.overlap.images import coco_number
from perpo.prepare.published_counts import REFER_COUNTS, REVIEWED_WRONG
from perpo_eval.benchmarks.base import TaskSpec

_REPOSITORY = "JierunChen/Ref-L4"
_FOLDER = "refcocos_annotation_reviewed"
_NEAR = 0.02  # pixels: boxes have two decimals, and on the hub are float32
_SAME_COUNT = 5  # see REVIEWED_WRONG
_HINT = f"give the folder {_FOLDER} of the data set {_REPOSITORY}, or hub"


@dataclass(frozen=True)
class Label:
    """The verdict of the review on one expression.

    Attributes:
        expression: Its words, as `plain` gives them.
        box: xyxy in pixels.
        right: Whether the label is right.
    """

    expression: str
    box: tuple[float, float, float, float]
    right: bool


@dataclass(frozen=True)
class LabelReview:
    """The review of one task's labels.

    Attributes:
        source: Where it is from.
        sha256: Digest of its file.
        labels: What it says, by COCO's number of the picture.
    """

    source: str
    sha256: str
    labels: Mapping[int, Sequence[Label]]

    @property
    def wrong(self) -> int:
        """Return how many labels are wrong."""
        return sum(not label.right for labels in self.labels.values() for label in labels)

    @property
    def total(self) -> int:
        """Return how many labels there are."""
        return sum(map(len, self.labels.values()))

    def about(self, image: str, box: Sequence[float]) -> list[Label]:
        """Return what it says of the expressions for a box (xyxy) in the picture of that name."""
        known = self.labels.get(coco_number(image) or -1, ())
        return [label for label in known if max(abs(a - b) for a, b in zip(label.box, box, strict=True)) <= _NEAR]

    def verdict(self, image: str, box: Sequence[float], expression: str) -> bool | None:
        """Return whether the label of an expression is right; None where the review does not say, or says both."""
        said = {label.right for label in self.about(image, box) if label.expression == plain(expression)}
        return said.pop() if len(said) == 1 else None


def plain(expression: str) -> str:
    """Return an expression as it is compared: white space and capitals do not count."""
    return " ".join(expression.split()).casefold()


def read_reviews(source: str | None, specs: Sequence[TaskSpec]) -> dict[str, LabelReview]:
    """Return the reviews of those tasks that have one, by task.

    Args:
        source: A folder, "hub", or None for no reviews.
        specs: The tasks.

    Raises:
        PerpoError: No task has a review, or a file is missing or damaged.
    """
    if source is None:
        return {}
    reviewed = [spec for spec in specs if spec.split in REFER_COUNTS.get(spec.dataset, {})]  # type: ignore[call-overload]
    if not reviewed:
        known = [f"{name}_{split}" for name, splits in REFER_COUNTS.items() for split in splits if split != "train"]
        names = ", ".join(known)
        raise PerpoError("no task of this run has reviewed labels", f"leave --reviewed_labels out; there are {names}")
    folder, commit = _folder(source)
    reviews = {spec.name: _read(folder / f"{spec.name}_reviewed.json", commit) for spec in reviewed}
    _hold_against_published(reviewed, reviews)
    return reviews


def _folder(source: str) -> tuple[Path, str | None]:
    folder, commit = Path(source), None
    if source == "hub":
        folder, commit = hub_folder(_REPOSITORY, [f"{_FOLDER}/*"])
    if not folder.is_dir():
        raise PerpoError(f"--reviewed_labels is {source}, which is no folder", _HINT)
    return (folder / _FOLDER if (folder / _FOLDER).is_dir() else folder), commit


def _read(file: Path, commit: str | None) -> LabelReview:
    if not file.is_file():
        raise PerpoError(f"the reviewed labels are missing: there is no {file}", _HINT)
    content = file.read_bytes()
    try:
        data = json.loads(content)
    except ValueError as error:
        raise PerpoError(f"{file} is not JSON: {error}", f"fetch it again; {_HINT}") from error
    asked = {entry["id"]: entry for entry in _entries(data, "images", file)}
    if len(asked) < len(data["images"]):
        raise _other(file, "two entries of `images` have one id")
    labels: dict[int, list[Label]] = {}
    for number, entry in enumerate(_entries(data, "annotations", file)):
        image = asked.get(entry["image_id"])
        if image is None:
            raise _other(file, f"annotation {number} is about the image {entry['image_id']!r:.40}, which is not there")
        x, y, width, height = entry["bbox"]
        label = Label(plain(image["caption"]), (x, y, x + width, y + height), bool(entry["caption_quality"]))
        labels.setdefault(image["original_id"], []).append(label)
    source = file.name if commit is None else f"{file.name} of {_REPOSITORY}, {commit}"
    return LabelReview(source, hashlib.sha256(content).hexdigest(), labels)


_FIELDS: dict[str, dict[str, Any]] = {
    "images": {
        "id": lambda value: type(value) is int,
        "original_id": lambda value: type(value) is int,
        "caption": lambda value: isinstance(value, str),
    },
    "annotations": {
        "image_id": lambda value: type(value) is int,
        "bbox": lambda value: isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)),
        "caption_quality": lambda value: type(value) is int and value in (0, 1),
    },
}


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _entries(data: Any, name: str, file: Path) -> list[dict[str, Any]]:
    """The entries of a list of a review's, with fields of the known kinds."""
    entries = data.get(name) if isinstance(data, dict) else None
    if not isinstance(entries, list) or not entries:
        raise _other(file, f"it has no list `{name}`")
    for number, entry in enumerate(entries):
        for field, is_known in _FIELDS[name].items():
            if not isinstance(entry, dict) or not is_known(entry.get(field)):
                held = entry.get(field) if isinstance(entry, dict) else entry
                raise _other(file, f"entry {number} of `{name}` has {held!r:.40} as {field}")
    return entries


def _other(file: Path, problem: str) -> PerpoError:
    return PerpoError(f"{file} is no review of labels as it is known: {problem}", _HINT)


def _hold_against_published(specs: Sequence[TaskSpec], reviews: Mapping[str, LabelReview]) -> None:
    """Say where a review has other counts than the published one."""
    problems = []
    for dataset, splits in REFER_COUNTS.items():
        mine = {spec.split: reviews[spec.name] for spec in specs if spec.dataset == dataset}
        for split, review in mine.items():
            if review.total != splits[split][1]:
                problems.append(f"{dataset}_{split} {review.total:,} expressions, not {splits[split][1]:,}")
        wrong, known = sum(review.wrong for review in mine.values()), REVIEWED_WRONG[dataset]
        if mine and mine.keys() == splits.keys() - {"train"} and abs(wrong - known) > _SAME_COUNT:
            problems.append(f"{dataset} {wrong:,} wrong labels, not {known:,}")
    if problems:
        print(f"warning: these reviewed labels are not the published ones: {'; '.join(problems)}", file=sys.stderr)
