"""A folder for one process at a time, however that ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from perpo.common import locks
from perpo.common.journal import Journal
from perpo.common.locks import only_process
from perpo.errors import PerpoError

# Holds the folder until its stdin ends; the child that it forks lives on when it is killed.
HOLDER = """
import os, sys, time
from perpo.common.locks import only_process
with only_process(sys.argv[1], "training"):
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)  # it has let go of the lock by now
        time.sleep(60)
        os._exit(0)
    sys.stdin.read()
    os.kill(child, 9)
"""


def test_a_killed_process_frees_it_at_once_also_if_its_children_live_on(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        child = int(holder.stdout.readline())
        with pytest.raises(PerpoError) as caught, only_process(folder, "training"):
            pytest.fail("two have it")
        assert caught.value.exit_code == 2
        said = f"{folder} is in use by another training, process {holder.pid} on {socket.gethostname()}"
        assert (caught.value.message, caught.value.hint) == (
            said,
            "wait until that process ends, or give another folder",
        )
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with only_process(folder, "training"):
            assert str(os.getpid()) in (folder / ".lock").read_text()
        os.kill(child, signal.SIGKILL)
    assert list(folder.iterdir()) == []  # what the killed one left has gone too


def test_a_folder_that_nothing_came_of_goes_again(tmp_path):
    with pytest.raises(ValueError, match="nothing"), only_process(tmp_path / "a" / "run", "training"):
        raise ValueError("nothing")
    assert not (tmp_path / "a" / "run").exists()
    with only_process(tmp_path / "b", "training"):
        (tmp_path / "b" / "kept").touch()
    with only_process(tmp_path / "c", "merge", beside=True):
        assert (tmp_path / ".c.lock").is_file()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "kept"]


def test_one_that_waits_while_the_owner_leaves_does_not_lock_what_is_deleted(tmp_path, monkeypatch):
    """Between opening the file and locking it, its owner deletes it: then it is opened anew."""
    with only_process(tmp_path, "training"):
        lock = locks.lock_file

        def leaves_first(file, *words):
            if (tmp_path / ".lock").exists():
                (tmp_path / ".lock").unlink()
                monkeypatch.setattr(locks, "lock_file", lock)

        monkeypatch.setattr(locks, "lock_file", leaves_first)
        with only_process(tmp_path, "training"):
            assert (tmp_path / ".lock").is_file()
            with pytest.raises(PerpoError, match="in use"), only_process(tmp_path, "training"):
                pytest.fail("two have it")


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with only_process(tmp_path, "training"), Journal(tmp_path / "journal", "key"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("cannot be locked (Function not implemented), so another process" in line for line in lines)
