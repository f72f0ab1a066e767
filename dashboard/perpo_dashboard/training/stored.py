"""Read what trainings left behind, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from perpo.records.training_record import LOG_NAME, TRAINING_FILE
from perpo_dashboard.shared.settings import settings
from perpo_dashboard.shared.stored import LOOK_EVERY_S, Stamp, stamp
from perpo_dashboard.training import candidates
from perpo_dashboard.training.candidates import BestOf, Preferences
from perpo_dashboard.training.trainings import Training, read_training


def training_folders() -> list[Path]:
    """Return the folders that hold a training.json, by name."""
    return [Path(path).parent for path in _training_files(str(settings().results))]


def training(folder: Path) -> Training:
    """Return a training's record and log, as they are now.

    Raises:
        PerpoError: They cannot be read.
    """
    return _training(stamp(folder / TRAINING_FILE), stamp(folder / LOG_NAME), folder)


def preferences(file: Path, sha256: str) -> Preferences:
    """Return the preference data of a training.

    Raises:
        PerpoError: They are not what was trained on, or no preference data.
    """
    return _preferences(stamp(file), file, sha256)


def best_of(file: Path, sha256: str) -> BestOf:
    """Return what best-of-N would give on them.

    Raises:
        PerpoError: As for `preferences`.
    """
    return _best_of(stamp(file), file, sha256)


def probe(file: Path) -> dict[int, list[dict[str, Any]]]:
    """Return the rows of a probe.parquet by the number of their record.

    Raises:
        PerpoError: It cannot be read.
    """
    return _probe(stamp(file), file)


@st.cache_resource(ttl=LOOK_EVERY_S, max_entries=4, show_spinner=False)
def _training_files(root: str) -> tuple[str, ...]:
    files = sorted(Path(root).rglob(TRAINING_FILE))
    return tuple(str(file) for file in files if not any(p.startswith(".") for p in file.relative_to(root).parts))


@st.cache_resource(max_entries=64, show_spinner=False)
def _training(record: Stamp, log: Stamp, folder: Path) -> Training:
    return read_training(folder)


@st.cache_resource(max_entries=8, show_spinner="Reading preference data")
def _preferences(stamped: Stamp, file: Path, sha256: str) -> Preferences:
    return candidates.read_lists(file, sha256)


@st.cache_resource(max_entries=32, show_spinner=False)
def _best_of(stamped: Stamp, file: Path, sha256: str) -> BestOf:
    return candidates.best_of(preferences(file, sha256))


@st.cache_resource(max_entries=16, show_spinner=False)
def _probe(stamped: Stamp, file: Path) -> dict[int, list[dict[str, Any]]]:
    return candidates.read_probe(file)
