"""perpo.files: whole files or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perpo.errors import PerpoError
from perpo.files import atomic_write_bytes, atomic_write_text, check_writable


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


def test_a_folder_that_cannot_be_written_is_said_and_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_writable(tmp_path / "new" / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(PerpoError, match="file is no folder"):
        check_writable(tmp_path / "file" / "folder")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write anywhere
    with pytest.raises(PerpoError, match="may not be written"):
        check_writable(tmp_path / "new")
    assert os.listdir(tmp_path) == ["file"]
