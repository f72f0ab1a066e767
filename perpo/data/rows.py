"""Rows of what people have: JSON, CSV, Parquet, or a Hugging Face data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.common.files import disk_error
from perpo.common.hints import did_you_mean
from perpo.data.text_rows import SEPARATORS, text_rows
from perpo.errors import PerpoError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Row = dict[str, Any]

FILE_SUFFIXES = (".json", ".jsonl", ".parquet", *SEPARATORS)

_BATCH_ROWS = 16  # scans of 5 MB are images too


def read_rows(path: str | Path) -> Iterator[Row]:
    """Return the rows of a file: Parquet, CSV or TSV by its name, else a JSON list or one JSON object per line.

    Raises:
        PerpoError: No such file, or it can't be read as such (with the number of the line or record).
    """
    path = Path(path)
    if not path.is_file():
        problem = "a folder" if path.is_dir() else "no such file"
        raise PerpoError(f"expected a data file at {path}, found {problem}", "check the path")
    if path.suffix == ".parquet":
        return _parquet_rows(open_parquet(path), path)
    return text_rows(path)


def read_dataset(name: str) -> Iterator[Row]:
    """Return the rows of a Hugging Face data set, with images as they are stored (`{"bytes", "path"}`).

    Args:
        name: A hub id, a folder that `load_dataset` reads or `save_to_disk` wrote, each
            optionally followed by `:split`. Without a split the only one is taken, or `train`.

    Raises:
        PerpoError: It can't be loaded, or has no such split.
    """
    import datasets

    source, _, split = name.partition(":")
    saved = any(Path(source, marker).is_file() for marker in ("state.json", "dataset_dict.json"))
    try:
        loaded = datasets.load_from_disk(source) if saved else datasets.load_dataset(source)
    except Exception as error:
        text = " ".join(str(error.__cause__ or error).split())
        raise disk_error(error) or PerpoError(
            f"the data set '{source}' cannot be loaded: {text}",
            "give a file, a folder or the id of a data set on the hub",
        ) from error
    data = _one_split(loaded, source, split) if isinstance(loaded, datasets.DatasetDict) else loaded
    # As Arrow, nothing is decoded: images stay as they are stored, also those in lists.
    batches = data.with_format("arrow").iter(batch_size=_BATCH_ROWS)
    return (row for batch in batches for row in batch.to_pylist())


def open_parquet(path: Path) -> pq.ParquetFile:
    """Return a Parquet file, opened.

    Raises:
        PerpoError: It is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise PerpoError(f"{path} is not a Parquet file: {error}", "check that it is complete") from error


def parquet_batches(file: pq.ParquetFile, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield a Parquet file's rows in their order, at most 16 in memory at once: they may hold images.

    Args:
        file: The file.
        columns: The columns to read; all by default.
    """
    wanted = None if columns is None else list(columns)
    for group in range(file.num_row_groups):  # across groups, Arrow fills a batch with rows of several
        yield from file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=wanted)


def _one_split(splits: Any, source: str, split: str) -> Any:
    wanted = split or (next(iter(splits)) if len(splits) == 1 else "train")
    if wanted not in splits:
        hint = f"{did_you_mean(wanted, splits)} (write {source}:SPLIT)"
        raise PerpoError(f"the data set '{source}' has no split '{wanted}'", hint)
    return splits[wanted]


def _parquet_rows(file: pq.ParquetFile, path: Path) -> Iterator[Row]:
    for batch in parquet_batches(file):
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError as error:
            raise PerpoError(f"{path} holds text that is not UTF-8: {error}", "write it again") from error
        yield from rows
