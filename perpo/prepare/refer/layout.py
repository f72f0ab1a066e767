"""Read the `refer` layout of RefCOCO, RefCOCO+ and RefCOCOg.

The layout (github.com/lichengunc/refer): `<set>/refs(<partition>).p`, a pickled list of refs {ref_id, ann_id,
category_id, image_id, split, sentences [{sent, raw, ...}], ...}, beside `<set>/instances.json` in COCO's form.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perpo.errors import PerpoError
from perpo.prepare.published_counts import REFER_SPLITS
from perpo.prepare.refer.pickles import read_plain_pickle

_INTS = ("ref_id", "ann_id", "image_id", "category_id")
_REFETCH = "check that this is the right file and that it is complete"


@dataclass(frozen=True)
class Ref:
    """One object and what people call it.

    Attributes:
        ref_id: Its number in the data set.
        ann_id: The number of its annotation.
        image_id: COCO's number of the image.
        category_id: COCO's category.
        split: Which split of the partition it belongs to.
        sentences: The expressions, as cleaned by the data set's authors (`sent`), in their order.
    """

    ref_id: int
    ann_id: int
    image_id: int
    category_id: int
    split: str
    sentences: list[str]


@dataclass(frozen=True)
class Annotations:
    """The part of instances.json that refs need: annotations and images.

    Attributes:
        boxes: x, y, width, height in pixels, by annotation.
        crowds: Whether (1) or not (0) it is a crowd, by annotation.
        files: File name by image.
        sizes: (width, height) in pixels by image, of those where they are given.
    """

    boxes: dict[int, list[float]]
    crowds: dict[int, int]
    files: dict[int, str]
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)


def refs_file(root: Path, dataset: str, partition: str) -> Path:
    """Return where a data set's refs lie."""
    return root / dataset / f"refs({partition}).p"


def read_refs(root: Path, dataset: str, partition: str) -> list[Ref]:
    """Return all refs of a partition.

    Raises:
        PerpoError: The file is missing, is no plain pickle, or holds something else than refs.
    """
    path = refs_file(root, dataset, partition)
    if not path.is_file():
        raise PerpoError(
            f"expected the refs of {dataset} at {path}, found no such file",
            "give as --root the folder with refcoco, refcoco+ and refcocog in the layout of refer, or give fewer "
            "--datasets",
        )
    content = read_plain_pickle(path)
    if not isinstance(content, list) or not content:
        raise PerpoError(f"{path}: expected a list of refs, found {content!r:.40}", "check that this is the right file")
    return [_ref(item, f"{path}, ref {number}") for number, item in enumerate(content, start=1)]


def read_annotations(root: Path, dataset: str, refs: Sequence[Ref]) -> Annotations:
    """Read boxes and file names for these refs, through pycocotools.

    Raises:
        PerpoError: instances.json is missing or damaged, or lacks what a ref refers to.
    """
    from pycocotools.coco import COCO

    path = root / dataset / "instances.json"
    if not path.is_file():
        raise PerpoError(f"expected {path}, found no such file", "it is in the same archive as the refs")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it takes
            coco = COCO(str(path))
        known_ids = {
            "annotation": {ref.ann_id for ref in refs if ref.ann_id in coco.anns},
            "image": {ref.image_id for ref in refs if ref.image_id in coco.imgs},
        }
        wanted = {"annotation": {ref.ann_id for ref in refs}, "image": {ref.image_id for ref in refs}}
        for kind, ids in wanted.items():
            if missing := ids - known_ids[kind]:
                raise PerpoError(f"{path} lacks {len(missing)} {kind}s of the refs, such as {min(missing)}", _REFETCH)
        return Annotations(
            {number: _box(coco.anns[number]) for number in wanted["annotation"]},
            {number: int(coco.anns[number].get("iscrowd", 0)) for number in wanted["annotation"]},
            {number: str(coco.imgs[number]["file_name"]) for number in wanted["image"]},
            {
                number: (int(coco.imgs[number]["width"]), int(coco.imgs[number]["height"]))
                for number in wanted["image"]
                if {"width", "height"} <= coco.imgs[number].keys()
            },
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, AssertionError) as error:
        text = " ".join(str(error).split())
        raise PerpoError(f"{path} is not in COCO's form: {type(error).__name__}: {text}", "fetch it again") from error


def count(refs: Sequence[Ref]) -> dict[str, int]:
    """Return how many refs and expressions there are."""
    return {"refs": len(refs), "expressions": sum(len(ref.sentences) for ref in refs)}


def _ref(item: Any, where: str) -> Ref:
    if not isinstance(item, dict):
        raise PerpoError(
            f"{where}: expected its fields by name, found {item!r:.40}", "check that this is the right file"
        )
    for name in _INTS:
        if not isinstance(item.get(name), int) or isinstance(item[name], bool):
            raise PerpoError(f"{where}: expected a whole number as {name}, found {item.get(name)!r:.40}", _REFETCH)
    split, sentences = item.get("split"), item.get("sentences")
    texts = [entry.get("sent") for entry in sentences or [] if isinstance(entry, dict)]
    if not isinstance(split, str) or not texts or not all(isinstance(text, str) for text in texts):
        raise PerpoError(
            f"{where}: expected a split and sentences with `sent`, found {split!r:.40} and {sentences!r:.60}", _REFETCH
        )
    if split not in REFER_SPLITS:
        raise PerpoError(f"{where}: its split is '{split:.40}'", f"known: {', '.join(REFER_SPLITS)}")
    return Ref(item["ref_id"], item["ann_id"], item["image_id"], item["category_id"], split, list(map(str, texts)))


def _box(annotation: Mapping[str, Any]) -> list[float]:
    box = [float(value) for value in annotation["bbox"]]
    if len(box) != 4 or min(box[2:]) <= 0:
        raise ValueError(f"annotation {annotation['id']} has the box {box}")
    return box
