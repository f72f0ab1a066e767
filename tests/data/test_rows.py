"""Rows of Parquet files with large images: a few in memory at a time."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perpo.data.rows import read_rows
from perpo.errors import PerpoError


@pytest.mark.parametrize("rows_of_a_group", [4, 64])
def test_rows_of_large_images_are_read_a_few_at_a_time(tmp_path: Path, rows_of_a_group: int) -> None:
    """64 images of 256 KiB, in many row groups and in one: at most two batches of 16 rows are held."""
    size, count = 1 << 18, 64
    noise = np.random.default_rng(0)
    cells = [{"number": number, "image": {"bytes": noise.bytes(size), "path": "x.png"}} for number in range(count)]
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "d.parquet", row_group_size=rows_of_a_group)
    del cells
    tracemalloc.start()
    try:
        assert [row["number"] for row in read_rows(tmp_path / "d.parquet")] == list(range(count))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The rows of one batch live while those of the next are made.
    assert peak < 2 * min(16, rows_of_a_group) * size + size


def lists(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("form", ["lines", "list"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('"half \\ud83d"', "it holds half of a Unicode character: 'half \\ud83d'"),
        ('{"\\uDC00": 1}', "it holds half of a Unicode character"),
        (lists(150), "it is nested too deeply"),
        (lists(200_000), "it is nested too deeply"),
        ("9" * 5000, "digits"),
        ('1, "a": 2', "it has `a` twice"),
    ],
)
def test_what_could_be_read_but_not_written_again_is_named(form: str, value: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    good, bad = '{"a": "\\ud83d\\ude00"}', f'{{"a": {value}}}'
    path.write_text(f"{good}\n{bad}\n" if form == "lines" else f"[{good},\n{bad}]")
    rows = read_rows(path)
    assert next(rows) == {"a": "😀"}
    with pytest.raises(PerpoError) as caught:
        next(rows)
    assert caught.value.message.startswith(f"{path}, {'line' if form == 'lines' else 'record'} 2: ")
    assert said in caught.value.message
    assert caught.value.exit_code == 2


def test_text_that_is_not_utf8_in_parquet(tmp_path: Path) -> None:
    wrong = pa.StringArray.from_buffers(
        1, pa.py_buffer(np.array([0, 2], np.int32).tobytes()), pa.py_buffer(b"\xff\xfe")
    )
    pq.write_table(pa.table({"a": wrong}), tmp_path / "d.parquet")
    with pytest.raises(PerpoError, match="holds text that is not UTF-8"):
        list(read_rows(tmp_path / "d.parquet"))
