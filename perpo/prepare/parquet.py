"""Write benchmark rows as Parquet: one schema per kind, a few images in memory at a time, whole files or none."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perpo.common.files import check_writable, disk_errors, make_folder
from perpo.common.progress import progress
from perpo.data.images import as_stored, require_images
from perpo.data.rows import Row
from perpo.errors import PerpoError

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["grounding", "yesno", "pages"]

METADATA_KEY = b"perpo"
"""Key of the Parquet schema's metadata: JSON with what the rows are and how they were made."""

_IMAGE = "image"
_COLUMNS: dict[str, dict[str, str]] = {
    "grounding": {
        "question_id": "text",
        "image": _IMAGE,
        "question": "text",
        "answer": "texts",
        "bbox": "numbers",
        "iscrowd": "int",
        "file_name": "text",
        "image_id": "int",
        "ref_id": "int",
        "category_id": "int",
    },
    "yesno": {
        "id": "text",
        "question_id": "text",
        "question": "text",
        "answer": "text",
        "image_source": "text",
        "image": _IMAGE,
        "category": "text",
    },
    "pages": {
        "question_id": "text",
        "image": _IMAGE,
        "question": "text",
        "answer": "text",
        "language": "text",
        "layout": "text",
        "file_name": "text",
    },
}
# What a row group holds at most: 32 MiB of images keeps the writer's and every reader's memory small.
_GROUP_ROWS = 512
_GROUP_BYTES = 32 * 2**20
_SHOWN = 10
# Where rows come from whose boxes and answers are about COCO's pictures as their pixels are stored.
_COCO_SOURCES = ("refer", "hub", "pope")


@dataclass(frozen=True)
class RowFile:
    """A Parquet file that is to be written.

    Attributes:
        path: Where; see `COLUMNS` of its kind for the columns.
        kind: grounding, yesno or pages.
        source: Where the rows come from, without paths, such as "refer:unc".
        split: Which part of it.
        command: What would repeat it, without paths.
        counts: How many there are, by name, `rows` and `images` among them.
        verdict: How the counts compare with the known ones; "" where none are known.
        more: What else the metadata say.
    """

    path: Path
    kind: Kind
    source: str
    split: str
    command: str
    counts: dict[str, int]
    verdict: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """Return what is kept in the Parquet file under `METADATA_KEY`."""
        said = {"kind": self.kind, "source": self.source, "split": self.split, "command": self.command}
        return {**said, "orientation": _orientation(self.source), "counts": self.counts, **self.more}


@dataclass(frozen=True)
class Written:
    """A file that was written, and the SHA-256 (hex) of its bytes."""

    file: RowFile
    sha256: str


def schema(kind: Kind) -> pa.Schema:
    """Return the columns of a kind of rows; the image is {bytes, path}, as the hub stores images."""
    import pyarrow as pa

    types = {
        "text": pa.string(),
        "texts": pa.list_(pa.string()),
        "numbers": pa.list_(pa.float64()),
        "int": pa.int64(),
        _IMAGE: pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    }
    return pa.schema([(name, types[what]) for name, what in _COLUMNS[kind].items()])


def file_metadata(path: Path) -> dict[str, Any]:
    """Return what perpo-data wrote about a file's rows; nothing of a file that it did not write, or that can't be
    read.
    """
    import pyarrow.parquet as pq

    try:
        written = json.loads((pq.read_schema(path).metadata or {}).get(METADATA_KEY, b"{}"))
    except (OSError, ValueError):  # reading the rows says what is wrong with the file
        return {}
    return written if isinstance(written, dict) else {}


def shows_stored(path: Path) -> bool:
    """Return whether a file's rows speak of pictures as their pixels are stored: those of COCO, whose tools turn
    none.
    """
    said = file_metadata(path)
    return said.get("orientation", _orientation(str(said.get("source")))) == "stored"


def _orientation(source: str) -> str:
    return "stored" if source.partition(":")[0] in _COCO_SOURCES else "upright"


def write_rows(file: RowFile, rows: Iterable[Row]) -> Written:
    """Write rows as they come, in groups of at most 32 MiB of images or 512 rows.

    The data go to a hidden file in the same folder, which gets the real name when it is whole and on
    the disk: whatever happens in between, there is the old file or the new one.

    Args:
        file: What to write; an existing file is replaced (`check_outputs` refuses that).
        rows: As many as `file.counts` says, with the columns of the kind.

    Raises:
        PerpoError: The rows are not as many as announced, or the disk does not take them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = schema(file.kind)
    metadata = {METADATA_KEY: json.dumps(file.metadata(), ensure_ascii=False, sort_keys=True).encode()}
    total, done = file.counts["rows"], 0
    with whole_file(file.path) as part, progress(total, file.path.name) as advance:
        # Rows about one image share it through the dictionary of their group.
        with pq.ParquetWriter(part, columns.with_metadata(metadata), compression="zstd") as writer:
            for group in _groups(rows):
                writer.write_table(pa.Table.from_pylist(group, schema=columns))
                done += len(group)
                advance(len(group))
        if done != total:
            raise PerpoError(
                f"{file.path.name} should have {total} rows, but {done} were read",
                "check that no file was changed, and run the command again",
            )
    with file.path.open("rb") as written:
        return Written(file, hashlib.file_digest(written, "sha256").hexdigest())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which becomes `path` if the block ends well and vanishes if not.

    Raises:
        PerpoError: The disk does not take it (exit code 3).
    """
    _say_leftovers(path)
    part: Path | None = None
    try:
        with disk_errors(path):
            make_folder(path.parent)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
            part = Path(name)
            os.close(descriptor)
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            mask = os.umask(0)  # it can only be read by setting it
            os.umask(mask)
            part.chmod(0o666 & ~mask)  # mkstemp gives 0600, which other users can't read
            part.replace(path)
    except OSError as error:
        raise PerpoError(f"{path} could not be written: {error}", "check the disk", exit_code=3) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def check_outputs(paths: Sequence[Path], overwrite: bool) -> None:
    """Refuse to write where it can't be done, or where something is.

    Raises:
        PerpoError: A folder cannot be written, or a file exists and may not be replaced.
    """
    for folder in dict.fromkeys(path.parent for path in paths):
        check_writable(folder)
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        names = ", ".join(str(path) for path in existing[:_SHOWN])
        raise PerpoError(
            f"{len(existing)} of {len(paths)} files already exist: {names}", "give --overwrite, or another --output"
        )


def check_image_files(paths: Iterable[Path], hint: str) -> None:
    """Decode every image once to its last byte, before anything is written.

    Raises:
        PerpoError: Some are missing, damaged or cut: all are counted and ten are named.
    """
    files = {str(path): path for path in paths}
    with progress(len(files), "checking images") as advance:
        require_images(files, hint, advance=advance)


def image_cell(path: Path, *, link: bool = False, stored: bool = False) -> dict[str, Any]:
    """Return an image file as a cell: its bytes and its name, or only its absolute path.

    Args:
        path: The file.
        link: Whether only the path is kept.
        stored: Whether the picture is to be seen as its pixels are stored, not upright.
    """
    if link:
        return {"bytes": None, "path": str(path.absolute())}
    try:
        unturned = as_stored(path) if stored else None
        return {"bytes": path.read_bytes() if unturned is None else unturned, "path": path.name}
    except OSError as error:
        raise PerpoError(
            f"the image {path} cannot be read: {error}", "it could be read a moment ago; run the command again"
        ) from error


def say(text: str) -> None:
    """Print a line for the user that is no result, on stderr."""
    print(f"perpo-data: {text}", file=sys.stderr, flush=True)


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row["image"]["bytes"] or b"")
        if len(group) == _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _say_leftovers(path: Path) -> None:
    # Another process may be writing one of them, so that they are named and not removed.
    for part in sorted(path.parent.glob(f".{path.name}.*.part")):
        say(f"{part} was left by a run that was killed, or is being written now; delete it if no run is writing it")
