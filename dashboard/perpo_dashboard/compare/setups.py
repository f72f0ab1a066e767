"""In what two runs were set up differently. No Streamlit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from perpo.records.run_record import RunRecord

_OWN = ("run_id", "name", "created_utc", "duration_s", "command", "groups", "samples", "schema_version")
# What came out, not what was set.
_COUNTED = ("metrics", "n_parse_fail", "n_error", "n_truncated", "n_looped", "n_looped_truncated")


def configuration_differences(a: RunRecord, b: RunRecord) -> list[tuple[str, str, str]]:
    """Return the settings that are not the same: name, A's, B's; "" where one has none.

    Args:
        a: A run's record.
        b: Another's.
    """
    ours, theirs = (dict(_flat("", _settings(record))) for record in (a, b))
    names = dict.fromkeys([*ours, *theirs])
    return [(name, *told) for name in names if len(set(told := (ours.get(name, ""), theirs.get(name, "")))) > 1]


def _settings(record: RunRecord) -> dict[str, Any]:
    data = {name: value for name, value in dataclasses.asdict(record).items() if name not in _OWN}
    kept = [{name: value for name, value in task.items() if name not in _COUNTED} for task in data.pop("tasks")]
    return data | {"task": {task.pop("task"): task for task in kept}}


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif value is not None:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
