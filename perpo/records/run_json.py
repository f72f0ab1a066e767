"""The text of run.json: write a run record, and read one of this version or of an earlier one. No torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from perpo.common.times import in_utc
from perpo.errors import PerpoError
from perpo.records.run_record import SCHEMA_VERSION, RunRecord


def to_json(record: RunRecord) -> str:
    """Return the record as the text of a run.json, fields in the order of the class."""
    return json.dumps(dataclasses.asdict(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


# How a record of an earlier version becomes one of the next. Version 3 lets more fields be None. Version 4 knows
# runs that await their judge. Version 5 knows answers that were cut, questions without an answer, and how boxes were
# read. Version 6 knows answers that were imported, tasks that declare their own metrics, and answers that loop.
_FORWARD: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    2: lambda data: data | {"schema_version": 3},
    3: lambda data: data | {"schema_version": 4},
    4: lambda data: data | {"schema_version": 5},
    5: lambda data: data | {"schema_version": 6},
}


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of run.json."""
    return TypeAdapter(RunRecord).json_schema()


def from_json(text: str | bytes, where: str) -> RunRecord:
    """Read a record, refusing what this version does not know.

    Args:
        text: The content of a run.json.
        where: Name of the file, for errors.

    Raises:
        PerpoError: No JSON, a later schema version, a missing or unknown field, or a wrong type.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise PerpoError(f"{where} is not JSON: {error}", _AGAIN) from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int):
        raise PerpoError(
            f"{where} is not a run record: it has no schema_version", "give a folder that perpo-eval wrote"
        )
    while version in _FORWARD:
        data = _FORWARD[version](data)
        version = data["schema_version"]
    if version != SCHEMA_VERSION:
        raise PerpoError(
            f"{where} has schema version {version}; this perpo reads versions {min(_FORWARD)} to {SCHEMA_VERSION}",
            "install a newer perpo to read it" if version > SCHEMA_VERSION else "run the evaluation again",
        )
    try:
        record = TypeAdapter(RunRecord).validate_json(json.dumps(data))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise PerpoError(
            f"{where} is damaged: {field}: {first['msg']} ({error.error_count()} such fields)", _AGAIN
        ) from error
    try:
        in_utc(record.created_utc)
    except ValueError as error:
        raise PerpoError(f"{where} is damaged: created_utc: {error}", _AGAIN) from error
    return record


_AGAIN = "the file was changed or is incomplete: run the evaluation again"
