"""OCRBench v2's full pages as rows: of its JSON with images, of the hub's Parquet files, of the hub."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perpo.cli.data import main
from perpo.prepare.pages import ocrbench
from perpo_eval.benchmarks.ocrbench_v2 import OCRBENCH_V2
from perpo_eval.rows.documents import parquet_documents

TYPES = ["full-page OCR en", "text counting en", "full-page OCR cn", "full-page OCR en"]


@pytest.fixture
def rows(tmp_path, noise):
    found = []
    for number, what in enumerate(TYPES):
        image = noise(tmp_path / "data" / "EN" / f"{number}.png", number)
        found.append(
            {
                "dataset_name": "d",
                "type": what,
                "id": number + 100,
                "image_path": f"EN/{image.name}",
                "question": "<image>\nRead all.",
                "answers": [f"text {number} ", "another"],
            }
        )
    return found


def in_hub_columns(rows, folder):
    held = [{"bytes": (folder / row["image_path"]).read_bytes(), "path": None} for row in rows]
    return [
        {**{name: value for name, value in row.items() if name != "image_path"}, "image": image}
        for row, image in zip(rows, held, strict=True)
    ]


def built(tmp_path, *words):
    assert main(["ocrbench", *words, "--output", str(tmp_path / "out")]) == 0
    return {lang: pq.read_table(tmp_path / "out" / f"ocrbench_v2_{lang}.parquet").to_pylist() for lang in ("en", "cn")}


def check(found, folder):
    assert [(row["question_id"], row["question"], row["answer"]) for row in found["en"]] == [
        ("100", "Read all.", "text 0 "),
        ("103", "Read all.", "text 3 "),
    ]
    assert [(row["answer"], row["language"]) for row in found["cn"]] == [("text 2 ", "zh")]
    assert found["en"][1]["image"]["bytes"] == (folder / "EN" / "3.png").read_bytes()


def test_the_json_with_its_images_becomes_rows_and_documents(rows, tmp_path, capsys):
    (tmp_path / "data" / "OCRBench_v2.json").write_text(json.dumps(rows))
    check(built(tmp_path, "--data", str(tmp_path / "data")), tmp_path / "data")
    assert "--suite ocr" in capsys.readouterr().err
    docs = parquet_documents(tmp_path / "out" / "ocrbench_v2_en.parquet", OCRBENCH_V2.rows)
    assert (docs[0]["query"], json.loads(docs[0]["target"])) == ("Read all.", "text 0 ")


def test_the_hubs_parquet_files_become_rows(rows, tmp_path):
    table = pa.Table.from_pylist(in_hub_columns(rows, tmp_path / "data"))
    (tmp_path / "hub" / "data").mkdir(parents=True)
    pq.write_table(table, tmp_path / "hub" / "data" / "test-0.parquet")
    check(built(tmp_path, "--data", str(tmp_path / "hub")), tmp_path / "data")


def test_the_hub_is_read_at_a_commit_that_is_recorded(rows, tmp_path, monkeypatch):
    data = datasets.Dataset.from_list(in_hub_columns(rows, tmp_path / "data")).cast_column("image", datasets.Image())
    asked = []
    monkeypatch.setattr(ocrbench, "hub_rows", lambda *given: (asked.append(given), (data, "c" * 40))[1])
    check(built(tmp_path, "--revision", "main"), tmp_path / "data")
    assert asked == [("ling99/OCRBench_v2", None, "test", "main")]
    written = json.loads(pq.read_schema(tmp_path / "out" / "ocrbench_v2_en.parquet").metadata[b"perpo"])
    assert (written["revision"], written["orientation"]) == ("c" * 40, "upright")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answers": []}, "row 1: expected type, id, question, answers and image"),
        ({"answers": [" "]}, "row 1: expected two texts"),
        ({"image_path": None}, "row 1 holds no image"),
        ({"type": "text counting en"}, "holds no rows of type full-page OCR en"),
    ],
)
def test_other_rows_are_refused(rows, tmp_path, capsys, change, said):
    (tmp_path / "data" / "OCRBench_v2.json").write_text(json.dumps([rows[0] | change]))
    words = ["ocrbench", "--data", str(tmp_path / "data"), "--languages", "en", "--output", str(tmp_path / "out")]
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_folder_without_it_and_a_revision_of_a_folder_are_refused(tmp_path, capsys):
    assert main(["ocrbench", "--data", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "neither OCRBench_v2.json nor Parquet files" in capsys.readouterr().err
    assert main(["ocrbench", "--data", str(tmp_path), "--revision", "x", "--output", str(tmp_path / "out")]) == 2
