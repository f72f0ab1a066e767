"""olmOCR-Bench's pages as rows: its files of tests and PDFs, mathematics left out, from a folder or the hub."""

import io
import json

import pyarrow.parquet as pq
import pytest
from PIL import Image

from perpo.cli.data import main
from perpo.prepare.pages import olmocr
from perpo_eval.benchmarks.olmocr_no_math import OLMOCR_NO_MATH
from perpo_eval.rows.documents import parquet_documents

pypdfium2 = pytest.importorskip("pypdfium2")


def write_pdf(path, *sizes):
    path.parent.mkdir(parents=True, exist_ok=True)
    document = pypdfium2.PdfDocument.new()
    for size in sizes:
        document.new_page(*size)
    document.save(path)


@pytest.fixture
def bench(tmp_path):
    """Three PDFs, of which one has a test of mathematics alone and another brings its own test of type baseline."""
    folder = tmp_path / "bench_data"
    write_pdf(folder / "pdfs" / "tables" / "a.pdf", (200, 100))
    write_pdf(folder / "pdfs" / "old_scans" / "b.pdf", (100, 200), (50, 50))
    write_pdf(folder / "pdfs" / "arxiv_math" / "c.pdf", (100, 100))
    a, b, c = ({"pdf": name, "page": 1, "url": "u"} for name in ("tables/a.pdf", "old_scans/b.pdf", "arxiv_math/c.pdf"))
    tests = {
        "table_tests": [
            a | {"id": "1", "type": "table", "cell": "x", "up": "y", "max_diffs": 1, "checked": "verified"},
            a | {"id": "2", "type": "baseline", "max_length": None},
            a | {"id": "3", "type": "math", "math": "x^2"},
        ],
        "old_scans": [
            b | {"id": "4", "type": "present", "text": "é", "case_sensitive": None, "first_n": None},
            b | {"id": "5", "type": "order", "before": "aa", "after": "bb", "page": 2},
        ],
        "arxiv_math": [c | {"id": "6", "type": "math", "math": "y"}],
        "notes": [c | {"id": "7", "type": "present", "text": "z"}],
    }
    for name, rows in tests.items():
        (folder / f"{name}.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows) + "\n")
    return folder


def rows_of(folder):
    return {path.stem: pq.read_table(path).to_pylist() for path in folder.glob("*.parquet")}


def test_each_file_of_tests_becomes_a_file_of_pages(bench, tmp_path, capsys):
    assert main(["olmocr", "--data", str(bench), "--longest_side", "300", "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "2 tests of mathematics are left out; 2 PDFs have the test that the official program adds" in said.err
    assert "notes.jsonl is no file of the benchmark and is left out" in said.err
    found = rows_of(tmp_path / "out")
    assert set(found) == {"olmocr_table_tests", "olmocr_old_scans", "olmocr_baseline"}
    tests = {name: {row["question_id"]: json.loads(row["answer"]) for row in rows} for name, rows in found.items()}
    assert tests["olmocr_table_tests"] == {
        "tables/a.pdf#1": [
            {"id": "1", "type": "table", "cell": "x", "up": "y", "max_diffs": 1},
            {"id": "2", "type": "baseline"},
        ]
    }
    assert tests["olmocr_old_scans"] == {
        "old_scans/b.pdf#1": [{"id": "4", "type": "present", "text": "é", "case_sensitive": None}],
        "old_scans/b.pdf#2": [{"id": "5", "type": "order", "before": "aa", "after": "bb"}],
    }
    assert set(tests["olmocr_baseline"]) == {"arxiv_math/c.pdf#1", "old_scans/b.pdf#1"}
    sizes = {
        row["question_id"]: Image.open(io.BytesIO(row["image"]["bytes"])).size
        for rows in found.values()
        for row in rows
    }
    assert sizes["tables/a.pdf#1"] == (300, 150)
    assert sizes["old_scans/b.pdf#1"] == (150, 300)


def test_the_rows_are_documents_and_one_page_has_one_picture(bench, tmp_path):
    assert main(["olmocr", "--data", str(bench.parent), "--longest_side", "64", "--output", str(tmp_path / "out")]) == 0
    scans, base = (
        parquet_documents(tmp_path / "out" / f"olmocr_{name}.parquet", OLMOCR_NO_MATH.rows)
        for name in ("old_scans", "baseline")
    )
    assert json.loads(scans[0]["target"])[0]["id"] == "4"
    # An answer to it is asked for once, since the journal finds answers by question and picture.
    assert scans[0]["image_sha256"] in base["image_sha256"]
    asked = OLMOCR_NO_MATH.asked(scans[0], OLMOCR_NO_MATH.prompt(None, "paper"))
    assert asked.startswith("Please provide a natural, plain text representation")


def test_the_hub_is_read_at_a_commit_that_is_recorded(bench, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(olmocr, "hub_folder", lambda *given: (asked.append(given), (bench.parent, "c" * 40))[1])
    assert main(["olmocr", "--longest_side", "64", "--output", str(tmp_path / "out")]) == 0
    assert asked == [("allenai/olmOCR-bench", ["bench_data/*.jsonl", "bench_data/pdfs/*"], None)]
    written = json.loads(pq.read_schema(tmp_path / "out" / "olmocr_baseline.parquet").metadata[b"perpo"])
    assert (written["revision"], written["longest_side"], written["counts"]["tests"]) == ("c" * 40, 64, 2)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"pdf": "tables/a.pdf", "page": 1, "type": "present", "text": ""},
            "test 1: a unit test of type present needs",
        ),
        ({"pdf": "tables/x.pdf", "page": 1, "type": "present", "text": "a"}, "test 1: pdfs/tables/x.pdf is not there"),
        ({"pdf": "tables/a.pdf", "type": "present", "text": "a"}, "test 1: expected a test with pdf and page"),
        ({"pdf": "tables/a.pdf", "page": 2, "type": "present", "text": "a"}, "a.pdf has no page 2"),
    ],
)
def test_other_tests_are_refused_and_nothing_is_written(bench, tmp_path, capsys, row, said):
    (bench / "old_scans.jsonl").write_text(json.dumps(row))
    assert main(["olmocr", "--data", str(bench), "--output", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert "olmocr_old_scans" not in rows_of(tmp_path / "out")


def test_broken_pdfs_other_folders_and_sizes_are_refused(bench, tmp_path, capsys):
    (bench / "pdfs" / "tables" / "a.pdf").write_bytes(b"%PDF-1.7 cut")
    words = ["olmocr", "--output", str(tmp_path / "out")]
    assert main([*words, "--data", str(bench)]) == 2
    assert "a.pdf cannot be read" in capsys.readouterr().err
    assert main([*words, "--data", str(tmp_path / "out")]) == 2
    assert "holds no files of tests" in capsys.readouterr().err
    assert main([*words, "--data", str(bench), "--longest_side", "5"]) == 2
    assert main([*words, "--data", str(bench), "--revision", "x"]) == 2
