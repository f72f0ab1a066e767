"""perpo_eval.tasks.grounding.rows and perpo_eval.suites: from rows in RefCOCO's columns to documents."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image, ImageFile

from perpo.errors import PerpoError
from perpo.tiny.world import benchmark_rows
from perpo_eval import suites
from perpo_eval.tasks.grounding import rows as task_rows


def test_one_document_per_expression(rows: list[dict]) -> None:
    rows[1]["answer"] = ["same words", "same words", "other"]
    docs = task_rows.documents(iter(rows), "here")
    assert len(docs) == 11
    assert [doc["source_id"] for doc in docs][2:5] == ["101/0", "101/1", "101/2"]
    doc = docs[2]
    assert doc["bbox"] == [10.0, 20.0, 60.5, 80.0]
    assert (doc["width"], doc["height"], doc["image_path"]) == (170, 120, "COCO_1.jpg")
    data = rows[1]["image"]["bytes"]
    assert doc["image_sha256"] == hashlib.sha256(data).hexdigest()
    assert Path(doc["image_file"]).read_bytes() == data
    (image,) = task_rows.doc_to_visual(doc)
    assert (image.mode, image.size) == ("RGB", (170, 120))
    assert task_rows.doc_to_text(doc).endswith("describes: same words")
    # LLaVA's boxes refer to the padded square: 170 wide, so 25 pixels above and below the picture.
    scored = task_rows.process_results(doc, ["[0.00, 0.00, 1.00, 1.00]"])
    assert scored["prediction"] == [0.0, -25.0, 170.0, 145.0]
    assert scored["iou"] == pytest.approx(50.5 * 60 / 170**2)


def test_an_image_of_many_rows_is_kept_once(rows: list[dict], cache: Path) -> None:
    for row in rows:
        row["image"] = rows[0]["image"]
    docs = task_rows.documents(rows, "here")
    assert len(set(docs["image_file"])) == 1
    assert Path(docs[0]["image_file"]).is_relative_to(cache)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": "the red one"}, "row 1: answer is 'the red one'"),
        ({"answer": []}, "row 1: answer is []"),
        ({"answer": ["", "x"]}, "row 1: answer is"),
        ({"bbox": [1.0, 2.0, 3.0]}, "row 1: bbox is"),
        ({"bbox": [1.0, 2.0, 3.0, float("nan")]}, "row 1: bbox is"),
        ({"bbox": [1.0, 2.0, 0.0, 5.0]}, "row 1: bbox is"),
        ({"bbox": [1.0, 2.0, "3", 5.0]}, "row 1: bbox is [1.0, 2.0, '3', 5.0]"),
        ({"bbox": [1.0, 2.0, None, 5.0]}, "row 1: bbox is"),
        ({"bbox": None}, "row 1: bbox is None"),
        ({"image": None}, "row 1: image is None; expected its bytes or its path"),
        ({"image": "a.png"}, "row 1: image is 'a.png'; expected"),
        ({"image": {"bytes": None, "path": None}}, "row 1: image is {'bytes': None, 'path': None}; expected"),
        ({"image": {"bytes": "text", "path": None}}, "row 1: image is"),
    ],
)
def test_unusable_rows_are_named(rows: list[dict], change: dict, said: str) -> None:
    rows[1] |= change
    with pytest.raises(PerpoError) as error:
        task_rows.documents(rows, "file")
    assert said in error.value.message


def test_missing_columns_are_named(rows: list[dict]) -> None:
    del rows[0]["bbox"]
    with pytest.raises(PerpoError, match="row 0 lacks bbox"):
        task_rows.documents(rows, "file")


def test_all_bad_images_are_counted(rows: list[dict], monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncated images too, although importing lmms-eval makes PIL accept them."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    rows[1]["image"] = {"bytes": rows[1]["image"]["bytes"][:-400], "path": "x"}
    rows[3]["image"] = {"bytes": b"no picture", "path": "x"}
    rows[4]["image"] = {"bytes": None, "path": "/no/such/file.jpg"}
    with pytest.raises(PerpoError) as error:
        task_rows.documents(rows, "file")
    assert error.value.message.startswith("file: 3 images cannot be read")
    assert all(f"COCO_{number}.jpg" in error.value.message for number in (1, 3, 4))


def test_no_rows() -> None:
    with pytest.raises(PerpoError, match="holds no expressions"):
        task_rows.documents([], "file")


def test_hub_rows_give_the_documents_of_the_parquet_file(rows: list[dict], tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    hub = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    assert task_rows.hub_documents(hub).to_list() == task_rows.parquet_documents(tmp_path / "t.parquet").to_list()


def test_every_task_of_the_suite_has_its_file() -> None:
    """The task files name the tasks, splits and repositories that the suite expects."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: node.value)
    found = {}
    for path in (suites.TASKS_FOLDER / "grounding").glob("*.yaml"):
        config = yaml.load(path.read_text(), Loader)
        found[config["task"]] = config
        assert path.stem == config["task"]
    assert sorted(found) == sorted(suites.TINY_TASKS + suites.REFCOCO_TASKS)
    assert found["refcoco+_testB"]["dataset_path"] == "lmms-lab-encoder/RefCOCOplus"
    assert found["refcoco+_testB"]["test_split"] == "testB"


@pytest.mark.parametrize(
    ("data", "tasks", "said", "hint"),
    [
        ("tiny", ["refshapes_vall"], "no task 'refshapes_vall'", "did you mean 'refshapes_val'?"),
        ("tiny", ["refcoco_val"], "no task 'refcoco_val'", "refshapes"),
        ("hub", ["refshapes_val"], "no task 'refshapes_val'", "refcoco"),
        ("no/such/folder", [], "which is no folder", "give tiny, hub, or"),
    ],
)
def test_tasks_that_the_data_do_not_serve(data: str, tasks: list[str], said: str, hint: str) -> None:
    with pytest.raises(PerpoError) as error:
        suites.select_tasks(data, tasks)
    assert said in error.value.message
    assert hint in error.value.hint


def test_tasks_of_a_folder(refcoco_folder: Path, tmp_path: Path) -> None:
    assert suites.select_tasks(str(refcoco_folder), []) == ["refcoco_val", "refcocog_val"]
    assert suites.select_tasks("hub", ["refcocog_test", "refcocog_test"]) == ["refcocog_test"]
    with pytest.raises(PerpoError, match="holds no data of a task"):
        suites.select_tasks(str(tmp_path), [])


def test_the_fingerprint_is_of_the_meaning(refcoco_folder: Path, rows: list[dict], tmp_path: Path) -> None:
    first = suites.load_task("refcoco_val", str(refcoco_folder))
    assert (first.dataset, first.revision, first.split) == ("dir:refcoco", None, "val")
    # The same rows written in another way, with another column, are the same data ...
    table = pa.Table.from_pylist([row | {"extra": 1} for row in rows])
    pq.write_table(table, tmp_path / "refcoco_val.parquet", compression="zstd", row_group_size=2)
    assert suites.load_task("refcoco_val", str(tmp_path)).data_sha256 == first.data_sha256
    # ... and one box that differs by a pixel makes others.
    rows[2]["bbox"][0] += 1
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "refcoco_val.parquet")
    assert suites.load_task("refcoco_val", str(tmp_path)).data_sha256 != first.data_sha256


def test_the_hubs_rows_are_of_a_commit_that_is_recorded(rows: list[dict], monkeypatch) -> None:
    asked: list[tuple] = []

    def load_dataset(name: str, *, revision: str, split: str) -> datasets.Dataset:
        asked.append((name, revision, split))
        return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())

    info = SimpleNamespace(sha="c0ffee")
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, name: info)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = suites.load_task("refcoco+_testA", "hub")
    assert asked == [("lmms-lab-encoder/RefCOCOplus", "c0ffee", "testA")]
    assert (data.dataset, data.revision, len(data.docs)) == ("hub:lmms-lab-encoder/RefCOCOplus", "c0ffee", 10)


def test_no_hub(monkeypatch) -> None:
    def unreachable(self: object, name: str) -> None:
        raise RuntimeError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    with pytest.raises(PerpoError, match=r"cannot be fetched from the hub: .* not known") as error:
        suites.load_task("refcoco_val", "hub")
    assert error.value.exit_code == 3


def test_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "refcoco_val.parquet").write_bytes(b"PAR1 something")
    with pytest.raises(PerpoError, match="not Parquet"):
        suites.load_task("refcoco_val", str(tmp_path))


def test_the_tiny_world_is_drawn_once(cache: Path) -> None:
    first = suites.load_task("refshapesg_val", "tiny")
    row = next(benchmark_rows("refshapesg", "val", images=20))
    assert (first.dataset, first.split, first.docs[0]["expression"]) == ("tiny:refshapesg", "val", row["answer"][0])
    x, y, width, height = row["bbox"]
    assert first.docs[0]["bbox"] == [x, y, x + width, y + height]
    (file,) = cache.glob("tiny-world-*/refshapesg_val.parquet")
    drawn = file.stat().st_mtime_ns
    assert suites.load_task("refshapesg_val", "tiny").data_sha256 == first.data_sha256
    assert file.stat().st_mtime_ns == drawn
    with Image.open(io.BytesIO(Path(first.docs[0]["image_file"]).read_bytes())) as image:
        assert image.size == (96, 96)
