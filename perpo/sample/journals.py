"""The journals of sampling: one for each process, all of them read by each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from perpo.common.journal import Journal, finished_rows
from perpo.common.processes import Processes

Item = TypeVar("Item")


class SharedJournal:
    """The journal of this process, and what the others wrote.

    The first process writes `path`, the others `path`.1 and so on. They stay when fewer or more processes continue.

    Args:
        path: The first process's journal.
        key: Whatever the answers depend on.
        processes: This process among the others.

    Raises:
        PerpoError: As `perpo.common.journal.Journal`.
    """

    def __init__(self, path: Path, key: str, processes: Processes) -> None:
        self._path, self._key, self._processes = path, key, processes
        self._own = Journal(self._file(processes.rank), key)
        processes.wait()  # all files are there, with their first line

    def all_rows(self, usable: Callable[[dict[str, Any]], bool]) -> dict[Any, dict[str, Any]]:
        """Return the rows of all processes by their `id`.

        Args:
            usable: Whether a row still holds. Of two rows with one id one that does counts: another process may have
                asked a question again whose picture has changed.
        """
        rows: dict[Any, dict[str, Any]] = {}
        for file in [*sorted(self._path.parent.glob(f"{escape(self._path.name)}.*")), self._path]:
            if file == self._path or file.suffix[1:].isdigit():
                written = finished_rows(file, self._key)
                rows |= {key: row for key, row in written.items() if key not in rows or usable(row)}
        return rows

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to this process's journal."""
        self._own.append(rows)

    def share(self, batches: Sequence[Item]) -> list[Item]:
        """Return this process's part of some batches."""
        return list(batches[self._processes.rank :: self._processes.size])

    def _file(self, rank: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{rank}") if rank else self._path

    def __enter__(self) -> SharedJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own.close()
