"""Rows that people add: kept whatever happens beside them."""

import os
import subprocess
import sys

import pytest

from perpo.errors import PerpoError
from perpo_dashboard.shared import json_lines


def test_rows_come_back_in_order(tmp_path):
    rows = [{"text": "a\nb"}, {"text": "\u2028 \ud800 <script>"}, {}]
    for row in rows:
        json_lines.append(tmp_path / "x.jsonl", row)
    assert json_lines.read(tmp_path / "x.jsonl") == (rows, 0)
    assert (tmp_path / "x.jsonl").read_bytes().count(b"\n") == len(rows)


def test_a_missing_file_has_no_rows(tmp_path):
    assert json_lines.read(tmp_path / "x.jsonl") == ([], 0)


def test_half_a_line_spoils_no_other(tmp_path):
    file = tmp_path / "x.jsonl"
    json_lines.append(file, {"a": 1})
    with file.open("ab") as out:
        out.write(b'{"a": ')
    json_lines.append(file, {"a": 2})
    assert json_lines.read(file) == ([{"a": 1}, {"a": 2}], 1)


def test_what_is_no_object_is_counted(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'[1]\n\n{"a": 1}\n\xff\n' + b"[" * 100_000 + b"\n")
    assert json_lines.read(tmp_path / "x.jsonl") == ([{"a": 1}], 3)


def test_a_row_that_is_no_json_leaves_the_file_alone(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        json_lines.append(tmp_path / "x.jsonl", {"a": float("nan")})
    assert not (tmp_path / "x.jsonl").exists()


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(PerpoError, match="cannot be written: No such file") as caught:
        json_lines.append(tmp_path / "none" / "x.jsonl", {})
    assert caught.value.exit_code == 3


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from perpo_dashboard.shared import json_lines as lines\n"
        "for n in range(200): lines.append(Path(sys.argv[1]), {'who': sys.argv[2], 'n': n, 'fill': 'x' * 9000})\n"
    )
    file = tmp_path / "x.jsonl"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(file), who], env=os.environ | {"PYTHONPATH": ":".join(sys.path)}
        )
        for who in "abc"
    ]
    assert [each.wait(60) for each in started] == [0, 0, 0]
    rows, damaged = json_lines.read(file)
    assert damaged == 0
    written = {who: [row["n"] for row in rows if row["who"] == who] for who in "abc"}
    assert written == {who: [*range(200)] for who in "abc"}
    assert {len(row["fill"]) for row in rows} == {9000}
