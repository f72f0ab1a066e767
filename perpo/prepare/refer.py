"""RefCOCO, RefCOCO+ and RefCOCOg as the `refer` layout has them: read, counted, freed of leaks, written.

The layout (github.com/lichengunc/refer): `<set>/refs(<partition>).p`, a pickled list of refs {ref_id, ann_id,
category_id, image_id, split, sentences [{sent, raw, ...}], ...}, beside `<set>/instances.json` in COCO's form.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.data import data_sha256
from perpo.errors import PerpoError
from perpo.nearest import did_you_mean
from perpo.prepare.known import PARTITION, REFER_COUNTS, REFER_SPLITS, ReferSet, compare
from perpo.prepare.parquet import (
    RowFile,
    Written,
    check_image_files,
    check_outputs,
    image_cell,
    say,
    write_rows,
)
from perpo.prepare.pickles import read_plain_pickle
from perpo.rows import Row

if TYPE_CHECKING:
    from perpo.prepare.arguments import ReferArguments

_INTS = ("ref_id", "ann_id", "image_id", "category_id")
_TRAIN = "train"
_REFETCH = "is it the right file, and whole?"


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
    """What instances.json says of the annotations and images that refs need.

    Attributes:
        boxes: x, y, width, height in pixels, by annotation.
        crowds: Whether (1) or not (0) it is a crowd, by annotation.
        files: File name by image.
    """

    boxes: dict[int, list[float]]
    crowds: dict[int, int]
    files: dict[int, str]


def refs_file(root: Path, dataset: str, partition: str) -> Path:
    """Where a data set's refs lie."""
    return root / dataset / f"refs({partition}).p"


def read_refs(root: Path, dataset: str, partition: str) -> list[Ref]:
    """All refs of a partition.

    Raises:
        PerpoError: The file is missing, is no plain pickle, or holds something else than refs.
    """
    path = refs_file(root, dataset, partition)
    if not path.is_file():
        raise PerpoError(
            f"expected the refs of {dataset} at {path}, found no such file",
            "give as --root the folder that holds refcoco, refcoco+ and refcocog in the layout of refer",
        )
    content = read_plain_pickle(path)
    if not isinstance(content, list) or not content:
        raise PerpoError(f"{path}: expected a list of refs, found {content!r:.40}", "is it the right file?")
    return [_ref(item, f"{path}, ref {number}") for number, item in enumerate(content, start=1)]


def read_annotations(root: Path, dataset: str, refs: Sequence[Ref]) -> Annotations:
    """Boxes and file names for these refs, through pycocotools.

    Raises:
        PerpoError: instances.json is missing or damaged, or lacks what a ref refers to.
    """
    from pycocotools.coco import COCO

    path = root / dataset / "instances.json"
    if not path.is_file():
        raise PerpoError(f"expected {path}, found no such file", "it comes with the refs, in the same archive")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it takes
            coco = COCO(str(path))
        found = {
            "annotation": {ref.ann_id for ref in refs if ref.ann_id in coco.anns},
            "image": {ref.image_id for ref in refs if ref.image_id in coco.imgs},
        }
        wanted = {"annotation": {ref.ann_id for ref in refs}, "image": {ref.image_id for ref in refs}}
        for what, ids in wanted.items():
            if missing := ids - found[what]:
                raise PerpoError(f"{path} lacks {len(missing)} {what}s of the refs, such as {min(missing)}", _REFETCH)
        return Annotations(
            {number: _box(coco.anns[number]) for number in wanted["annotation"]},
            {number: int(coco.anns[number].get("iscrowd", 0)) for number in wanted["annotation"]},
            {number: str(coco.imgs[number]["file_name"]) for number in wanted["image"]},
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, AssertionError) as error:
        text = " ".join(str(error).split())
        raise PerpoError(f"{path} is not in COCO's form: {type(error).__name__}: {text}", "fetch it again") from error


def count(refs: Sequence[Ref]) -> dict[str, int]:
    """How many refs and expressions there are."""
    return {"refs": len(refs), "expressions": sum(len(ref.sentences) for ref in refs)}


def build(args: ReferArguments) -> list[Written]:
    """Write one file per data set and split.

    Raises:
        PerpoError: Files are missing or damaged, or the counts are not the known ones.
    """
    tasks = _tasks(args)
    check_outputs([_output(args, *task) for task in tasks], args.overwrite)
    partitions = _read_all(args, {dataset for dataset, _ in tasks})
    plans = [_Plan(dataset, split, *_kept(partitions, dataset, split, args)) for dataset, split in tasks]
    annotations = {
        dataset: read_annotations(
            args.root, dataset, [r for plan in plans if plan.dataset == dataset for r in plan.refs]
        )
        for dataset in dict.fromkeys(dataset for dataset, _ in tasks)
    }
    check_image_files(
        (args.images / annotations[plan.dataset].files[ref.image_id] for plan in plans for ref in plan.refs),
        f"--images is {args.images}; it should hold COCO's train2014 images",
    )
    return [_write(plan, annotations[plan.dataset], args, sorted(partitions)) for plan in plans]


@dataclass(frozen=True)
class _Plan:
    """What one file is to hold; `dropped` refs stay out because evaluations ask about their images."""

    dataset: ReferSet
    split: str
    refs: list[Ref]
    verdict: str
    dropped: int


def _tasks(args: ReferArguments) -> list[tuple[ReferSet, str]]:
    datasets = list(dict.fromkeys(args.datasets)) or list(PARTITION)
    known = list(dict.fromkeys(split for dataset in datasets for split in REFER_COUNTS[dataset]))
    for split in args.splits:
        if split not in known:
            raise PerpoError(f"--splits: {', '.join(datasets)} has no split '{split}'", did_you_mean(split, known))
    wanted = args.splits or known
    return [(dataset, split) for dataset in datasets for split in REFER_COUNTS[dataset] if split in wanted]


def _output(args: ReferArguments, dataset: str, split: str) -> Path:
    return args.output / f"{dataset}_{split}.parquet"


def _read_all(args: ReferArguments, wanted: set[ReferSet]) -> dict[ReferSet, list[Ref]]:
    """Refs of the wanted sets, and of the others that are there: their images must stay out of training files."""
    found: dict[ReferSet, list[Ref]] = {}
    for dataset, partition in PARTITION.items():
        if dataset in wanted or refs_file(args.root, dataset, partition).is_file():
            say(f"reading {dataset} ({partition.upper()}) ...")
            found[dataset] = read_refs(args.root, dataset, partition)
    return found


def _kept(
    partitions: Mapping[ReferSet, list[Ref]], dataset: ReferSet, split: str, args: ReferArguments
) -> tuple[list[Ref], str, int]:
    """The refs of a file, how their counts compare with the known ones, and how many were dropped."""
    refs = [ref for ref in partitions[dataset] if ref.split == split]
    known = dict(zip(("refs", "expressions"), REFER_COUNTS[dataset][split], strict=True))
    verdict = compare(f"{dataset} {split}", count(refs), known, args.allow_other_counts)
    if not refs:
        raise PerpoError(f"{dataset} has no refs of the split {split}", "leave it out with --splits")
    if split != _TRAIN:
        return refs, verdict, 0
    held_out = _evaluation_images(partitions, args)
    kept = [ref for ref in refs if ref.image_id not in held_out]
    if not kept:
        raise PerpoError(f"every image of {dataset} train is in an evaluation split", "is it the right --root?")
    say(f"{dataset} train: {len(refs) - len(kept)} of {len(refs)} refs dropped, since evaluations use their images")
    return kept, verdict, len(refs) - len(kept)


def _evaluation_images(partitions: Mapping[ReferSet, list[Ref]], args: ReferArguments) -> set[int]:
    """Images of every val and test split of the sets that are there."""
    for dataset in PARTITION.keys() - partitions.keys():
        say(f"{dataset} is not under --root: its evaluation images can't be kept out of training files")
    for dataset, refs in partitions.items():
        for split, known in REFER_COUNTS[dataset].items():
            if split != _TRAIN:  # a part of the images is a leak
                found = count([ref for ref in refs if ref.split == split])
                expected = dict(zip(("refs", "expressions"), known, strict=True))
                compare(f"{dataset} {split}", found, expected, args.allow_other_counts)
    return {ref.image_id for refs in partitions.values() for ref in refs if ref.split != _TRAIN}


def _write(plan: _Plan, annotations: Annotations, args: ReferArguments, present: Sequence[str]) -> Written:
    partition = PARTITION[plan.dataset]
    more: dict[str, Any] = {
        "source_sha256": data_sha256(refs_file(args.root, plan.dataset, partition)),
        "images": "linked" if args.link_images else "embedded",
    }
    if plan.split == _TRAIN:
        absent = sorted(PARTITION.keys() - set(present))
        more |= {"dropped_refs": plan.dropped, "evaluation_images_of": present, "evaluation_images_missing_of": absent}
    if empty := sum(not text.strip() for ref in plan.refs for text in ref.sentences):
        say(f"{plan.dataset} {plan.split}: {empty} expressions are empty")
    images = {ref.image_id for ref in plan.refs}
    file = RowFile(
        path=_output(args, plan.dataset, plan.split),
        kind="grounding",
        source=f"refer:{plan.dataset}:{partition}",
        split=plan.split,
        command=args.command(),
        counts={"rows": len(plan.refs), "images": len(images), "expressions": count(plan.refs)["expressions"]},
        verdict=plan.verdict + (f"; {plan.dropped} refs dropped" if plan.split == _TRAIN else ""),
        more=more,
    )
    return write_rows(file, _rows(plan.refs, annotations, args))


def _rows(refs: Sequence[Ref], annotations: Annotations, args: ReferArguments) -> Iterator[Row]:
    for ref in refs:
        name = annotations.files[ref.image_id]
        yield {
            "question_id": str(ref.ref_id),
            "image": image_cell(args.images / name, link=args.link_images),
            "question": "",  # the evaluation's own prompt is asked
            "answer": ref.sentences,
            "bbox": annotations.boxes[ref.ann_id],
            "iscrowd": annotations.crowds[ref.ann_id],
            "file_name": name,
            "image_id": ref.image_id,
            "ref_id": ref.ref_id,
            "category_id": ref.category_id,
        }


def _ref(item: Any, where: str) -> Ref:
    if not isinstance(item, dict):
        raise PerpoError(f"{where}: expected its fields by name, found {item!r:.40}", "is it the right file?")
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
