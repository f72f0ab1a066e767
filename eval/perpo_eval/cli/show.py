"""Print what a run has to say when it ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from perpo.common.arguments import next_command
from perpo_eval.arguments import JudgeArguments, JudgeFlags

if TYPE_CHECKING:
    from perpo.records.run_record import RunRecord, TaskResult


def show(path: Path, flags: JudgeFlags, *, as_json: bool) -> int:
    """Print a run that was just stored, and say where it lies; the exit code.

    Args:
        path: Its folder.
        flags: The judge that was asked, if one was.
        as_json: Whether run.json is printed instead of the tables.
    """
    from perpo.records.store import read_run
    from perpo.results.run_tables import answer_notes, loop_notes, run_texts

    record = read_run(path).record
    if as_json:
        print((path / "run.json").read_text(encoding="utf-8"), end="")
    else:
        for text in run_texts(record):
            text.show()
    for note in (note for task in record.tasks for note in answer_notes(task, record)):
        print(f"warning: {note.rstrip('.')}; --max_new_tokens sets where, for a task or for all", file=sys.stderr)
    for note in (note for task in record.tasks for note in loop_notes(task)):
        print(
            f"warning: {note.rstrip('.')}; perpo's own engine stops such answers with --stop_on_repetition",
            file=sys.stderr,
        )
    print(f"run record: {path}", file=sys.stderr)
    asked = {each.name: getattr(flags, each.name) for each in fields(JudgeFlags)}
    named = asked | {"judge_model": flags.judge_model or "NAME"}
    again = next_command("perpo-eval", JudgeArguments(run=str(path), output=str(path.parents[1]), **named), "judge")
    if record.status == "awaiting judge":
        print(f"awaiting judge: no scores yet; {again} gives them", file=sys.stderr)
    if record.status not in ("partial", "failed"):
        return 0
    if unanswered := sum(row is None for row in read_run(path).samples(["response"])["response"].to_pylist()):
        total = sum(task.n_scored or 0 for task in record.tasks)
        print(f"error: {record.status}: {unanswered:,} of {total:,} questions have no answer", file=sys.stderr)
        print(f"hint: samples.parquet says why (error); {_asked_again(record)}", file=sys.stderr)
        return 3
    total, missing = _missing(record.tasks)
    print(f"error: partial: {missing:,} of {total:,} judgements are missing, more than one in twenty", file=sys.stderr)
    print(f"hint: samples.parquet says why (error); {again} asks again where a call failed", file=sys.stderr)
    return 3


def _asked_again(record: RunRecord) -> str:
    """What asks again for answers that a run lacks; a run that was scored again asked nobody."""
    if record.imported is not None:
        return "import files that hold them"
    if record.rescored_from is not None:
        return f"the command of {record.rescored_from} asks again for those"
    return "the same command asks again for those"


def _missing(tasks: Sequence[TaskResult]) -> tuple[int, int]:
    """How many samples were to be judged, and of how many the judgement is missing."""
    judged = [task for task in tasks if any(metric.name == "missing" for metric in task.metrics)]
    return sum(task.n_scored or 0 for task in judged), sum(task.n_error or 0 for task in judged)
