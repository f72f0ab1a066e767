"""Read what lies in the results folder, once, and keep it until the file changes.

What is kept is keyed on a file's path, time and size, and bounded. It is shared by all who look, never copied, and
must not be changed. Tables are read by column, and a column is in the order of the sample keys.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import streamlit as st
from numpy.typing import NDArray

from perpo.benchmarks.declared import infos
from perpo.errors import PerpoError
from perpo.records.store import SAMPLES_FILE, Run, Unreadable, oldest_first, read_run, read_samples, run_files
from perpo.results.regression.report import Report, compare_runs
from perpo.results.regression.rows import THRESHOLD
from perpo.results.samples import Scores, read_scores
from perpo_dashboard.shared import outcomes
from perpo_dashboard.shared.outcomes import Pair
from perpo_dashboard.shared.settings import settings

Stamp = tuple[str, int, int]
"""A file's path, time of the last change in nanoseconds, and size; -1 and -1 where it is missing."""

LOOK_EVERY_S = 3.0


def runs() -> list[Run]:
    """Return the runs that can be read, the oldest first."""
    return _runs(_listing(str(settings().results)))[0]


def unreadable() -> list[Unreadable]:
    """Return those that cannot be read, each with its reason."""
    return _runs(_listing(str(settings().results)))[1]


def measured() -> list[Run]:
    """Return the runs that have samples, the oldest first."""
    return [run for run in runs() if run.record.source == "measured" and run.record.samples is not None]


def stamp(path: Path) -> Stamp:
    """Return what tells whether a file is still the one that was read."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: no path at all
        return str(path), -1, -1
    return str(path), status.st_mtime_ns, status.st_size


def scores(run: Run) -> Scores:
    """Return the scores of a run's samples, in the order of their keys.

    Raises:
        PerpoError: The samples are missing or damaged.
    """
    file = stamp(run.path / SAMPLES_FILE)
    try:
        return _scores(file, run.path)
    except PerpoError as error:
        _damaged()[run.path] = file, error.message
        raise


def damaged(held: Sequence[Run]) -> list[str]:
    """Return why scores could not be read when somebody asked for them, of those runs whose samples are still as they
    were.
    """
    damages = [(run, _damaged().get(run.path)) for run in held]
    return [damage[1] for run, damage in damages if damage and damage[0] == stamp(run.path / SAMPLES_FILE)]


def column(run: Run, name: str) -> pa.Array:
    """Return a column of a run's samples (see `perpo.records.run_record.SAMPLE_COLUMNS`), in the order of their keys.

    Raises:
        PerpoError: The samples are missing or damaged.
    """
    return _column(stamp(run.path / SAMPLES_FILE), run.path, name)


def sample(run: Run, place: int, names: tuple[str, ...]) -> dict[str, Any]:
    """Return some columns of the sample at `place` in the order of the keys."""
    return rows(run, [place], names).to_pylist()[0]


def rows(run: Run, places: Sequence[int] | NDArray[np.intp], names: tuple[str, ...]) -> pa.Table:
    """Return some columns of a few samples, by their places in the order of the keys; columns are read but not sorted.

    Raises:
        PerpoError: The samples are missing or damaged.
    """
    file = stamp(run.path / SAMPLES_FILE)
    return _table(file, run.path, names).take(_order(file, run.path).take(pa.array(places)))


def pair(a: Run, b: Run) -> Pair:
    """Return two runs side by side, on the samples that both have.

    Raises:
        PerpoError: The samples of one are missing or damaged.
    """
    return _pair(stamp(a.path / SAMPLES_FILE), stamp(b.path / SAMPLES_FILE), a, b)


def paired_column(a: Run, b: Run, of: int, name: str) -> pa.Array:
    """Return a column of A (`of` 0) or B (1), on the samples that both have, in the order of `pair`."""
    both, values = pair(a, b), column((a, b)[of], name)
    return values if len(values) == len(both.keys) else values.take(pa.array(both.places[of]))


def prepare() -> None:
    """Read what the pages of two runs show unasked, so that the first visitor waits for less."""
    if measured_runs := measured():
        with suppress(PerpoError):  # the page says it
            pair(*outcomes.default_pair(measured_runs))


def difference(a: Run, b: Run, common: bool, threshold: float = THRESHOLD) -> Report:
    """Return the regression report of two runs, A as the baseline.

    Args:
        a: The baseline.
        b: The candidate.
        common: Whether what both have is compared, rather than nothing where they differ.
        threshold: Points (0 to 100) below which a difference does not matter.

    Raises:
        PerpoError: They cannot be compared.
    """
    return _difference(stamp(a.path / SAMPLES_FILE), stamp(b.path / SAMPLES_FILE), common, threshold, a, b)


@st.cache_resource(ttl=LOOK_EVERY_S, max_entries=4, show_spinner=False)
def _listing(root: str) -> tuple[Stamp, ...]:
    return tuple(stamp(file) for file in run_files(Path(root)))


@st.cache_resource(max_entries=4, show_spinner=False)
def _runs(listing: tuple[Stamp, ...]) -> tuple[list[Run], list[Unreadable]]:
    readable: list[Run] = []
    broken: list[Unreadable] = []
    for each in listing:
        run_or_reason = _run(each)
        (readable if isinstance(run_or_reason, Run) else broken).append(run_or_reason)  # type: ignore[arg-type]
    return oldest_first(readable), broken


@st.cache_resource(max_entries=5000, show_spinner=False)
def _run(file: Stamp) -> Run | Unreadable:
    try:
        return read_run(Path(file[0]))
    except (PerpoError, OSError) as error:
        return Unreadable(Path(file[0]), error.message if isinstance(error, PerpoError) else str(error))


@st.cache_resource(max_entries=8, show_spinner=False)
def _scores(file: Stamp, folder: Path) -> Scores:
    return read_scores(read_run(folder))


@st.cache_resource(show_spinner=False)
def _damaged() -> dict[Path, tuple[Stamp, str]]:
    return {}


@st.cache_resource(max_entries=8, show_spinner=False)
def _pair(a: Stamp, b: Stamp, _a: Run, _b: Run) -> Pair:
    names = outcomes.benchmarks_of(_b.record) | outcomes.benchmarks_of(_a.record)
    return outcomes.pair(scores(_a), scores(_b), names, infos([*_a.record.tasks, *_b.record.tasks]))


@st.cache_resource(max_entries=16, show_spinner=False)
def _difference(a: Stamp, b: Stamp, common: bool, threshold: float, _a: Run, _b: Run) -> Report:
    return compare_runs(_a, _b, common=common, thresholds={"": threshold}, read=scores)


@st.cache_resource(max_entries=16, show_spinner=False)
def _checked(file: Stamp, folder: Path) -> Path:
    """The samples' file, which is the one that the record describes; that costs as much as to read it."""
    run = read_run(folder)
    run.samples([])
    return Path(file[0])


@st.cache_resource(max_entries=16, show_spinner=False)
def _order(file: Stamp, folder: Path) -> pa.Array:
    import pyarrow.compute as pc

    return pc.sort_indices(_read(file, folder, "sample_key"))


def _read(file: Stamp, folder: Path, name: str) -> pa.Array:
    return read_samples(_checked(file, folder), [name])[name].combine_chunks()


@st.cache_resource(max_entries=8, show_spinner=False)
def _table(file: Stamp, folder: Path, names: tuple[str, ...]) -> pa.Table:
    return read_run(folder).samples(names).combine_chunks()


@st.cache_resource(max_entries=32, show_spinner=False)
def _column(file: Stamp, folder: Path, name: str) -> pa.Array:
    return _read(file, folder, name).take(_order(file, folder))
