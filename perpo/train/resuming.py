"""Resume a run that was cut off: where it goes on, and which checkpoints are whole. Needs no torch.

A checkpoint is whole once its manifest is there: the last file that is written, with the size and the
SHA-256 of all the others, which are on the disk by then.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpo.common.files import atomic_write_text, check_writable, flush
from perpo.common.processes import is_first_process
from perpo.data import data_sha256
from perpo.errors import PerpoError
from perpo.records.training_record import TRAINING_FILE, read_record
from perpo.train.arguments import TrainArguments

MANIFEST = "manifest.json"
BEST = "best"
"""The folder of the adapter whose held-out score was the best."""

# These may differ between a run and its continuation: they do not change the weights. The paths do
# not count either, because the digests of what they lead to do.
FREE = {
    "output_dir",
    "resume_from_checkpoint",
    "logging_steps",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "dataloader_num_workers",
    "model",
    "adapter",
    "data",
    "allow_other_sampler",
    "image_root",
    "cache_dir",
    "eval_image_root",
    "eval_steps",
    "per_device_eval_batch_size",
    "report_to",
    "run_name",
    "license",
    "push_to_hub",
    "hub_model_id",
}


@dataclass(frozen=True)
class Start:
    """The point at which a run begins.

    Attributes:
        checkpoint: The checkpoint that it goes on from, or None for its very beginning.
        finished: Whether there is nothing left to do.
    """

    checkpoint: Path | None
    finished: bool = False


def find_start(args: TrainArguments, record: dict[str, Any]) -> Start:
    """Decide whether a run begins, goes on or is finished.

    A checkpoint that is damaged is passed over with a warning. If none is whole the run begins
    again, with a warning too: the same command ends with the same weights.

    Args:
        args: The run's arguments.
        record: What `new_record` made of them.

    Raises:
        PerpoError: The output directory holds a run that was not to be resumed, or the run to be
            resumed was made with other arguments, data or weights. Or the directory cannot be written.
    """
    check_writable(args.output_dir)
    where = args.resume_from_checkpoint
    if where is None:
        _refuse_to_overwrite(args.output_dir)
        return Start(None)
    if where == "last":
        earlier = read_record(args.output_dir)
        if earlier is None:
            return Start(None)
        _check_same_run(earlier, record, args.output_dir)
        if earlier["status"] == "complete":
            return Start(None, finished=True)
        return Start(_last_with_warning(args.output_dir))
    if reason := damage(Path(where)):
        raise PerpoError(f"{where} is not a checkpoint of a run: {reason}", "give last, or a folder checkpoint-...")
    earlier = read_record(Path(where).parent)
    if earlier is None:
        raise PerpoError(f"there is no {TRAINING_FILE} beside {where}", "keep checkpoints in the folder of their run")
    _check_same_run(earlier, record, where)
    if Path(where).parent.resolve() != Path(args.output_dir).resolve():
        _refuse_to_overwrite(args.output_dir)
    return Start(Path(where))


def last_checkpoint(directory: str | Path) -> Path | None:
    """Return the newest whole checkpoint, or None."""
    return _newest_whole(Path(directory))[0]


def seal(checkpoint: str | Path) -> None:
    """Write a checkpoint's manifest, when all else is written."""
    folder = Path(checkpoint)
    files = _files(folder)
    with ThreadPoolExecutor() as pool:
        digests = pool.map(_flushed_digest, files)
        content = {
            str(file.relative_to(folder)): {"size": file.stat().st_size, "sha256": digest}
            for file, digest in zip(files, digests, strict=True)
        }
    atomic_write_text(folder / MANIFEST, json.dumps({"files": content}, indent=1) + "\n")
    for place in {folder.parent, folder, *(file.parent for file in files)}:
        flush(place)  # the names


def damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None if it is whole."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text())["files"]
    except OSError:
        return "it was not written completely"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    for name, expected in files.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        size = (checkpoint / name).stat().st_size
        if size != expected["size"]:
            return f"{name} has {size} of {expected['size']} bytes"
    with ThreadPoolExecutor() as pool:
        digests = pool.map(_digest, [checkpoint / name for name in files])
        for (name, expected), digest in zip(files.items(), digests, strict=True):
            if digest != expected["sha256"]:
                return f"{name} has changed since it was written"
    return None


def rotate(directory: str | Path, limit: int | None) -> None:
    """Delete what is older than the newest `limit` checkpoints that were written to their end.

    Call it after `seal`, so that no older checkpoint goes before the new one is whole.
    """
    if limit is None:
        return
    sealed = [path for path in _by_step(Path(directory)) if (path / MANIFEST).is_file()]
    kept = sealed[:limit]
    for path in _by_step(Path(directory)):
        if kept and step_of(path) < step_of(kept[-1]):
            (path / MANIFEST).unlink(missing_ok=True)  # first, so that half a deletion leaves no whole one
            shutil.rmtree(path, ignore_errors=True)


def _last_with_warning(directory: str) -> Path | None:
    checkpoint, damaged = _newest_whole(Path(directory))
    if damaged and is_first_process():
        reasons = "; ".join(f"{path.name} cannot be used: {reason}" for path, reason in damaged)
        print(f"warning: {reasons}; {_instead(checkpoint)}", file=sys.stderr)
    return checkpoint


def _instead(checkpoint: Path | None) -> str:
    return (
        f"continuing from {checkpoint.name}"
        if checkpoint
        else "there is no earlier checkpoint, so training starts again"
    )


def _newest_whole(directory: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest whole checkpoint, and the damaged ones that are newer."""
    damaged: list[tuple[Path, str]] = []
    for path in _by_step(directory):
        reason = damage(path)
        if reason is None:
            return path, damaged
        damaged.append((path, reason))
    return None, damaged


def _by_step(directory: Path) -> list[Path]:
    """All checkpoints, the newest first."""
    checkpoints = [path for path in directory.glob("checkpoint-*") if path.name.partition("-")[2].isdecimal()]
    return sorted(checkpoints, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step after which a checkpoint-... was written."""
    return int(checkpoint.name.partition("-")[2])


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)


def _flushed_digest(path: Path) -> str:
    flush(path)
    return _digest(path)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_same_images(record: Mapping[str, Any], checkpoint: Path) -> None:
    """Hold the images against those that the run of a checkpoint was begun with.

    Raises:
        PerpoError: They are other ones.
    """
    earlier = read_record(checkpoint.parent)
    before = None if earlier is None else earlier["data"].get("images_sha256")
    if before is not None and before != record["data"]["images_sha256"]:
        raise PerpoError(
            f"the images have changed since the training in {checkpoint.parent} started",
            "restore the images, or give another --output_dir",
        )


def check_same_held_out(eval_data: str, checkpoint: Path) -> None:
    """Hold the held-out questions against those that the run of a checkpoint was validated on: their scores decide
    together which adapter is the best.

    Raises:
        PerpoError: They are other ones.
    """
    earlier = read_record(checkpoint.parent)
    before = (earlier and earlier.get("validation")) or {}
    if before.get("data_sha256", data_sha256(eval_data)) != data_sha256(eval_data):
        raise PerpoError(
            f"the questions of --eval_data have changed since the training in {checkpoint.parent} was begun",
            "bring them back, or give another --output_dir",
        )


def _refuse_to_overwrite(directory: str) -> None:
    earlier = read_record(directory)
    if earlier is not None and earlier["status"] == "complete":
        raise PerpoError(f"{directory} holds a finished training", "give another --output_dir, or delete it")
    if any((path / MANIFEST).is_file() for path in _by_step(Path(directory))):
        raise PerpoError(
            f"{directory} holds a training that was cut off",
            "continue it with --resume_from_checkpoint last, or delete the folder",
        )
    if (steps := best_step(Path(directory))) > 0:
        raise PerpoError(
            f"{directory} holds {BEST}/ of a training that was cut off, as it was after step {steps}",
            "give another --output_dir, or delete it",
        )


def best_step(directory: Path) -> int:
    """Return the step of a directory's best/; 0 where there is none, or where nothing was learnt yet."""
    record = read_record(directory / BEST)
    return 0 if record is None else record["steps"] or 0


def _check_same_run(earlier: Mapping[str, Any], record: Mapping[str, Any], where: str) -> None:
    for name, value in record["arguments"].items():
        default = getattr(TrainArguments, name, None)  # an earlier perpo may not have known it
        before = earlier["arguments"].get(name, default)
        if name not in FREE and before != value:
            raise PerpoError(
                f"the training in {where} started with {name} {before}, not {value}",
                "give the same arguments to continue it, or another --output_dir",
            )
    for part, key in (("model", "weights_sha256"), ("model", "adapter_sha256"), ("data", "sha256")):
        if earlier[part].get(key) != record[part][key]:
            what = {"weights_sha256": "model", "adapter_sha256": "adapter", "sha256": "data"}[key]
            raise PerpoError(
                f"the {what} has changed since the training in {where} started",
                "restore it, or give another --output_dir",
            )
    before, now = earlier["world_size"], record["world_size"]
    if before is not None and before != now:
        raise PerpoError(
            f"the training in {where} started with {before} processes, not {now}",
            "start the same number of processes again: each process learns from its own part of the records",
        )
