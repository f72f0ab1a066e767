"""Notes and flags on samples, kept beside the records. No Streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perpo_dashboard.shared import json_lines

NOTES_FILE = "notes.jsonl"


@dataclass(frozen=True)
class Note:
    """A note on a sample, to remember it by: a flag, some words, or both."""

    flagged: bool
    text: str


def read_notes(folder: Path) -> tuple[dict[str, Note], int]:
    """Return the last note on each sample by its key, and how many lines of the file hold none; cleared ones are left
    out.

    Raises:
        PerpoError: The file cannot be read.
    """
    rows, damaged = json_lines.read(folder / NOTES_FILE)
    notes: dict[str, Note] = {}
    for row in rows:
        if not _is_note(row):
            damaged += 1
            continue
        notes[row["sample_key"]] = Note(row["flagged"], row["note"])
    return {key: note for key, note in notes.items() if note.flagged or note.text}, damaged


def write_note(folder: Path, key: str, note: Note, *, task: str, runs: Sequence[str]) -> None:
    """Add what is to be remembered of a sample; when it returns, it is on the disk.

    Args:
        folder: Where the file is or will be.
        key: The sample's key.
        note: The note; an empty one clears what was.
        task: The sample's task.
        runs: Ids of the runs that were looked at.

    Raises:
        PerpoError: The file cannot be written.
    """
    what = {"sample_key": key, "flagged": note.flagged, "note": note.text.strip()}
    when = datetime.now(UTC).isoformat(timespec="seconds")
    json_lines.append(folder / NOTES_FILE, what | {"task": task, "runs": list(runs), "utc": when})


def _is_note(row: dict[str, Any]) -> bool:
    kinds = {"sample_key": str, "flagged": bool, "note": str}
    return all(isinstance(row.get(name), kind) for name, kind in kinds.items())
