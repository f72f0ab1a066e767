"""Write RefCOCO, RefCOCO+ and RefCOCOg: counted, and with no image of the papers' evaluations in a training file.

The papers' evaluations are UNC's and UMD's val and test splits, which are drawn by image; all their images are
kept out of every training file. Google's partitions of RefCOCO and RefCOCOg are drawn by object instead: val and
test of RefCOCO are 10,000 of its 50,000 objects, on about 4,560 and 4,530 of its 19,994 images, so that an image
with 2.5 objects, the mean, is among them with 1 - 0.8^2.5 = 43%. To keep them out would cost about half of the
training refs, for evaluations that the papers do not report. So they stay in by default; how many refs that
concerns is counted, said and recorded, since the hub's refcoco_val and refcocog_val hold Google's rows too, and
`--keep_out_google` drops them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.common.hints import did_you_mean
from perpo.data import data_sha256
from perpo.data.images import image_size, listing
from perpo.data.rows import Row
from perpo.errors import PerpoError
from perpo.prepare.parquet import (
    RowFile,
    Written,
    check_image_files,
    check_outputs,
    image_cell,
    say,
    write_rows,
)
from perpo.prepare.published_counts import GOOGLE_REFS, PARTITION, REFER_COUNTS, ReferSet, compare
from perpo.prepare.refer.layout import Annotations, Ref, count, read_annotations, read_refs, refs_file

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
        raise PerpoError(
            f"--images is {args.images}, which is not a folder", "give the folder of COCO's train2014 images"
        )
    partitions = _read_all(args, tasks)
    trains = any(split == _TRAIN for _, split in tasks)
    evaluations = _evaluation_images(partitions, args) if trains else _Evaluations({}, {}, [])
    plans = [_plan(partitions, evaluations, dataset, split, args.allow_other_counts) for dataset, split in tasks]
    annotations = {
        dataset: read_annotations(
            args.root, dataset, [r for plan in plans if plan.dataset == dataset for r in plan.refs]
        )
        for dataset in dict.fromkeys(dataset for dataset, _ in tasks)
    }
    check_image_files(
        (args.images / annotations[plan.dataset].files[ref.image_id] for plan in plans for ref in plan.refs),
        f"--images is {args.images}; it should be the folder of COCO's train2014 images",
    )
    _check_sizes(plans, annotations, args.images)
    return [_write(plan, annotations[plan.dataset], args, evaluations) for plan in plans]


def _check_sizes(plans: Sequence[_Plan], annotations: Mapping[ReferSet, Annotations], images: Path) -> None:
    """Compare pictures with the sizes that the annotations give; their boxes are in pixels of these.

    Raises:
        PerpoError: Some have others: all are counted and ten are named.
    """
    declared = {
        about.files[ref.image_id]: about.sizes.get(ref.image_id)
        for plan in plans
        for about in [annotations[plan.dataset]]
        for ref in plan.refs
    }
    bad = []
    for name, size in declared.items():
        stored_size = image_size(images / name, stored=True)
        if size is not None and size != stored_size:
            bad.append(
                f"{name}: {stored_size[0]} x {stored_size[1]} pixels are stored, "
                f"instances.json says {size[0]} x {size[1]}"
            )
    if bad:
        raise PerpoError(
            f"{len(bad)} of {len(declared)} pictures do not have the size that their boxes refer to:\n  {listing(bad)}",
            "give COCO's original train2014 images, neither resized nor turned",
        )


@dataclass(frozen=True)
class _Evaluations:
    """Images of val and test splits by what they are of: a data set, or a data set and `:google`.

    Attributes:
        kept_out: Those that training files must not show.
        left_in: Those that they may show.
        absent: What is not there.
    """

    kept_out: dict[str, set[int]]
    left_in: dict[str, set[int]]
    absent: list[str]


@dataclass(frozen=True)
class _Plan:
    """What one file is to hold.

    Attributes:
        dataset: The data set.
        split: The split.
        refs: What is written.
        verdict: How the counts before dropping compare with the known ones.
        dropped: How many refs stay out because evaluations ask about their images.
        dropped_by: How many of them each evaluation claims; several may claim one.
        left_in: How many of the written refs show an image of evaluations that are not kept out.
    """

    dataset: ReferSet
    split: str
    refs: list[Ref]
    verdict: str
    dropped: int = 0
    dropped_by: dict[str, int] = field(default_factory=dict)
    left_in: dict[str, int] = field(default_factory=dict)


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
    refs_by_set: dict[ReferSet, list[Ref]] = {}
    for dataset, partition in PARTITION.items():
        if dataset in wanted or (trains and refs_file(args.root, dataset, partition).is_file()):
            say(f"reading {dataset} ({partition.upper()}) ...")
            refs_by_set[dataset] = read_refs(args.root, dataset, partition)
        elif trains:
            say(f"{dataset} is not under --root, so the images of its evaluations cannot be kept out of training files")
    return refs_by_set


def _plan(
    partitions: Mapping[ReferSet, list[Ref]], evaluations: _Evaluations, dataset: ReferSet, split: str, other: bool
) -> _Plan:
    """The refs of a file; `other` counts than the known ones may be allowed."""
    refs = [ref for ref in partitions[dataset] if ref.split == split]
    verdict = _compare(dataset, split, refs, other)
    if not refs:
        raise PerpoError(f"{dataset} has no refs of the split {split}", "leave it out with --splits")
    if split != _TRAIN:
        return _Plan(dataset, split, refs, verdict)
    kept_out = set().union(*evaluations.kept_out.values())
    kept = [ref for ref in refs if ref.image_id not in kept_out]
    dropped = len(refs) - len(kept)
    by, left_in = _claims(refs, evaluations.kept_out), _claims(kept, evaluations.left_in)
    if not kept:
        raise PerpoError(
            f"every image of {dataset} train is in an evaluation split", "check that this is the right --root"
        )
    reason = f", since evaluations use their images ({_listed(by)})" if by else ""
    say(f"{dataset} train: {dropped} of {len(refs)} refs dropped{reason}")
    if left_in:
        say(
            f"warning: {dataset} train: {len(kept)} refs are kept, of which evaluations of Google's partition, "
            f"whose rows the hub's refcoco_val and refcocog_val hold too, share the images of {_listed(left_in)}; "
            "--keep_out_google drops them"
        )
    return _Plan(dataset, split, kept, verdict, dropped, by, left_in)


def _claims(refs: Sequence[Ref], evaluations: Mapping[str, set[int]]) -> dict[str, int]:
    """How many refs show an image of each evaluation, without the zeros."""
    counts = {name: sum(ref.image_id in images for ref in refs) for name, images in evaluations.items()}
    return {name: count for name, count in counts.items() if count}


def _listed(claims: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in claims.items())


def _compare(dataset: ReferSet, split: str, refs: Sequence[Ref], allow_other: bool) -> str:
    known = dict(zip(("refs", "expressions"), REFER_COUNTS[dataset][split], strict=True))
    return compare(f"{dataset} {split}", count(refs), known, allow_other)


def _evaluation_images(partitions: Mapping[ReferSet, list[Ref]], args: ReferArguments) -> _Evaluations:
    """Images of every val and test split of the sets and of Google's partitions that are there."""
    evaluations = _Evaluations({}, {}, sorted(PARTITION.keys() - partitions.keys()))
    for dataset, refs in partitions.items():
        for split in REFER_COUNTS[dataset]:
            if split != _TRAIN:  # to keep a part of the images out would leak the rest
                _compare(dataset, split, [ref for ref in refs if ref.split == split], args.allow_other_counts)
        evaluations.kept_out[dataset] = _evaluated(refs)
    for dataset, known in GOOGLE_REFS.items():
        name = f"{dataset}:google"
        if not args.keep_out_google and not refs_file(args.root, dataset, "google").is_file():
            say(
                f"{dataset} has no refs(google).p, so it is not known how many training refs show images of Google's "
                "evaluations"
            )
            evaluations.absent.append(name)
            continue
        say(f"reading {dataset} (Google) ...")
        refs = read_refs(args.root, dataset, "google")
        if args.keep_out_google:
            counts = {split: sum(ref.split == split for ref in refs) for split in known}
            compare(f"refs of {name}", counts, known, args.allow_other_counts)
        (evaluations.kept_out if args.keep_out_google else evaluations.left_in)[name] = _evaluated(refs)
    return evaluations


def _evaluated(refs: Sequence[Ref]) -> set[int]:
    return {ref.image_id for ref in refs if ref.split != _TRAIN}


def _write(plan: _Plan, annotations: Annotations, args: ReferArguments, evaluations: _Evaluations) -> Written:
    partition = PARTITION[plan.dataset]
    more: dict[str, Any] = {
        "source_sha256": data_sha256(refs_file(args.root, plan.dataset, partition)),
        "images": "linked" if args.link_images else "embedded",
    }
    if plan.split == _TRAIN:
        more |= {
            "dropped_refs": plan.dropped,
            "dropped_refs_by": plan.dropped_by,
            "evaluation_images_of": sorted(evaluations.kept_out),
            "evaluation_images_missing_of": evaluations.absent,
            "refs_on_images_left_in_of": {name: plan.left_in.get(name, 0) for name in evaluations.left_in},
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
