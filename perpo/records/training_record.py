"""training.json: what a run was trained with and what came of it; log.jsonl beside it. Needs no torch.

docs/training-record.md has the fields in a table.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from perpo.common.files import atomic_write_text
from perpo.errors import PerpoError

TRAINING_FILE = "training.json"
LOG_NAME = "log.jsonl"
SCHEMA_VERSION = 2
"""Raised when a field changes its meaning; readers refuse what is later than theirs and upgrade what is earlier."""

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@with_config(_STRICT)
class StartInfo(TypedDict):
    """The weights that training began with: the base, and the adapter it went on from. None where there is none."""

    name: str | None
    weights_sha256: str
    adapter: str | None
    adapter_sha256: str | None


@with_config(_STRICT)
class DataInfo(TypedDict):
    """The data of a training; `counts` says how many records, lists and candidates were used and left out.

    `images_sha256` is a digest of the images' bytes, in the order of their first use.
    """

    path: str | None
    sha256: str
    images_sha256: NotRequired[str | None]
    counts: dict[str, int] | None


@with_config(_STRICT)
class Score(TypedDict):
    """One validation: means over its questions, in [0, 1]; `acc_50`, the share with IoU >= 0.5, for boxes only."""

    step: int
    reward: float
    acc_50: float | None
    unreadable: float
    truncated: float


@with_config(_STRICT)
class ValidationInfo(TypedDict):
    """Validations during training, in the order of their steps; `best` is the first of the highest reward."""

    data: str
    data_sha256: str
    reward_name: str
    questions: int
    scores: list[Score]
    best: Score | None


@with_config(_STRICT)
class ProbeInfo(TypedDict):
    """The file of log-probabilities before and after training, and how many lists and answers it holds."""

    path: str
    lists: int
    rows: int


@with_config(_STRICT)
class TrainingRecord(TypedDict):
    """One training run. What is not known (yet) is None.

    `status` is running (also after the process was killed), complete, or failed with `error`.
    """

    schema_version: int
    status: Literal["running", "complete", "failed"]
    error: str | None
    created_utc: str | None
    duration_s: float | None
    arguments: dict[str, Any]
    model: StartInfo
    data: DataInfo
    code: dict[str, Any] | None
    packages: dict[str, str] | None
    hardware: dict[str, Any] | None
    world_size: int | None
    precision: str | None
    attention: str | None
    peak_memory_bytes: int | None
    steps: int | None
    last_log: dict[str, Any] | None
    log: str | None
    validation: ValidationInfo | None
    probe: ProbeInfo | None
    adapter_sha256: str | None
    weights_sha256: str | None


_PARTS: dict[str, Any] = {"model": StartInfo, "data": DataInfo}


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of training.json."""
    return TypeAdapter(TrainingRecord).json_schema()


def write_record(directory: str | Path, record: Mapping[str, Any]) -> None:
    """Write training.json into a run's directory; an error in it shows now, not when it is read."""
    TypeAdapter(TrainingRecord).validate_python(record)
    atomic_write_text(Path(directory, TRAINING_FILE), json.dumps(record, indent=2, allow_nan=False) + "\n")


def read_record(directory: str | Path) -> dict[str, Any] | None:
    """Return a run's training.json as version `SCHEMA_VERSION` has it, or None where there is none.

    Of version 1, what it did not have is None.

    Raises:
        PerpoError: It is damaged, or of a version that is not known.
    """
    path = Path(directory, TRAINING_FILE)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        version = record["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise PerpoError(f"{path} is damaged", _DAMAGED) from error
    if version not in (1, SCHEMA_VERSION):
        raise PerpoError(
            f"{path} has schema version {version}; this perpo reads versions 1 to {SCHEMA_VERSION}",
            "install a newer perpo to read it",
        )
    try:
        upgraded = record if version == SCHEMA_VERSION else filled(record) | {"schema_version": SCHEMA_VERSION}
        return cast(dict[str, Any], TypeAdapter(TrainingRecord).validate_python(upgraded))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise PerpoError(f"{path} is damaged: {field}: {first['msg']}", _DAMAGED) from error


_DAMAGED = "delete the folder, or train into another one"


def filled(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with every field that it lacks at None, in the order of the schema."""
    whole: dict[str, Any] = {**dict.fromkeys(TrainingRecord.__annotations__), **record}
    for name, part in _PARTS.items():
        if isinstance(whole[name], Mapping):
            whole[name] = {**dict.fromkeys(part.__annotations__), **whole[name]}
    return whole


def public_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record that names no directory of the machine, only their last parts."""
    public = dict(record)
    public["arguments"] = {name: _public(value) for name, value in record["arguments"].items()}
    public["model"] = {name: _public(value) for name, value in record["model"].items()}
    public["data"] = record["data"] | {"path": _public(record["data"]["path"])}
    if record["validation"] is not None:
        public["validation"] = record["validation"] | {"data": _public(record["validation"]["data"])}
    return public


def _public(value: Any) -> Any:
    """What looks like a path, or leads to something, without its folders; a hub id stays."""
    if isinstance(value, str) and (value.startswith(("/", ".", "~")) or os.path.exists(value)):
        return Path(value).resolve().name
    return value


def write_log(directory: str | Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write log.jsonl anew, as a run does when it begins or goes on."""
    atomic_write_text(Path(directory, LOG_NAME), "".join(log_line(entry) for entry in entries))


def log_line(entry: Mapping[str, Any]) -> str:
    """Return an entry as a line of log.jsonl; a number that is not finite becomes null."""
    finite = {k: None if isinstance(v, float) and not _is_finite(v) else v for k, v in entry.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def _is_finite(value: float) -> bool:
    return value - value == 0.0


def read_log(directory: str | Path) -> list[dict[str, Any]]:
    """Return the entries of log.jsonl, oldest first; a last line that was cut while it was written is left out.

    Raises:
        PerpoError: Another line is damaged.
    """
    path = Path(directory, LOG_NAME)
    if not path.is_file():
        return []
    try:
        *lines, last = path.read_text().split("\n")
        del last  # empty, or a line that has no end yet
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise PerpoError(f"{path} is damaged: {error}", _DAMAGED) from error


ADAPTER_WEIGHTS = "adapter_model.safetensors"
