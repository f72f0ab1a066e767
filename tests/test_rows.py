"""Rows of Parquet files with large images: a few in memory at a time."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perpo.rows import read_rows


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
