"""Names for judges, data sets and averages on a leaderboard, so that two that differ have two names. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256

from perpo.records.run_record import GroupResult, RunRecord


def told_apart(name: str, data: str) -> str:
    """Return a task's name, with the data's mark where another data set has that name."""
    return f"{name}#{data}" if data else name


def judge_names(records: Sequence[RunRecord]) -> list[str]:
    """Return what each run's judge is called: its id, and a digest where judges of one id differ in anything else."""
    identities = [json.dumps(record.judge, sort_keys=True) for record in records]
    id_of = {
        key: str((record.judge or {}).get("id", "not named")) for key, record in zip(identities, records, strict=True)
    }
    names = list(id_of.values())
    return [
        id_of[key] + ("" if names.count(id_of[key]) == 1 else f" {sha256(key.encode()).hexdigest()[:6]}")
        for key in identities
    ]


DataMarks = dict[tuple[str, str], str]
"""By task (or average) and digest of its data: what tells the data apart from others of the same name."""


def data_marks(records: Sequence[RunRecord]) -> DataMarks:
    """Return how data sets that share a name are told apart: by the first six characters of their digest.

    Data whose digest is not known, as of reported numbers, have no mark.
    """
    digests: dict[str, set[str]] = {}
    for record in records:
        for name, digest in data_of(record).items():
            digests.setdefault(name, set()).update([digest] if digest else [])
    return {(name, digest): digest[:6] for name, held in digests.items() if len(held) > 1 for digest in held}


def data_of(record: RunRecord) -> dict[str, str]:
    """Return the digest of the data of each task, and of each average of several; "" where it is not known."""
    known = {task.task: task.data_sha256 or "" for task in record.tasks}
    digests = dict(known)
    for group in record.groups:
        if len(group.tasks) > 1:
            parts = [known.get(task, "") for task in group.tasks]
            digests[average_name(group)] = sha256("\n".join(parts).encode()).hexdigest() if all(parts) else ""
    return digests


def average_name(group: GroupResult) -> str:
    """Return what its column is called: averages over other numbers of tasks do not compare."""
    return f"{group.name} average of {len(group.tasks)}"
