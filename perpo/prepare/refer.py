"""Write RefCOCO, RefCOCO+ and RefCOCOg: counted, and with no image of an evaluation in a training file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.data import data_sha256
from perpo.errors import PerpoError
from perpo.nearest import did_you_mean
from perpo.prepare.known import GOOGLE, PARTITION, REFER_COUNTS, ReferSet, compare
from perpo.prepare.layout import Annotations, Ref, count, read_annotations, read_refs, refs_file
from perpo.prepare.parquet import (
    RowFile,
    Written,
    check_image_files,
    check_outputs,
    image_cell,
    say,
    write_rows,
)
from perpo.rows import Row

if TYPE_CHECKING:
    from perpo.prepare.arguments import ReferArguments

_TRAIN = "train"


def build(args: ReferArguments) -> list[Written]:
    """Write one file per data set and split.

    Raises:
        PerpoError: Files are missing or damaged, or the counts are not the known ones.
    """
    tasks = _tasks(args)
    check_outputs([_output(args, *task) for task in tasks], args.overwrite)
    if not args.images.is_dir():
        raise PerpoError(f"--images is {args.images}, which is no folder", "give that of COCO's train2014 images")
    partitions = _read_all(args, tasks)
    held_out = _evaluation_images(partitions, args) if any(split == _TRAIN for _, split in tasks) else set()
    plans = [
        _Plan(dataset, split, *_kept(partitions, held_out, dataset, split, args.allow_other_counts))
        for dataset, split in tasks
    ]
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


def _read_all(args: ReferArguments, tasks: Sequence[tuple[ReferSet, str]]) -> dict[ReferSet, list[Ref]]:
    """Refs of the wanted sets; for training files also of the others that are there, whose images must stay out."""
    wanted = {dataset for dataset, _ in tasks}
    trains = any(split == _TRAIN for _, split in tasks)
    found: dict[ReferSet, list[Ref]] = {}
    for dataset, partition in PARTITION.items():
        if dataset in wanted or (trains and refs_file(args.root, dataset, partition).is_file()):
            say(f"reading {dataset} ({partition.upper()}) ...")
            found[dataset] = read_refs(args.root, dataset, partition)
        elif trains:
            say(f"{dataset} is not under --root: its evaluation images can't be kept out of training files")
    return found


def _kept(
    partitions: Mapping[ReferSet, list[Ref]], held_out: set[int], dataset: ReferSet, split: str, allow_other: bool
) -> tuple[list[Ref], str, int]:
    """The refs of a file, how their counts compare with the known ones, and how many were dropped."""
    refs = [ref for ref in partitions[dataset] if ref.split == split]
    verdict = _compare(dataset, split, refs, allow_other)
    if not refs:
        raise PerpoError(f"{dataset} has no refs of the split {split}", "leave it out with --splits")
    if split != _TRAIN:
        return refs, verdict, 0
    kept = [ref for ref in refs if ref.image_id not in held_out]
    if not kept:
        raise PerpoError(f"every image of {dataset} train is in an evaluation split", "is it the right --root?")
    say(f"{dataset} train: {len(refs) - len(kept)} of {len(refs)} refs dropped, since evaluations use their images")
    return kept, verdict, len(refs) - len(kept)


def _compare(dataset: ReferSet, split: str, refs: Sequence[Ref], allow_other: bool) -> str:
    known = dict(zip(("refs", "expressions"), REFER_COUNTS[dataset][split], strict=True))
    return compare(f"{dataset} {split}", count(refs), known, allow_other)


def _evaluation_images(partitions: Mapping[ReferSet, list[Ref]], args: ReferArguments) -> set[int]:
    """Images of every val and test split of the sets that are there, and of Google's partition if asked for."""
    for dataset, refs in partitions.items():
        for split in REFER_COUNTS[dataset]:
            if split != _TRAIN:  # to keep a part of the images out would leak the rest
                _compare(dataset, split, [ref for ref in refs if ref.split == split], args.allow_other_counts)
    google = [ref for name in GOOGLE for ref in read_refs(args.root, name, "google")] if args.keep_out_google else []
    everything = [*google, *(ref for refs in partitions.values() for ref in refs)]
    return {ref.image_id for ref in everything if ref.split != _TRAIN}


def _write(plan: _Plan, annotations: Annotations, args: ReferArguments, present: Sequence[str]) -> Written:
    partition = PARTITION[plan.dataset]
    more: dict[str, Any] = {
        "source_sha256": data_sha256(refs_file(args.root, plan.dataset, partition)),
        "images": "linked" if args.link_images else "embedded",
    }
    if plan.split == _TRAIN:
        absent = sorted(PARTITION.keys() - set(present))
        more |= {
            "dropped_refs": plan.dropped,
            "evaluation_images_of": [*present, *(f"{name}:google" for name in GOOGLE if args.keep_out_google)],
            "evaluation_images_missing_of": absent,
        }
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
