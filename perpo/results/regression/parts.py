"""Choose the rows of a regression report: a run's tasks, and the averages of those that belong together. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perpo.records.run_record import GroupResult
from perpo.records.store import Run


@dataclass(frozen=True)
class ReportPart:
    """Some tasks of one benchmark that become a row of the report."""

    name: str
    group: str
    benchmark: str
    tasks: list[str]


def parts_of(run: Run, present: set[str]) -> list[ReportPart]:
    """Return the tasks, and behind those of each group their average."""
    parts = []
    for group in run.record.groups:
        tasks = [task for task in group.tasks if task in present]
        parts += [ReportPart(task, group.name, group.benchmark, [task]) for task in tasks]
        if len(tasks) > 1:
            parts.append(ReportPart(_average_name(group, tasks), group.name, group.benchmark, tasks))
    return parts


def _average_name(group: GroupResult, tasks: Sequence[str]) -> str:
    return group.name if group.name not in tasks else f"{group.name} (average)"
