"""One process at a time: a lock that ends with its process, however that ends. Needs no torch."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet

from perpo.common.files import check_writable, disk_errors, make_folder, replace_folder
from perpo.errors import PerpoError

_NAME = ".lock"
_LOCKED: WeakSet[IO[Any]] = WeakSet()


def _let_go() -> None:
    for file in _LOCKED:
        file.close()


# A forked process would share the lock, and have it still when its parent was killed.
os.register_at_fork(after_in_child=_let_go)


class InUse(PerpoError):
    """Another process has the lock."""


def lock_file(file: IO[Any], sentence: str, hint: str) -> None:
    """Lock an open file until it is closed or the process ends.

    Where the file system has no locks, a warning says so.

    Args:
        file: The file, open for writing.
        sentence: What is wrong if another process has it.
        hint: What to do then.

    Raises:
        InUse: Another process has it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _LOCKED.add(file)
    except BlockingIOError:
        raise InUse(sentence, hint) from None
    except OSError as error:
        print(
            f"warning: {file.name} cannot be locked ({error.strerror}), so another process could use it at the "
            "same time",
            file=sys.stderr,
        )


@contextmanager
def only_process(folder: str | Path, what: str, *, beside: bool = False) -> Iterator[None]:
    """Within it no other process works in a folder, which is made if need be.

    The lock is a file in it that says whose it is, and that goes at the end. One that a killed process left
    locks nothing.

    Args:
        folder: The folder.
        what: What works there, such as "training".
        beside: Whether the lock lies beside the folder, which may not be there yet then.

    Raises:
        PerpoError: Another process works there, or the folder cannot be written.
    """
    folder = Path(folder)
    place = folder.parent if beside else folder
    check_writable(place)
    made = not place.exists()
    make_folder(place)
    path = folder.with_name(f".{folder.name}{_NAME}") if beside else folder / _NAME
    try:
        with _locked(path, folder, what):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    finally:
        if made:
            with suppress(OSError):  # unless something came of it
                place.rmdir()


@contextmanager
def in_turn(path: Path, what: str) -> Iterator[None]:
    """Within it no other process is that is in turn at the same path; whoever comes later waits.

    Where the file system has no locks, nobody waits.

    Args:
        path: A file for the lock, which goes at the end.
        what: What is waited for, such as "another evaluation of the same weights".
    """
    make_folder(path.parent)
    while True:
        with open(path, "a", encoding="utf-8") as file:
            _wait_for(file, what)
            if _is_at(file, path):  # else whose turn it was has deleted it meanwhile
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return


def _wait_for(file: IO[Any], what: str) -> None:
    _LOCKED.add(file)
    with suppress(OSError):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for {what}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)


@contextmanager
def new_folder(output: Path, what: str) -> Iterator[Path]:
    """Give a folder to write to that takes its place, `output`, when all is written; a crash leaves none.

    Args:
        output: Where it will be.
        what: What is done, for the message of a second process.

    Raises:
        PerpoError: The output exists.
        InUse: Another process writes it.
    """
    with only_process(output, what, beside=True):
        if output.exists():
            raise PerpoError(f"{output} exists", "give another --output, or delete it")
        new = output.with_name(f".{output.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        try:
            yield new
            replace_folder(new, output)
        finally:
            shutil.rmtree(new, ignore_errors=True)


@contextmanager
def _locked(path: Path, folder: Path, what: str) -> Iterator[None]:
    while True:
        with open(path, "a+", encoding="utf-8") as file:
            file.seek(0)
            owner = file.read() or "another process"
            lock_file(
                file,
                f"{folder} is in use by another {what}, {owner}",
                "wait until that process ends, or give another folder",
            )
            if not _is_at(file, path):
                continue  # whose it was has deleted it meanwhile
            file.truncate(0)
            with disk_errors(path):  # past the buffer, which would be written again when it is closed
                os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
            yield
            return


def _is_at(file: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
