"""Files that are either the old one or the whole new one; what a disk does not take; where the cache lies."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from perpo.errors import PerpoError

_LONGEST_PATH = 3000  # of the 4096 that a system takes with the folder that a path starts from
_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EFBIG: "let files be larger (ulimit -f)",
    errno.EROFS: "make the disk writable",
    errno.EIO: "check the disk for faults",
}
_OTHER_FOLDER = "give another folder to write to"
_OF_TORCH = ("iostream error", "file write failed")  # which says nothing of why


class NotWritten(PerpoError):
    """A disk took no more. What was written before is whole, and the program's own words say how to go on.

    Args:
        path: The file, or the folder that it was to be in; None where that is not known.
        reason: What the system said.
        remedy: What to do about it.
    """

    def __init__(self, path: str | Path | None, reason: str, remedy: str) -> None:
        left = "" if path is None else _room(Path(path))
        # A broken disk says the same of what is read, which a library may have been about.
        what = "read or written" if os.strerror(errno.EIO) in reason else "written"
        super().__init__(f"{path or 'a file'} could not be {what}: {reason}{left}", remedy, exit_code=3)


def disk_error(error: BaseException | None, path: str | Path | None = None) -> NotWritten | None:
    """Return what an error says of a disk that is full, read-only or broken; None where it, and what led to it, says
    nothing.

    Args:
        error: Any; only Python's own have a number for it, of others the text is looked at.
        path: What was being written, where that is known.
    """
    while error is not None:
        if isinstance(error, NotWritten):
            return error
        if (remedy := _remedy(error)) is not None:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
            return NotWritten(path or getattr(error, "filename", None), reason, remedy)
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Within it, what the disk of a file does not take is said in a sentence; other errors pass.

    Raises:
        NotWritten: The disk is full, over a quota or a limit, read-only or broken.
    """
    try:
        yield
    except OSError as error:
        not_written = disk_error(error, path)
        if not_written is None:
            raise
        raise not_written from error


def _remedy(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno is not None:
        return _REMEDIES.get(error.errno)
    text = str(error)
    for code, remedy in _REMEDIES.items():
        if os.strerror(code) in text:
            return remedy
    return _REMEDIES[errno.ENOSPC] if any(words in text for words in _OF_TORCH) else None


def _room(path: Path) -> str:
    """How much a disk has left, in brackets; nothing where that can't be told."""
    with suppress(OSError):
        place = path.absolute()
        while not place.exists():
            place = place.parent
        return f" ({shutil.disk_usage(place).free / 2**20:.1f} MiB left)"
    return ""


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash at any moment leaves the old file or the new one.

    The folder is made if need be. The data go to a temporary file in the same folder, are
    flushed to the disk and then renamed.

    Raises:
        PerpoError: The folder cannot be made, or the disk does not take the data.
    """
    path = Path(path)
    with disk_errors(path):
        make_folder(path.parent)
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
    """Write `text` in UTF-8 with `atomic_write_bytes`."""
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


def make_folder(folder: str | Path) -> None:
    """Make a folder, and those above it, where it is not there yet.

    Raises:
        NotWritten: The disk is full, over a quota, read-only or broken.
        PerpoError: The system makes no folder of this name there.
    """
    try:
        with disk_errors(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PerpoError(f"the folder {folder} cannot be made: {error.strerror}", _OTHER_FOLDER) from error


def check_writable(folder: str | Path) -> None:
    """Say now, not after hours of work, if nothing can be written in a folder; makes nothing.

    Raises:
        PerpoError: The folder, or the nearest one above it that exists, cannot be written.
    """
    place = Path(folder).absolute()
    while not os.path.exists(place):
        place = place.parent
    if not place.is_dir():
        raise PerpoError(f"{folder} cannot be written: {place} is no folder", _OTHER_FOLDER)
    if not os.access(place, os.W_OK | os.X_OK):
        raise PerpoError(f"{folder} cannot be written: this user may not write to {place}", _OTHER_FOLDER)


def check_path(path: str) -> None:
    """Refuse a text that can be no file's path: file systems take 255 bytes for each part, and no NUL.

    Raises:
        PerpoError: It is too long, or holds a NUL character.
    """
    longest = max(map(len, map(os.fsencode, path.split("/"))))
    if longest > 255 or len(path) > _LONGEST_PATH or "\0" in path:
        raise PerpoError(
            f"{path!r:.80} cannot be the path of a file: it is too long or holds a NUL character",
            "give the path of a file",
        )


def cache_folder() -> Path:
    """Return where perpo keeps what it can make or fetch again: $XDG_CACHE_HOME/perpo, by default ~/.cache/perpo."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perpo"


def _umask() -> int:
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    return mask
