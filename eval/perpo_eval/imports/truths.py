"""Truths of one's own beside the predictions: a task is made of the files themselves, without any benchmark."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.benchmarks.table import answer_kind
from perpo.boxes import BoxFormat, Order, Scale, parse_boxes
from perpo.data.images import image_size
from perpo.data.placeholders import without_image
from perpo.errors import PerpoError, placed
from perpo.prepare.own_rows import read_box
from perpo_eval.benchmarks.base import TaskSpec
from perpo_eval.imports.files import Prediction
from perpo_eval.imports.samples import truth_box
from perpo_eval.rows.loading import TaskData
from perpo_eval.rows.suites import spec_of

if TYPE_CHECKING:
    from datasets import Dataset

_CLUSTERS = {
    "picture": "image sha256",
    "name": "digest of the image's name",
    "row": "row: the file names no pictures",
}


def own_spec(name: str) -> TaskSpec:
    """Return the task of truths of one's own.

    Raises:
        PerpoError: Its name does not say what the truths are.
    """
    try:
        spec = spec_of(name)
    except KeyError:
        spec = None
    if spec is None or spec.dataset != name or not name.replace("_", "").replace("-", "").replace(".", "").isalnum():
        raise PerpoError(
            f"--truths is {name!r:.60}, which does not say what the truths are",
            "name the data boxes_NAME, yesno_NAME or pages_NAME",
        )
    return spec


def own_task(
    predictions: Sequence[Prediction],
    spec: TaskSpec,
    image_root: Path | None,
    truth: tuple[Scale, Order] | None,
    boxes: BoxFormat | None,
) -> TaskData:
    """Make a task of the truths that stand beside predictions: one sample a row, in the files' order.

    Args:
        predictions: All rows of the files.
        spec: The task.
        image_root: Where the pictures lie that the rows name; None where they are not at hand.
        truth: What numbers of true boxes count, and which is which; None where truths are no boxes.
        boxes: How the model writes boxes; None where answers are none.

    Raises:
        PerpoError: A row without a truth, or one that can't be read; two rows of one name; a picture that is not
            there, or a size that is needed and not given.
    """
    from datasets import Dataset

    from perpo_eval.rows.documents import fingerprint

    pictures = _pictures(predictions, image_root)
    docs, seen = [], dict[tuple[str, ...], str]()
    for number, each in enumerate(predictions):
        with placed(each.place):
            doc = _document(each, number, pictures)
            if truth is not None:
                _check_size(doc, truth[0], boxes)
            doc["target"] = json.dumps(_target(each, spec, doc, truth), ensure_ascii=False)
            _check_once(each, doc, seen)
        docs.append(doc)
    if truth is not None:
        _check_sizes(docs)
    held: Dataset = Dataset.from_list(docs)
    named = all(each.image is not None for each in predictions)
    cluster = _CLUSTERS["picture" if pictures else "name" if named else "row"]
    if not named:
        print(
            "note: the rows name no pictures, so each is a cluster of its own: where rows share pictures the "
            "intervals are too narrow (--columns image=COLUMN)",
            file=sys.stderr,
        )
    return TaskData(spec, f"dir:{spec.dataset}", None, held, fingerprint(held), None, cluster)


def _check_once(each: Prediction, doc: dict[str, Any], seen: dict[tuple[str, ...], str]) -> None:
    """Refuse a row that is there already: it would count twice."""
    called: tuple[str, ...]
    if each.id is not None:
        called, hint = (each.id, doc["query"]), "keep one of them"
    elif each.image is not None:
        called, hint = (each.image, doc["query"], doc["target"]), "keep one of them; or name ids: --columns id=COLUMN"
    else:
        return
    first = seen.setdefault(called, each.place)
    if first != each.place:
        raise PerpoError(f"it is the second one about {called[0]!r:.60} that asks the same (as {first})", hint)


def _pictures(predictions: Sequence[Prediction], root: Path | None) -> dict[str, Path]:
    """The file of each picture, by its name; none where they are not at hand.

    Raises:
        PerpoError: A folder was given, and not all of them are there.
    """
    if root is None:
        return {}
    names = dict.fromkeys(each.image for each in predictions)
    if None in names:
        raise PerpoError("--image_root was given, and not all rows name a picture", "--columns image=COLUMN")
    files = {str(name): root / str(name) for name in names}
    if absent := [name for name, file in files.items() if not file.is_file()]:
        raise PerpoError(
            f"{len(absent):,} of {len(files):,} pictures are not in {root}, such as {absent[0]}",
            "give the folder that their names start from, or leave --image_root out",
        )
    return files


def _document(each: Prediction, number: int, pictures: dict[str, Path]) -> dict[str, Any]:
    source_id = each.id if each.id is not None else str(number)
    doc: dict[str, Any] = {
        "source_id": source_id,
        "query": "" if each.question is None else without_image(each.question).strip(),
        "as_written": each.question is not None,
        "image_file": "",
        "image_sha256": None,
        "image_path": each.image or "",
        "width": each.width,
        "height": each.height,
        "cluster_id": hashlib.sha256((each.image or f"row {number}").encode()).hexdigest(),
    }
    if each.image is None or each.image not in pictures:
        return doc
    file = pictures[each.image]
    try:
        size = image_size(file)
    except OSError as error:
        raise PerpoError(f"{each.image}: {error}", "fetch it again, or leave --image_root out") from error
    if None not in (each.width, each.height) and (each.width, each.height) != size:
        raise PerpoError(
            f"its width and height are {each.width} x {each.height}, and {each.image} has {size[0]} x {size[1]} pixels",
            "give the picture that the boxes were drawn on",
        )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return (
        doc
        | {"image_file": str(file.resolve()), "image_sha256": digest, "cluster_id": digest}
        | dict(zip(("width", "height"), size, strict=True))
    )


def _check_size(doc: dict[str, Any], truth: Scale, boxes: BoxFormat | None) -> None:
    """Refuse a row without its picture's size where boxes mean nothing without it."""
    if None not in (doc["width"], doc["height"]) or boxes is None:
        return
    in_pixels = {truth == "pixels", boxes.scale == "pixels"}
    if len(in_pixels) == 2 or boxes.frame != "original":
        raise PerpoError(
            f"it has no size, and true boxes in {truth} can't be held against answers in {boxes.scale} of "
            f"the {boxes.frame} picture without it",
            "--columns width=COLUMN height=COLUMN, or --image_root FOLDER with the pictures",
        )


def _check_sizes(docs: Sequence[dict[str, Any]]) -> None:
    sized = [None not in (doc["width"], doc["height"]) for doc in docs]
    if any(sized) and not all(sized):
        raise PerpoError(
            f"{len(docs) - sum(sized):,} of {len(docs):,} rows have no width and height", "give all of them, or none"
        )


def _target(each: Prediction, spec: TaskSpec, doc: dict[str, Any], truth: tuple[Scale, Order] | None) -> Any:
    if each.truth is None:
        raise PerpoError("it has no truth", "--columns truth=COLUMN; drop rows without one")
    if (answer_kind(spec.benchmark) == "yes_no" or truth is not None) and not doc["query"]:
        raise PerpoError("it has no question", "--columns question=COLUMN")
    if truth is not None:
        return _true_box(each, doc, *truth)
    text = str(each.truth).strip() if isinstance(each.truth, str | bool | int | float) else ""
    if answer_kind(spec.benchmark) == "yes_no":
        text = text.strip(".").lower()
        if text not in ("yes", "no"):
            raise PerpoError(f"its truth is {each.truth!r:.40}", "expected yes or no")
    if not text:
        raise PerpoError(f"its truth is {each.truth!r:.40}", "expected a text")
    return text


def _true_box(each: Prediction, doc: dict[str, Any], scale: Scale, order: Order) -> list[float]:
    """A true box in pixels of the picture; as shares of its sides where the size is not given."""
    text = truth_box(each.truth)
    size = None if doc["width"] is None or doc["height"] is None else (doc["width"], doc["height"])
    hint = "mend it, or say with --truth_scale and --truth_order how true boxes are written"
    try:
        if size is not None:
            x, y, width, height = read_box(text, scale, order, size)
            return [x, y, x + width, y + height]
        boxes = parse_boxes(text, scale=scale, order=order)
        if len(boxes) != 1:
            raise ValueError(f"holds {len(boxes)} boxes instead of one")
        x1, y1, x2, y2 = map(float, boxes[0])
        if x2 <= x1 or y2 <= y1:
            raise ValueError("is an empty or inverted box")
        if scale != "pixels" and (min(x1, y1) < -0.01 or max(x2, y2) > 1.01):
            raise ValueError(f"lies outside of the scale {scale}")
        return [x1, y1, x2, y2]
    except ValueError as error:
        raise PerpoError(f"its truth is {text!r:.60}, which {error}", hint) from error
