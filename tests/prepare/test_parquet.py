"""Files are whole or absent, in small groups, and share what is the same."""

import hashlib
import json
import os
import stat

import numpy as np
import pyarrow.parquet as pq
import pytest

from perpo.errors import PerpoError
from perpo.prepare import parquet
from perpo.prepare.parquet import RowFile, check_image_files, check_outputs, write_rows


def _file(path, rows):
    return RowFile(path, "pages", "folder", "x", "perpo-data pages", {"rows": rows, "images": rows}, more={"seen": "ü"})


def _rows(count, size=100, seeds=None):
    for number in range(count):
        seed = number if seeds is None else seeds[number]
        data = np.random.default_rng(seed).bytes(size)
        yield {
            "question_id": str(number),
            "image": {"bytes": data, "path": f"{number}.png"},
            "question": "",
            "answer": "text",
            "language": "",
            "layout": None,
            "file_name": f"{number}.png",
        }


def test_rows_come_back_and_the_digest_is_of_the_files_bytes(tmp_path):
    written = write_rows(_file(tmp_path / "deep" / "a.parquet", 5), _rows(5))
    assert pq.read_table(written.file.path).to_pylist() == list(_rows(5))
    metadata = json.loads(pq.read_schema(written.file.path).metadata[b"perpo"])
    assert metadata == {
        "kind": "pages",
        "source": "folder",
        "split": "x",
        "command": "perpo-data pages",
        "orientation": "upright",
        "counts": {"rows": 5, "images": 5},
        "seen": "ü",
    }
    assert written.sha256 == hashlib.sha256(written.file.path.read_bytes()).hexdigest()


def test_the_same_rows_give_the_same_bytes(tmp_path):
    digests = {write_rows(_file(tmp_path / name / "a.parquet", 9), _rows(9)).sha256 for name in "ab"}
    assert len(digests) == 1


def test_a_group_holds_few_images(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 1000)
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 7)
    many = write_rows(_file(tmp_path / "many.parquet", 20), _rows(20, size=10)).file.path
    large = write_rows(_file(tmp_path / "large.parquet", 7), _rows(7, size=400)).file.path

    def groups(path):
        metadata = pq.ParquetFile(path).metadata
        return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]

    assert groups(many) == [7, 7, 6]
    assert groups(large) == [3, 3, 1]  # a group ends with the row that reaches 1,000 bytes


def test_rows_are_taken_only_as_they_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 2)
    alive = []

    def watched():
        for row in _rows(10):
            alive.append(sum(1 for _ in tmp_path.glob(".a.parquet.*.part")))
            yield row

    write_rows(_file(tmp_path / "a.parquet", 10), watched())
    assert alive == [1] * 10  # the file was begun before the first row was asked for


def test_rows_about_one_image_hold_it_once(tmp_path):
    size = 1_500_000  # larger than a page and than the usual limit of a dictionary
    three = write_rows(_file(tmp_path / "three.parquet", 3), _rows(3, size)).file.path.stat().st_size
    nine = write_rows(_file(tmp_path / "nine.parquet", 9), _rows(9, size, seeds=[0, 1, 2] * 3)).file.path.stat().st_size
    assert three > 3 * size
    assert nine < 1.01 * three


def test_who_reads_the_old_file_goes_on_reading_it(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_rows(_file(path, 2), _rows(2))
        assert reader.read() == b"old"


@pytest.mark.parametrize("announced", [3, 5])
def test_another_number_of_rows_leaves_nothing(tmp_path, announced):
    with pytest.raises(PerpoError, match=f"should have {announced} rows, but 4 were read"):
        write_rows(_file(tmp_path / "a.parquet", announced), _rows(4))
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_middle_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"old")

    def rows():
        yield from _rows(3)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        write_rows(_file(path, 4), rows())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_disk_does_not_take_is_infrastructure(tmp_path):
    def rows():
        yield from _rows(1)
        raise OSError(28, "No space left on device")

    with pytest.raises(PerpoError, match=r"a\.parquet could not be written: .*No space left") as caught:
        write_rows(_file(tmp_path / "a.parquet", 2), rows())
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_other_users_may_read_what_is_written(tmp_path):
    before = os.umask(0o022)
    try:
        path = write_rows(_file(tmp_path / "a.parquet", 1), _rows(1)).file.path
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_existing_files_are_refused_unless_they_may_be_replaced(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"old")
    with pytest.raises(PerpoError, match=r"1 of 2 files already exist: .*a\.parquet"):
        check_outputs([path, tmp_path / "b.parquet"], overwrite=False)
    check_outputs([path], overwrite=True)
    with pytest.raises(PerpoError, match="is no folder"):
        check_outputs([path / "c.parquet"], overwrite=True)


def test_bad_images_are_all_counted_and_ten_are_named(tmp_path):
    with pytest.raises(PerpoError, match="12 of 12 images cannot be used") as caught:
        check_image_files([tmp_path / f"{number:02d}.png" for number in (*range(12), 3, 4)], "hint")
    assert caught.value.message.count("no such file") == 10
    assert caught.value.message.endswith("and 2 more")
