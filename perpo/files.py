"""Files that are either the old one or the whole new one; whether they can be written; where the cache lies."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from perpo.errors import PerpoError

_LONGEST_PATH = 3000  # of the 4096 that a system takes with the folder that a path starts from


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash at any moment leaves the old file or the new one.

    The folder is made if need be. The data go to a temporary file in the same folder, are
    flushed to the disk and then renamed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp gives 0600, which other users can't read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def atomic_write_text(path: str | Path, text: str) -> None:
    """`atomic_write_bytes` of `text` in UTF-8."""
    atomic_write_bytes(path, text.encode())


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(new: Path, folder: Path) -> None:
    """Put a folder that was written beside it in a folder's place; what was there before is deleted.

    A crash leaves the old one or the new one whole; between two renames the old one is called
    `.<name>.old`, and `recover_folder` brings it back.
    """
    for path in new.rglob("*"):
        flush(path)
    old = folder.with_name(f".{folder.name}.old")
    recover_folder(folder)
    if folder.exists():
        os.rename(folder, old)
    os.rename(new, folder)
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Bring back what a crash within `replace_folder` left under another name, or delete it."""
    old = folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():
        os.rename(old, folder)
    shutil.rmtree(old, ignore_errors=True)


def check_writable(folder: str | Path) -> None:
    """Say now, not after hours of work, if nothing can be written in a folder; makes nothing.

    Raises:
        PerpoError: The folder, or the nearest one above it that exists, cannot be written.
    """
    place = Path(folder).absolute()
    while not os.path.exists(place):
        place = place.parent
    if not place.is_dir():
        raise PerpoError(f"{folder} cannot be written: {place} is no folder", "give another folder to write to")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PerpoError(f"{folder} cannot be written: {place} may not be written", "give another folder to write to")


def check_path(path: str) -> None:
    """Refuse a text that can be no file's path: file systems take 255 bytes for each part, and no NUL.

    Raises:
        PerpoError: It is too long, or holds a NUL character.
    """
    longest = max(map(len, map(os.fsencode, path.split("/"))))
    if longest > 255 or len(path) > _LONGEST_PATH or "\0" in path:
        raise PerpoError(f"{path!r:.80} is no path that a file could have", "give the path of a file")


def cache_folder() -> Path:
    """Where perpo keeps what it can make or fetch again: $XDG_CACHE_HOME/perpo, by default ~/.cache/perpo."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perpo"


def _umask() -> int:
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    return mask
