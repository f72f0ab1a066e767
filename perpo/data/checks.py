"""A file's images, decoded once; digests of files and folders; where images lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from perpo.data.images import require_images
from perpo.data.preferences import Question
from perpo.errors import PerpoError


def image_root_of(data: str | Path) -> Path:
    """Return the folder that image paths start from by default: that of the data file, or else the current one."""
    return Path(data).parent if Path(data).is_file() else Path()


def check_images(
    records: Iterable[Question],
    image_root: str | Path,
    refused: Callable[[tuple[int, int]], str | None] = lambda size: None,
) -> None:
    """Decode every image once, in threads.

    Args:
        records: What names them.
        image_root: The folder that their paths start from.
        refused: As for `perpo.data.images.image_problems`.

    Raises:
        PerpoError: Some are missing, damaged, truncated, or of a shape that is refused; all are counted and
            ten are named.
    """
    files = {record.image_path: Path(image_root, record.image_path) for record in records}
    hint = f"paths are relative to the image root '{image_root}'"
    require_images(files, hint, refused)


def data_sha256(path: str | Path) -> str:
    """Return SHA-256 (hex) of a file, or of a folder's file names and contents, whichever of its splits is named.

    Raises:
        PerpoError: There is neither.
    """
    named, path = str(path), Path(path)
    if not path.exists():
        path = Path(named.partition(":")[0])
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        source, _, split = named.partition(":")
        load = f"load_dataset('{source}', split='{split or 'train'}').to_parquet('data.parquet')"
        hint = f'check the path. To save a data set of the hub as a file: python -c "from datasets import *; {load}"'
        raise PerpoError(f"there is no data at {named}", hint)
    digest = hashlib.sha256()
    for part in sorted(part for part in path.rglob("*") if part.is_file()):
        digest.update(f"{part.relative_to(path).as_posix()}\0{data_sha256(part)}\n".encode())
    return digest.hexdigest()
