"""perpo.common.journal: what was finished stays finished."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perpo.common.files import NotWritten
from perpo.common.journal import Journal
from perpo.errors import PerpoError

ROWS = [{"id": 0, "text": "ein\nÄ\u2028"}, {"id": 1, "value": 0.1 + 0.2}, {"id": 2, "more": [None, True]}]

WRITER = """
import sys
from perpo.common.journal import Journal
journal = Journal(sys.argv[1], "key")
for number in range(len(journal.done()), 10_000):
    journal.append([{"id": number, "text": "x" * 500}])
    print(number, flush=True)
"""


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    with Journal(path, "key") as journal:
        assert journal.done() == {}
        journal.append(ROWS[:2])
        journal.append([])
        journal.append(ROWS[2:])
        assert journal.done() == {row["id"]: row for row in ROWS}
    with Journal(path, "key") as journal:
        assert journal.done() == {row["id"]: row for row in ROWS}


def test_the_later_of_two_rows_with_one_id_counts(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, "key") as journal:
        journal.append([{"id": "a", "try": 1}])
        journal.append([{"id": "a", "try": 2}])
    with Journal(path, "key") as journal:
        assert journal.done() == {"a": {"id": "a", "try": 2}}


def test_cut_anywhere_it_keeps_the_whole_lines_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, "key") as journal:
        journal.append(ROWS)
    content = path.read_bytes()
    header_end = content.index(b"\n") + 1
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        kept = content[header_end:length].count(b"\n")
        with Journal(path, "key") as journal:
            assert list(journal.done()) == list(range(kept))
            journal.append(ROWS[kept:])
        assert path.read_bytes() == content


def test_killed_in_the_middle_nothing_reported_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        reported = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        reported += [int(line) for line in process.stdout.read().split("\n")[:-1]]
        process.wait(timeout=30)
        process.stdout.close()
        with Journal(path, "key") as journal:
            done = list(journal.done())
        assert done == list(range(len(done)))
        assert len(done) in (reported[-1] + 1, reported[-1] + 2)  # one may be written and not yet reported


def test_other_work_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, "key") as journal:
        journal.append(ROWS)
    content = path.read_bytes()
    with pytest.raises(PerpoError, match="other settings") as caught:
        Journal(path, "another key")
    assert "delete" in caught.value.hint
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"my notes", b"my notes\n", b'{"id": 1}\n'])
def test_a_file_that_is_no_journal_is_refused_and_untouched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(PerpoError, match="not a journal"):
        Journal(path, "key")
    assert path.read_bytes() == content


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, "key") as journal:
        journal.append(ROWS)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2][5:], *lines[3:]]))
    with pytest.raises(PerpoError, match="line 3: damaged"):
        Journal(path, "key")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, "key"):
        code = WRITER.replace("10_000", "0")
        second = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=30)
        assert second.returncode != 0
        assert "in use by another process" in second.stderr
    Journal(path, "key").close()


def test_what_the_disk_does_not_take_is_not_added_and_the_rest_stays(tmp_path: Path, largest_file) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, "key") as journal:
        journal.append(ROWS[:2])
        whole = path.read_bytes()
        # The system takes a part of the row and then no more; closing the file must not try again.
        with largest_file(len(whole) + 5), pytest.raises(NotWritten, match="File too large") as caught:
            journal.append(ROWS[2:])
        assert str(path) in caught.value.message
        assert list(journal.done()) == [0, 1]
        assert path.read_bytes() == whole
        journal.append(ROWS[2:])
    with Journal(path, "key") as journal:
        assert journal.done() == {row["id"]: row for row in ROWS}
    with largest_file(5), pytest.raises(NotWritten, match=r"new\.jsonl could not be written"):
        Journal(tmp_path / "new.jsonl", "key")


def test_a_number_that_json_lacks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, "key") as journal:
        with pytest.raises(ValueError, match="JSON"):
            journal.append([{"id": 1, "value": float("nan")}])
        assert journal.done() == {}
