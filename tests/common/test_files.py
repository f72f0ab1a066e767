"""perpo.common.files: whole files or none."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from perpo.common.files import (
    NotWritten,
    atomic_write_bytes,
    atomic_write_text,
    check_writable,
    disk_error,
    disk_errors,
    make_folder,
    recover_folder,
    replace_folder,
)
from perpo.errors import PerpoError


def test_the_folder_is_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    atomic_write_text(path, "höchst\n")
    assert path.read_bytes() == "höchst\n".encode()
    assert os.listdir(path.parent) == ["file.txt"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    atomic_write_bytes(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    atomic_write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "make the disk writable"),
        (errno.EIO, "check the disk"),
    ],
)
def test_what_a_disk_does_not_take_names_the_file_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    path = tmp_path / "file.txt"
    atomic_write_text(path, "old")

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(NotWritten, match="MiB left") as caught:
        atomic_write_text(path, "new")
    what = "read or written" if code == errno.EIO else "written"
    assert caught.value.message.startswith(f"{path} could not be {what}: {os.strerror(code)} (")
    assert remedy in caught.value.hint
    assert caught.value.exit_code == 3
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_full_disk_is_known_behind_what_a_library_made_of_it(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = full
    rust = ValueError("Error while serializing: I/O error: No space left on device (os error 28)")
    torch = RuntimeError("[enforce fail at inline_container.cc] . iostream error")
    for error in (full, wrapped, rust, torch):
        found = disk_error(error, tmp_path / "new" / "run")
        assert found is not None
        assert found.message.startswith(f"{tmp_path}/new/run could not be written: ")
        assert found.hint == "make room"
        assert disk_error(found) is found
    assert "iostream error" in str(disk_error(torch))
    for other in (PermissionError(errno.EACCES, "Permission denied"), ValueError("bad"), None):
        assert disk_error(other) is None
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "none").read_text()


def test_a_folder_that_cannot_be_written_is_said_and_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_writable(tmp_path / "new" / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(PerpoError, match="file is no folder"):
        check_writable(tmp_path / "file" / "folder")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write anywhere
    with pytest.raises(PerpoError, match="may not write to"):
        check_writable(tmp_path / "new")
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(tmp_path: Path) -> None:
    make_folder(tmp_path / "new" / "folder")
    make_folder(tmp_path / "new" / "folder")  # it may be there
    assert (tmp_path / "new" / "folder").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(PerpoError, match=r"the folder .*/file/folder cannot be made: Not a directory") as caught:
        make_folder(tmp_path / "file" / "folder")
    assert (caught.value.hint, caught.value.exit_code) == ("give another folder to write to", 2)
    with pytest.raises(PerpoError, match="cannot be made"):
        atomic_write_text(tmp_path / "file" / "folder" / "text.txt", "text")


def folder_of(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file.txt").write_text(content)
    return path


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for content in ("first", "second"):
        replace_folder(folder_of(tmp_path / ".best.new", content), tmp_path / "best")
        assert (tmp_path / "best" / "file.txt").read_text() == content
    assert os.listdir(tmp_path) == ["best"]


@pytest.mark.parametrize(("renames", "kept"), [(0, "old"), (1, "old"), (2, "new")])
def test_a_crash_while_a_folder_is_replaced_leaves_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int, kept: str
) -> None:
    """After so many of its two renames, and before what is old is deleted."""
    folder = folder_of(tmp_path / "best", "old")
    new = folder_of(tmp_path / ".best.new", "new")
    rename, done = os.rename, []

    def crash(source: Path, target: Path) -> None:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(rename(source, target))

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr("os.rename", crash)
        patch.setattr("shutil.rmtree", lambda *args, **kwargs: None)
        replace_folder(new, folder)
    assert len(done) == renames
    recover_folder(folder)
    assert (folder / "file.txt").read_text() == kept
    assert not (tmp_path / ".best.old").exists()
