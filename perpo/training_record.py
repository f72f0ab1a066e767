"""training.json: what a run was trained with; and where a run that was cut off goes on. Needs no torch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perpo.checkpoints import adapter_digest, local_directory, resolve_model, weights_digest
from perpo.data import data_sha256
from perpo.errors import PerpoError
from perpo.files import atomic_write_text, check_writable
from perpo.provenance import code_version, package_versions
from perpo.train_arguments import TrainArguments

FILE_NAME = "training.json"
SCHEMA_VERSION = 1

# These may differ between a run and its continuation: they do not change the weights. The paths do
# not count either, because the digests of what they lead to do.
_FREE = {
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
    "image_root",
    "cache_dir",
}


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        checkpoint: The checkpoint that it goes on from, or None for its very beginning.
        finished: Whether there is nothing left to do.
    """

    checkpoint: Path | None
    finished: bool = False


def new_record(args: TrainArguments) -> dict[str, Any]:
    """The record of a run that is about to begin; it reads the model's, adapter's and data's digests.

    Raises:
        PerpoError: One of them is not there, or the adapter is another model's.
    """
    weights = weights_digest(local_directory(resolve_model(args.model)))
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": dataclasses.asdict(args),
        "model": {
            "name": args.model,
            "weights_sha256": weights,
            "adapter": args.adapter,
            "adapter_sha256": adapter_of(weights, args.adapter) if args.adapter else None,
        },
        "data": {"path": args.data, "sha256": data_sha256(args.data)},
        "code": code_version(),
        "packages": package_versions(),
    }


def write_record(directory: str | Path, record: dict[str, Any]) -> None:
    """Write training.json into a run's directory."""
    atomic_write_text(Path(directory, FILE_NAME), json.dumps(record, indent=2) + "\n")


def read_record(directory: str | Path) -> dict[str, Any] | None:
    """A run's training.json, or None where there is none.

    Raises:
        PerpoError: It is damaged.
    """
    path = Path(directory, FILE_NAME)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        _ = record["status"], record["arguments"], record["model"]["weights_sha256"], record["data"]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise PerpoError(f"{path} is damaged", "delete the directory, or train into another one") from error
    return record


def adapter_of(weights_sha256: str, adapter: str | Path) -> str:
    """SHA-256 of an adapter's weights, if it may be put on a base of that digest.

    An adapter that perpo-train did not write does not say what it was trained on, and may.

    Raises:
        PerpoError: The directory holds no adapter, or one that was trained on other weights.
    """
    digest = adapter_digest(adapter)
    record = read_record(adapter)
    if record is not None and record["model"]["weights_sha256"] != weights_sha256:
        raise PerpoError(
            f"the adapter {adapter} was trained on another model: {record['model'].get('name')}",
            "give the model that it was trained on",
        )
    return digest


def find_start(args: TrainArguments, record: dict[str, Any]) -> Start:
    """Decide whether a run begins, goes on or is finished.

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
        return Start(last_checkpoint(args.output_dir), finished=earlier["status"] == "complete")
    if not _is_whole(Path(where)):
        raise PerpoError(f"{where} is no checkpoint of a run", "give last, or a checkpoint-... directory")
    earlier = read_record(Path(where).parent)
    if earlier is None:
        raise PerpoError(f"there is no {FILE_NAME} beside {where}", "leave checkpoints in their run's directory")
    _check_same_run(earlier, record, where)
    return Start(Path(where))


def last_checkpoint(directory: str | Path) -> Path | None:
    """The newest checkpoint that was written to its end, or None."""
    whole = [path for path in Path(directory).glob("checkpoint-*") if _is_whole(path)]
    return max(whole, key=lambda path: int(path.name.partition("-")[2]), default=None)


def _is_whole(checkpoint: Path) -> bool:
    # The Trainer writes this file last; a process that was killed leaves none, or a part of it.
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True


def _refuse_to_overwrite(directory: str) -> None:
    earlier = read_record(directory)
    if earlier is not None and earlier["status"] == "complete":
        raise PerpoError(f"{directory} holds a finished training", "give another --output_dir, or delete it")
    if last_checkpoint(directory) is not None:
        raise PerpoError(
            f"{directory} holds a training that was cut off",
            "go on with --resume_from_checkpoint last, or delete it",
        )


def _check_same_run(earlier: dict[str, Any], record: dict[str, Any], where: str) -> None:
    for name, value in record["arguments"].items():
        before = earlier["arguments"].get(name)
        if name not in _FREE and before != value:
            raise PerpoError(
                f"the training in {where} was begun with {name} {before}, not {value}",
                "give the same arguments to go on with it, or another --output_dir",
            )
    for part, key in (("model", "weights_sha256"), ("model", "adapter_sha256"), ("data", "sha256")):
        if earlier[part].get(key) != record[part][key]:
            what = {"weights_sha256": "model", "adapter_sha256": "adapter", "sha256": "data"}[key]
            raise PerpoError(
                f"the {what} has changed since the training in {where} was begun",
                "bring it back, or give another --output_dir",
            )
