"""One stage of an experiment: whether it is done, what that was made of, and doing it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpo.common.files import atomic_write_text
from perpo.errors import PerpoError

_DONE = "stage.json"
_BEGUN = "stage.begun"

SPEAKER = "perpo-run: "
"""The beginning of each line about a run's progress."""


@dataclass(frozen=True)
class Stage:
    """Work in a folder of its own, which is not done again.

    Attributes:
        kind: "data", "sample", "train" or "evaluate".
        output: The run's folder.
        name: The stage's folder in it, such as "perpo/round-1/sample".
        key: Says what the result depends on, by name, as JSON has it; asked when the stages before are done.
        work: Does it; what it returns is kept.
    """

    kind: str
    output: Path
    name: str
    key: Callable[[], dict[str, Any]]
    work: Callable[[], dict[str, Any]]

    @property
    def folder(self) -> Path:
        """Return where it works."""
        return self.output / self.name

    def done(self) -> dict[str, Any] | None:
        """Return what is kept of it: its kind, key and seconds, and what the work returned; None while it is not done.

        The seconds are those of all attempts; one that was killed counts up to the last file it wrote.
        """
        file = self.folder / _DONE
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def changes(self) -> list[str]:
        """Return names of what has another value than when the stage was done; none if it still has to be done."""
        done = self.done()
        if done is None:
            return []
        before, now = done.get("key", {}), self.key()
        return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]

    def check(self) -> None:
        """Refuse to take it for done if it was made of something else.

        Raises:
            PerpoError: It was.
        """
        if changes := self.changes():
            shown = ", ".join(changes[:4]) + (", ..." if len(changes) > 4 else "")
            first = self.name.partition("/")[0]
            raise PerpoError(
                f"{self.folder} was made with another {shown} than would be used now",
                f"give another --output_dir, or delete {self.folder if self.kind == 'data' else self.output / first}",
            )

    def do(self) -> None:
        """Do it, unless it is done.

        Raises:
            PerpoError: It was done with something else; or whatever the work raises.
        """
        self.check()
        if self.done() is not None:
            return
        title = self.name.replace("/", ": ", 1)
        say(f"{title} ...")
        key, spent, began = self.key(), self._spent(), time.monotonic()
        atomic_write_text(self.folder / _BEGUN, f"{spent}\n")
        result = self.work()
        seconds = spent + time.monotonic() - began
        done = {"stage": self.kind, "seconds": round(seconds, 2), "key": key} | result
        atomic_write_text(self.folder / _DONE, json.dumps(done) + "\n")
        (self.folder / _BEGUN).unlink()
        say(f"{title} took {seconds:.1f} s")

    def _spent(self) -> float:
        """Seconds of the attempts that were cut off; each wrote how long those before it took as it began."""
        begun = self.folder / _BEGUN
        if not begun.is_file():
            return 0.0
        last = max(path.stat().st_mtime for path in self.folder.rglob("*"))
        return float(begun.read_text(encoding="utf-8")) + last - begun.stat().st_mtime


def say(text: str) -> None:
    """Print a line about the run's progress, on stderr."""
    print(f"{SPEAKER}{text}", file=sys.stderr, flush=True)


def once(stages: Sequence[Stage]) -> list[Stage]:
    """Return the stages without those that come again, as pages that are both evaluated on and trained on."""
    return list({stage.name: stage for stage in stages}.values())


def first_to_do(plan: Sequence[Stage]) -> Stage | None:
    """Return the first stage that is not done; those before it are checked to be made of what would be used now."""
    for stage in plan:
        if stage.done() is None:
            return stage
        stage.check()
    return None


def seconds_of(done: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return seconds of an experiment's stages by their kind, rounds added up; its data are not only its own."""
    total = {
        kind: sum(stage["seconds"] for stage in done if stage["stage"] == kind)
        for kind in ("sample", "train", "evaluate")
    }
    return {kind: seconds for kind, seconds in total.items() if seconds}
