"""perpo-eval export --lost, --coco, --fiftyone: samples of stored runs for other programs, and for perpo-sample."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perpo.common.arguments import arg, next_command
from perpo.errors import PerpoError

if TYPE_CHECKING:
    from perpo.records.store import Run

_KINDS = ("lost", "coco", "fiftyone")
_USES = {"against": ("lost",), "allow_test": ("lost",), "images": ("lost", "fiftyone"), "output": _KINDS}


@dataclass(frozen=True, kw_only=True)
class SampleExports:
    """The samples that are written, and where."""

    lost: str | None = arg(None, "instead, write what this run answered wrongly as questions for perpo-sample")
    against: str | None = arg(None, "for --lost: only what this run answered rightly")
    coco: str | None = arg(None, "instead, write this run's boxes as COCO's results, with their ground truth")
    fiftyone: list[str] = arg([], "instead, write the boxes of these runs in FiftyOne's format")
    output: Path | None = arg(None, "for --lost a .jsonl file, for --coco and --fiftyone a folder")
    images: Path | None = arg(None, "folder that image paths of --lost and --fiftyone start from")
    allow_test: bool = arg(False, "for --lost: take questions of a benchmark's val and test splits too: a leak")


def exports_samples(args: SampleExports) -> bool:
    """Return whether samples are wanted, and not a table of runs.

    Raises:
        PerpoError: Flags that do not go together.
    """
    kinds = [kind for kind in _KINDS if getattr(args, kind)]
    if len(kinds) > 1:
        raise PerpoError(f"--{kinds[0]} and --{kinds[1]} are two files", "write them one after the other")
    for name, used_by in _USES.items():
        if getattr(args, name) and not set(kinds) & set(used_by):
            flags = " or ".join(f"--{kind}" for kind in used_by)
            raise PerpoError(f"--{name} has no effect without {flags}", f"leave --{name} out")
    if kinds and args.output is None:
        what = "a .jsonl file" if kinds == ["lost"] else "a folder"
        raise PerpoError(f"--{kinds[0]} needs --output", f"give {what} to write")
    return bool(kinds)


def export_samples(args: SampleExports, root: Path) -> None:
    """Write them, and say what they are; `root` is where ids and names of runs are looked up."""
    from perpo.records.store import resolve_run

    output = args.output
    assert output is not None
    if args.lost is not None:
        baseline = None if args.against is None else resolve_run(args.against, root)
        _write_lost(args, output, resolve_run(args.lost, root), baseline)
    elif args.coco is not None:
        from perpo.results.exports.coco import RESULTS_FILE, TRUTH_FILE, write_coco

        count, answered = write_coco(resolve_run(args.coco, root), output)
        said = f"{count:,} samples in {TRUTH_FILE}, {answered:,} answered boxes in {RESULTS_FILE}"
        print(f"{output}: {said}", file=sys.stderr)
    else:
        from perpo.results.exports.fiftyone import write_fiftyone

        count, missing = write_fiftyone([resolve_run(run, root) for run in args.fiftyone], output, args.images)
        print(f"{output}: {count:,} pictures", file=sys.stderr)
        if missing:
            said = f"note: of {missing:,} no file is at hand; they keep the path of their data set"
            print(f"{said}: give --images, or lay them below {output}", file=sys.stderr)


def _write_lost(args: SampleExports, output: Path, run: Run, baseline: Run | None) -> None:
    from perpo.data import write_jsonl
    from perpo.results.exports.lost import lost_questions
    from perpo.sample.arguments import SampleArguments

    if output.suffix != ".jsonl":
        raise PerpoError(f"--output must end in .jsonl, got {output}", "questions are written one JSON object a line")
    if output.exists():
        raise PerpoError(f"{output} exists", "choose another --output, or move that file away")
    lost = lost_questions(run, baseline, args.images, allow_test=args.allow_test)
    write_jsonl(output, lost.questions)
    for what, count in lost.left_out.items():
        print(f"note: {count:,} samples are left out: {what}", file=sys.stderr)
    if lost.evaluated:
        print(
            f"WARNING: these are questions of {', '.join(lost.evaluated)}. A model that trains on them must not be "
            "evaluated there again: it has seen the answers.",
            file=sys.stderr,
        )
    print(f"{output}: {len(lost.questions):,} questions that {run.record.name} lost", file=sys.stderr)
    has_boxes = any(question.box_scale is not None for question in lost.questions)
    sample = SampleArguments(
        output=str(output.with_name(f"{output.stem}-candidates.jsonl")),
        questions=str(output),
        reward="iou" if has_boxes else "edit",
    )
    print(f"sample with {next_command('perpo-sample', sample)}", file=sys.stderr)
