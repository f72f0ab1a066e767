"""OmniDocBench's pages as rows: its JSON with pictures, from a folder or the hub."""

import json

import pyarrow.parquet as pq
import pytest

from perpo.cli.data import main
from perpo.prepare.pages import omnidocbench
from perpo_eval.benchmarks.omnidocbench_simple import OMNIDOCBENCH_SIMPLE
from perpo_eval.rows.documents import parquet_documents


def block(anno, category, text, order=None, **more):
    return {"anno_id": anno, "category_type": category, "text": text, "order": order, **more}


def page(name, language, blocks, truncated=()):
    relations = [{"relation_type": "truncated", "source_anno_id": a, "target_anno_id": b} for a, b in truncated]
    relations.append({"relation_type": "parent_son", "source_anno_id": 1, "target_anno_id": 2})
    about = {"image_path": name, "page_attribute": {"language": language}}
    return {"page_info": about, "layout_dets": blocks, "extra": {"relation": relations}}


@pytest.fixture
def bench(tmp_path, noise):
    """Three pages: one of columns, one of a table alone, one in Chinese."""
    for number, name in enumerate(("a.png", "b.png", "c.jpg.png")):
        noise(tmp_path / "data" / "images" / name, number)
    columns = [
        block(1, "text_block", "of the column", 4),
        block(2, "title", "A title", 1),
        block(3, "text_block", "At the end ", 3),
        block(4, "text_block", "and so on.", 5),
        block(5, "header", "Page 1"),
        block(6, "text_block", "not to be read", 2, ignore=True),
        {"anno_id": 7, "category_type": "table", "html": "<table/>", "order": 6},
        {"anno_id": 8, "category_type": "abandon", "text": "stain"},
    ]
    rows = [
        page("pages/a.png", "english", columns, truncated=[(3, 1), (1, 4)]),
        page("b.png", "english", [columns[6]]),
        page("c.jpg.png", "simplified_chinese", [block(1, "text_block", "模型", 1)]),
    ]
    (tmp_path / "data" / "OmniDocBench.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return tmp_path / "data"


def written(folder):
    return pq.read_table(folder / "omnidocbench_pages.parquet").to_pylist()


def test_blocks_are_joined_ordered_and_left_out_as_the_annotators_said(bench, tmp_path, capsys):
    words = ["omnidocbench", "--data", str(bench), "--allow_other_counts", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "1 pages have no text" in said.err
    assert "3 pages; known are 981 (1.0), 1355 (1.5), 1651 (1.6)" in said.out
    rows = written(tmp_path / "out")
    assert [(row["question_id"], row["language"]) for row in rows] == [("a", "en"), ("c.jpg", "zh")]
    assert json.loads(rows[0]["answer"]) == {
        "language": "english",
        "blocks": [
            {"category": "header", "text": "Page 1", "order": None},
            {"category": "title", "text": "A title", "order": 1},
            {"category": "text_block", "text": "At the end of the columnand so on.", "order": 3},
        ],
    }


def test_the_rows_are_documents(bench, tmp_path):
    words = ["omnidocbench", "--data", str(bench), "--allow_other_counts", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    docs = parquet_documents(tmp_path / "out" / "omnidocbench_pages.parquet", OMNIDOCBENCH_SIMPLE.rows)
    assert json.loads(docs[1]["target"])["blocks"][0]["text"] == "模型"
    asked = OMNIDOCBENCH_SIMPLE.asked(docs[0], OMNIDOCBENCH_SIMPLE.prompt(None, "paper"))
    assert "formatted in Markdown" in asked


def test_the_hub_is_read_at_a_commit_that_is_recorded(bench, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(omnidocbench, "hub_folder", lambda *given: (asked.append(given), (bench, "c" * 40))[1])
    assert main(["omnidocbench", "--allow_other_counts", "--output", str(tmp_path / "out")]) == 0
    assert asked == [("opendatalab/OmniDocBench", ["OmniDocBench.json", "images/*"], None)]
    told = json.loads(pq.read_schema(tmp_path / "out" / "omnidocbench_pages.parquet").metadata[b"perpo"])
    assert (told["revision"], told["counts"]["rows"]) == ("c" * 40, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[0].pop("page_info"), "page 1 is not as the benchmark's: KeyError: 'page_info'"),
        (lambda rows: rows[2]["layout_dets"][0].update(text=5), "page 3 is not as the benchmark's: ValueError"),
        (lambda rows: rows.pop(), "expected a version's number of pages, 981 (1.0), 1355 (1.5), 1651 (1.6), found 2"),
        (lambda rows: rows.clear(), "holds no"),
    ],
)
def test_other_files_are_refused_and_nothing_is_written(bench, tmp_path, capsys, change, said):
    rows = json.loads((bench / "OmniDocBench.json").read_text(encoding="utf-8"))
    change(rows)
    (bench / "OmniDocBench.json").write_text(json.dumps(rows))
    assert main(["omnidocbench", "--data", str(bench), "--output", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "omnidocbench_pages.parquet").exists()


def test_missing_pictures_and_folders_are_refused(bench, tmp_path, capsys):
    (bench / "images" / "a.png").unlink()
    words = ["omnidocbench", "--allow_other_counts", "--output", str(tmp_path / "out")]
    assert main([*words, "--data", str(bench)]) == 2
    assert "a.png" in capsys.readouterr().err
    assert main([*words, "--data", str(tmp_path)]) == 2
    assert "OmniDocBench.json, found no such file" in capsys.readouterr().err
    assert main([*words, "--data", str(bench), "--revision", "x"]) == 2
