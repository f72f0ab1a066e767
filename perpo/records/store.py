"""Write and read run records: `<root>/<model>/<run_id>/run.json` and `samples.parquet`. No torch.

A run is written into a hidden folder beside its place, read back and checked, and only then renamed:
a crash leaves no half a run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from perpo.common.files import disk_errors, make_folder
from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError
from perpo.records.run_json import from_json, to_json
from perpo.records.run_record import RunRecord, SamplesFile
from perpo.records.training_record import ADAPTER_WEIGHTS, TRAINING_FILE

if TYPE_CHECKING:
    import pyarrow as pa

RUN_FILE = "run.json"
SAMPLES_FILE = "samples.parquet"
_LATER = ("layout",)  # columns that older runs do not have


@dataclass(frozen=True)
class Run:
    """A stored run: its record, and where it lies."""

    record: RunRecord
    path: Path

    def samples(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the table of samples, checked against the record.

        Args:
            columns: Which columns to read (all by default); see `perpo.records.run_record.SAMPLE_COLUMNS`.

        Raises:
            PerpoError: The run has no samples, or the file is missing, cut, or not the one that was written.
        """
        import pyarrow as pa

        if self.record.samples is None:
            raise PerpoError(f"{self.path} holds no samples ({self.record.source} numbers only)", "give a measured run")
        file = self.path / self.record.samples.path
        if not file.is_file():
            raise PerpoError(f"{file} is missing", "copy the whole folder of the run, or run the evaluation again")
        if _sha256(file) != self.record.samples.sha256:
            raise PerpoError(
                f"{file} is not the file that {RUN_FILE} describes (its sha256 differs)", "run the evaluation again"
            )
        try:
            return read_samples(file, columns)
        except (pa.ArrowInvalid, OSError) as error:
            raise PerpoError(f"{file} cannot be read: {error}", "run the evaluation again") from error


def read_samples(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table of a file of samples; in one that older versions wrote, what they did not know is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    held = pq.read_schema(file).names
    wanted = list(columns) if columns is not None else [*held, *(name for name in _LATER if name not in held)]
    table = pq.read_table(file, columns=[name for name in wanted if name in held or name not in _LATER])
    for name in wanted:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), pa.string()))
    return table


def new_run_id(name: str, suite: str, when: datetime) -> str:
    """Return a name for a run that sorts by time and that no other run has."""
    return f"{when:%Y%m%dT%H%M%SZ}-{suite}-{slug(name)}-{secrets.token_hex(3)}"


def slug(name: str) -> str:
    """Return `name` as one folder name: what is not a letter, digit, dot, plus or hyphen becomes a hyphen."""
    return re.sub(r"[^A-Za-z0-9.+]+", "-", name).strip("-.") or "model"


def write_run(root: Path, record: RunRecord, samples: pa.Table | None) -> Run:
    """Store a run under `root` and read it back.

    Args:
        root: The results folder.
        record: The record; its `samples` is filled in here.
        samples: One row per sample, columns of `SAMPLE_COLUMNS`; None for a reported record.

    Returns:
        The run as it was read back.

    Raises:
        PerpoError: The folder cannot be written, or holds something else than what was written.
    """
    place = root / slug(record.model.id) / record.run_id
    part = place.with_name(f".{record.run_id}.part")
    try:
        with disk_errors(place):
            make_folder(place.parent)
            part.mkdir()
            if samples is not None:
                record = dataclasses.replace(record, samples=_write_samples(part / SAMPLES_FILE, samples))
            with open(part / RUN_FILE, "w", encoding="utf-8") as file:
                file.write(to_json(record))
                file.flush()
                os.fsync(file.fileno())
        written = read_run(part)
        if written.record != record or (samples is not None and written.samples().num_rows != samples.num_rows):
            raise PerpoError(f"{part} does not hold the data that were written to it", "check the disk", exit_code=3)
        os.rename(part, place)
    except OSError as error:
        raise PerpoError(
            f"the run could not be written to {place}: {error}", "give another --output", exit_code=3
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Run(record, place)


def read_run(path: Path) -> Run:
    """Read a run.

    Args:
        path: The run's folder, or its run.json.

    Raises:
        PerpoError: There is no run, or it cannot be read by this version.
    """
    folder = path.parent if path.name == RUN_FILE else path
    file = folder / RUN_FILE
    if not file.is_file():
        nothing = PerpoError(f"there is no run at {folder} (no {RUN_FILE})", "give the folder that perpo-eval printed")
        raise _something_else(path) or nothing
    return Run(from_json(file.read_bytes(), str(file)), folder)


@dataclass(frozen=True)
class Unreadable:
    """A run.json that cannot be read, and why."""

    path: Path
    reason: str


def find_runs(root: Path) -> tuple[list[Run], list[Unreadable]]:
    """Return all runs below a folder, the oldest first; those that cannot be read are told apart.

    Raises:
        PerpoError: There is no such folder.
    """
    if not root.is_dir():
        raise PerpoError(f"there is no results folder {root}", "give the folder that perpo-eval wrote to")
    runs, unreadable = [], []
    for file in run_files(root):
        try:
            runs.append(read_run(file))
        except PerpoError as error:
            unreadable.append(Unreadable(file, error.message))
    return oldest_first(runs), unreadable


def oldest_first(runs: Iterable[Run]) -> list[Run]:
    """Return runs in the order of their times, whatever zone a record wrote its time in."""
    return sorted(runs, key=lambda run: (run.record.when, run.record.run_id))


def run_files(root: Path) -> list[Path]:
    """Return where the runs below a folder have their run.json, or should have it: one for each folder that holds
    either file.

    What is being written lies in hidden folders and is left out.
    """
    folders = {file.parent for name in (RUN_FILE, SAMPLES_FILE) for file in root.rglob(name)}
    files = sorted(folder / RUN_FILE for folder in folders)
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(root).parts)]


def resolve_run(text: str, root: Path) -> Run:
    """Return the run that somebody means.

    Args:
        text: A run's folder or run.json; a folder with runs below it, which means the newest of them; or the id or
            name of a run below `root` (of several with one name, the newest).
        root: The results folder.

    Raises:
        PerpoError: There is no such run; exit code 3 where a folder holds none that was finished.
    """
    path = Path(text)
    if path.name == RUN_FILE or (path / RUN_FILE).is_file():
        return read_run(path)
    runs = find_runs(root)[0] if root.is_dir() else []
    if matching_runs := [run for run in runs if text in (run.record.run_id, run.record.name)]:
        return matching_runs[-1]
    if not path.is_dir():
        known = sorted({run.record.name for run in runs})
        raise _something_else(path) or PerpoError(
            f"there is no run {text}: it is neither a folder nor the id or name of a run in {root}",
            did_you_mean(text, known) if known else "give the folder that perpo-eval printed",
        )
    runs, unreadable = find_runs(path)
    if unreadable:  # it may be the newest
        raise PerpoError(
            f"{path} holds a run that cannot be read: {unreadable[0].reason}",
            "give the folder of the intended run",
            exit_code=3,
        )
    if not runs:
        unfinished = PerpoError(f"{path} holds no finished run of perpo-eval", "run perpo-eval to its end", exit_code=3)
        raise _something_else(path) or unfinished
    return runs[-1]


def _something_else(path: Path) -> PerpoError | None:
    """What to say of a path at which something else than a run lies: a file, a training, an adapter or a model."""
    if path.is_file():
        hint = "preference records and answers are no run: give the folder that perpo-eval printed, or the run's name"
        return PerpoError(f"{path} is a file, but a run is a folder that holds {RUN_FILE}", hint)
    if (path / ADAPTER_WEIGHTS).is_file():
        what, flags = "an adapter", ["--model", _base_of(path), "--adapter", str(path)]
    elif any(path.glob("*.safetensors")):
        what, flags = "a model", ["--model", str(path)]
    elif (path / TRAINING_FILE).is_file() or any(path.glob("checkpoint-*")):
        return PerpoError(
            f"{path} is the folder of an unfinished training, which has no adapter yet, and not a run of perpo-eval",
            "continue the training with its perpo-train command and --resume_from_checkpoint last, then evaluate "
            "the result with perpo-eval",
        )
    else:
        return None
    return PerpoError(
        f"{path} holds {what}, but no run of perpo-eval",
        f"evaluate it with {shlex.join(['perpo-eval', *flags])} and --suite and --data, then give the folder that is "
        "printed, or the run's name",
    )


def _base_of(adapter: Path) -> str:
    """The model that an adapter was trained on, as far as it says."""
    for name, keys in ((TRAINING_FILE, ("model", "name")), ("adapter_config.json", ("base_model_name_or_path",))):
        with suppress(OSError, ValueError, KeyError, TypeError):
            entry = json.loads((adapter / name).read_bytes())
            for key in keys:
                entry = entry[key]
            if isinstance(entry, str) and entry:
                return entry
    return "MODEL"


def _write_samples(path: Path, samples: pa.Table) -> SamplesFile:
    import pyarrow.parquet as pq

    with open(path, "wb") as file:
        pq.write_table(samples, file)
        file.flush()
        os.fsync(file.fileno())
    return SamplesFile(path.name, _sha256(path), samples.num_rows)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
