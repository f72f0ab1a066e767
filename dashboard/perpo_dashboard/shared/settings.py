"""Settings of the dashboard: handed from the program to the pages, which run in the same process."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

_VARIABLE = "PERPO_DASHBOARD"


@dataclass(frozen=True)
class Settings:
    """The places where things lie.

    Attributes:
        results: The folder of the run records and of whatever else is shown.
        media: Folders that pictures may be read from beside it.
    """

    results: Path
    media: tuple[Path, ...] = ()

    def announce(self) -> None:
        """Hand them to the pages."""
        os.environ[_VARIABLE] = json.dumps([str(folder.resolve()) for folder in self.roots])

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders that files may be read from, whatever a record says."""
        return (self.results, *self.media)


def settings() -> Settings:
    """Return what was announced; by default the folder results."""
    results, *media = map(Path, json.loads(os.environ.get(_VARIABLE, '["results"]')))
    return Settings(results.resolve(), tuple(media))
