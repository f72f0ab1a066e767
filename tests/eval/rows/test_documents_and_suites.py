"""perpo_eval.rows.documents and perpo_eval.rows.suites: from rows in a benchmark's columns to documents."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image, ImageFile

from perpo.data import read_questions
from perpo.errors import PerpoError
from perpo.models.families import FAMILIES
from perpo.prepare.published_counts import HUB_REVISIONS
from perpo.tiny.world import benchmark_rows
from perpo.tiny.world.dense_rows import dense_rows
from perpo_eval.benchmarks.grounding import GROUNDING
from perpo_eval.benchmarks.ocr import OCR_PAGES
from perpo_eval.benchmarks.pope import POPE
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.evaluate.checks import templates_of
from perpo_eval.rows import loading, suites
from perpo_eval.rows.documents import documents, fingerprint, hub_documents, parquet_documents
from perpo_eval.tasks import functions


def test_one_document_per_expression(rows: list[dict]) -> None:
    rows[1]["answer"] = ["same words", "same\n<image>words", "other"]  # the mark of the picture is taken out
    docs = documents(iter(rows), GROUNDING.rows, "here")
    assert len(docs) == 11
    assert [doc["source_id"] for doc in docs][2:5] == ["101/0", "101/1", "101/2"]
    doc = docs[2]
    assert json.loads(doc["target"]) == [10.0, 20.0, 60.5, 80.0]
    assert (doc["width"], doc["height"], doc["image_path"]) == (170, 120, "COCO_1.jpg")
    data = rows[1]["image"]["bytes"]
    assert doc["image_sha256"] == hashlib.sha256(data).hexdigest()
    assert Path(doc["image_file"]).read_bytes() == data
    (image,) = functions.doc_to_visual(doc)
    assert (image.mode, image.size) == ("RGB", (170, 120))
    assert functions.grounding_text(doc).endswith("describes: same words")
    # LLaVA's boxes refer to the padded square: 170 wide, so 25 pixels above and below the picture.
    scored = functions.grounding_results(doc, ["[0.00, 0.00, 1.00, 1.00]"])
    assert scored["iou"] == pytest.approx(50.5 * 60 / 170**2)


def test_two_rows_of_one_name_keep_apart(rows: list[dict]) -> None:
    rows[1]["question_id"], rows[1]["answer"] = rows[0]["question_id"], rows[0]["answer"]
    docs = documents(rows[:2], GROUNDING.rows, "here")
    assert [doc["source_id"] for doc in docs] == ["100/0", "100/1", "100/0#2", "100/1#2"]


def test_what_a_folder_lacks_is_said_with_the_command_that_builds_it(tmp_path: Path) -> None:
    (tmp_path / "refcoco_val.parquet").touch()
    specs = suites.select_tasks("paper", str(tmp_path), [])
    said = suites.missing_tasks("paper", str(tmp_path), specs)
    assert said is not None
    assert "refcoco_testA" in said
    assert "refcoco_val" not in said
    commands = "perpo-data refer or perpo-data pope or perpo-data fox"
    assert said.endswith(f"{commands} --output FOLDER, and give --data FOLDER")
    assert suites.missing_tasks("paper", "tiny", suites.select_tasks("paper", "tiny", [])) is None
    groups = [suites.spec_of(name).group for name in ("refcoco_val", "refcocog_test", "yesno_mine", "fox_ocr_cn")]
    assert groups == ["grounding", "grounding", "yesno_mine", "fox_ocr_cn"]


def test_an_image_of_many_rows_is_kept_once(rows: list[dict], cache: Path) -> None:
    for row in rows:
        row["image"] = rows[0]["image"]
    docs = documents(rows, GROUNDING.rows, "here")
    assert len(set(docs["image_file"])) == 1
    assert Path(docs[0]["image_file"]).is_relative_to(cache)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": "the red one"}, "row 1: answer is 'the red one'"),
        ({"answer": []}, "row 1: answer is []"),
        ({"answer": [None, "x"]}, "row 1: answer is"),
        ({"bbox": [1.0, 2.0, 3.0]}, "row 1: bbox is"),
        ({"bbox": [1.0, 2.0, 3.0, float("nan")]}, "row 1: bbox is"),
        ({"bbox": [1.0, 2.0, 0.0, 5.0]}, "row 1: bbox is"),
        ({"bbox": [1.0, 2.0, "3", 5.0]}, "row 1: bbox is [1.0, 2.0, '3', 5.0]"),
        ({"bbox": [1.0, 2.0, None, 5.0]}, "row 1: bbox is"),
        ({"bbox": None}, "row 1: bbox is None"),
        ({"answer": ["<image> or <image>"]}, "row 1: a question holds placeholders of 2 pictures"),
        ({"image": None}, "row 1: image is None; expected its bytes or its path"),
        ({"image": "a.png"}, "row 1: image is 'a.png'; expected"),
        ({"image": {"bytes": None, "path": None}}, "row 1: image is {'bytes': None, 'path': None}; expected"),
        ({"image": {"bytes": "text", "path": None}}, "row 1: image is"),
    ],
)
def test_unusable_rows_are_named(rows: list[dict], change: dict, said: str) -> None:
    rows[1] |= change
    with pytest.raises(PerpoError) as error:
        documents(rows, GROUNDING.rows, "file")
    assert said in error.value.message


def test_missing_columns_are_named(rows: list[dict]) -> None:
    del rows[0]["bbox"]
    with pytest.raises(PerpoError, match="row 0 lacks bbox"):
        documents(rows, GROUNDING.rows, "file")


def test_all_bad_images_are_counted(rows: list[dict], monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncated images too, although importing lmms-eval makes PIL accept them."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    rows[1]["image"] = {"bytes": rows[1]["image"]["bytes"][:-400], "path": "x"}
    rows[3]["image"] = {"bytes": b"no picture", "path": "x"}
    rows[4]["image"] = {"bytes": None, "path": "/no/such/file.jpg"}
    with pytest.raises(PerpoError) as error:
        documents(rows, GROUNDING.rows, "file")
    assert error.value.message.startswith("file: 3 images cannot be read")
    assert all(f"COCO_{number}.jpg" in error.value.message for number in (1, 3, 4))


def test_no_rows() -> None:
    with pytest.raises(PerpoError, match="holds no samples"):
        documents([], GROUNDING.rows, "file")


def test_hub_rows_give_the_documents_of_the_parquet_file(rows: list[dict], tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    hub = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    from_file = parquet_documents(tmp_path / "t.parquet", GROUNDING.rows)
    assert hub_documents(hub, GROUNDING.rows).to_list() == from_file.to_list()


@pytest.mark.parametrize(
    ("data", "tasks", "said", "hint"),
    [
        ("tiny", ["refshapes_vall"], "no task 'refshapes_vall'", "did you mean 'refshapes_val'?"),
        ("tiny", ["refcoco_val"], "no task 'refcoco_val'", "perpo-data refer"),
        ("hub", ["refshapes_val"], "no task 'refshapes_val'", "refcoco"),
        ("no/such/folder", [], "which is not a folder", "give tiny, hub, or"),
    ],
)
def test_tasks_that_the_data_do_not_serve(data: str, tasks: list[str], said: str, hint: str) -> None:
    with pytest.raises(PerpoError) as error:
        suites.select_tasks("grounding", data, tasks)
    assert said in error.value.message
    assert hint in error.value.hint


def test_tasks_of_a_folder(refcoco_folder: Path, tmp_path: Path) -> None:
    def names(suite: str, data: str, tasks: list[str]) -> list[str]:
        return [spec.name for spec in suites.select_tasks(suite, data, tasks)]

    assert names("grounding", str(refcoco_folder), []) == ["refcoco_val", "refcocog_val"]
    assert names("grounding", "hub", ["refcocog_test", "refcocog_test"]) == ["refcocog_test"]
    assert names("paper", str(refcoco_folder), []) == ["refcoco_val", "refcocog_val"]
    with pytest.raises(PerpoError, match="has no task of --suite grounding") as error:
        suites.select_tasks("grounding", str(tmp_path), [])
    assert "perpo-data refer --output" in error.value.hint
    with pytest.raises(PerpoError, match="no task 'refcoco_testA'") as error:
        suites.select_tasks("grounding", str(refcoco_folder), ["refcoco_testA"])
    assert error.value.hint.startswith("build it with perpo-data refer --datasets refcoco --output FOLDER")
    for name in ("pages_mine", "yesno_mine", "coco_pope_random", "boxes_mine"):
        (tmp_path / f"{name}.parquet").touch()
    assert names("paper", str(tmp_path), []) == ["boxes_mine", "coco_pope_random", "yesno_mine", "pages_mine"]
    assert names("pope", str(tmp_path), ["yesno_mine"]) == ["yesno_mine"]


def test_the_paper_suite_of_the_tiny_world() -> None:
    specs = suites.select_tasks("paper", "tiny", [])
    assert [spec.benchmark for spec in specs] == ["grounding"] * 8 + ["pope"] * 3 + ["ocr"]
    assert len({spec.name for spec in specs}) == 12


def test_yes_no_rows_and_pages(rows: list[dict]) -> None:
    picture = rows[0]["image"]
    asked = [
        {"question_id": k, "image": picture, "question": f"Is there a {k}? ", "answer": "no", "image_source": "COCO_0"}
        for k in range(3)
    ]
    docs = documents(asked, POPE.rows, "here")
    assert [(d["source_id"], d["query"], d["target"], d["image_path"]) for d in docs][1] == (
        "1",
        "Is there a 1?",
        '"no"',
        "COCO_0",
    )
    asked[2]["answer"] = "maybe"
    with pytest.raises(PerpoError, match=r"here, row 2: answer is 'maybe'; expected yes or no"):
        documents(asked, POPE.rows, "here")
    page = {"question_id": "p", "image": picture, "question": "", "answer": "两个 words\n", "file_name": "p.png"}
    (doc,) = documents([page], OCR_PAGES.rows, "here")
    assert json.loads(doc["target"]) == "两个 words\n"
    assert functions.ocr_text(doc) == "OCR this image:"
    assert functions.ocr_text(doc | {"query": "Read {query} it."}) == "Read {query} it."
    with pytest.raises(PerpoError, match="answer is ' '; expected the text of the page"):
        documents([page | {"answer": " "}], OCR_PAGES.rows, "here")


@pytest.mark.parametrize(
    ("name", "question", "asked"),
    [
        ("pages_mine", "", "OCR this image:"),
        ("pages_mine", " Read it. ", "Read it."),
        ("fox_ocr_en", "", "OCR this image:"),
        ("yesno_mine", "Is it {query}? Yes or no.", "Is it {query}? Yes or no."),
        ("coco_pope_random", "Is it a dog?", "Is it a dog?\nAnswer the question using a single word or phrase."),
    ],
)
def test_the_same_rows_are_asked_alike_in_sampling_and_evaluation(
    name: str, question: str, asked: str, rows: list[dict], tmp_path: Path
) -> None:
    row = {"question_id": "0", "image": rows[0]["image"], "question": question, "answer": "yes"}
    row |= {"file_name": "p.jpg", "image_source": "p"}
    file = tmp_path / f"{name}.parquet"
    pq.write_table(pa.Table.from_pylist([row]), file)
    (sampled,) = read_questions(file, unpack_to=tmp_path)
    spec = suites.spec_of(name)
    template = templates_of("paper", [spec], None)[name]
    (doc,) = loading.load_task(spec, str(tmp_path)).docs
    assert sampled.question == BENCHMARKS[spec.benchmark].asked(doc, template) == asked


def test_a_question_of_ones_own_is_asked_as_it_is_and_an_expression_in_the_familys_prompt(
    rows: list[dict], tmp_path: Path
) -> None:
    own = rows[1] | {"question": "Where is the bench?", "answer": None, "question_id": "own"}
    pq.write_table(pa.Table.from_pylist([rows[0], own]), tmp_path / "boxes_mine.parquet")
    data = loading.load_task(suites.spec_of("boxes_mine"), str(tmp_path))
    template = FAMILIES["qwen3_vl"].grounding_prompt.replace("{expression}", "{query}")
    asked = [GROUNDING.asked(doc, template) for doc in data.docs]
    assert asked[0] == f"Locate {rows[0]['answer'][0]}, output its bbox coordinates using JSON format."
    assert asked[2:] == ["Where is the bench?"]
    assert [doc["source_id"] for doc in data.docs][2:] == ["own/0"]
    with pytest.raises(PerpoError, match="row 0: it has neither a list of expressions"):
        documents([own | {"question": " "}], GROUNDING.rows, "file")


def test_rows_that_were_known_before_have_the_fingerprint_that_they_had(rows: list[dict]) -> None:
    docs = documents(rows, GROUNDING.rows, "here")
    digest = hashlib.sha256()
    for doc in docs:
        known = {name: doc[name] for name in ("source_id", "query", "target", "image_sha256", "image_path")}
        known |= {"width": doc["width"], "height": doc["height"]}
        digest.update(json.dumps(known, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    assert fingerprint(docs) == digest.hexdigest()
    rows[0] |= {"answer": None, "question": rows[0]["answer"][0]}
    assert fingerprint(documents(rows, GROUNDING.rows, "here")) != digest.hexdigest()


def test_a_layout_of_a_row_goes_to_its_sample_and_changes_no_fingerprint() -> None:
    rows = [row | {"layout": layout} for row, layout in zip(_pages(3), ["1 column", None, "2 columns"], strict=True)]
    docs = documents(rows, OCR_PAGES.rows, "here")
    assert docs["layout"] == ["1 column", None, "2 columns"]
    assert fingerprint(docs) == fingerprint(documents(_pages(3), OCR_PAGES.rows, "here"))
    with pytest.raises(PerpoError, match="row 1: layout is 2; expected a text, or null"):
        documents([rows[0], rows[1] | {"layout": 2}], OCR_PAGES.rows, "here")
    assert documents([row | {"layout": ""} for row in _pages(1)], OCR_PAGES.rows, "here")["layout"] == [None]


def test_a_column_of_that_name_that_is_no_pages_means_nothing(rows: list[dict]) -> None:
    docs = documents([row | {"layout": 2} for row in rows], GROUNDING.rows, "here")
    assert set(docs["layout"]) == {None}


def _pages(count: int) -> list[dict]:
    """Rows of the tiny world's pages, as a Parquet file holds them, without their layouts."""
    rows = []
    for row in dense_rows("val", pages=count):
        png = io.BytesIO()
        row.pop("image").save(png, "PNG")
        del row["layout"]
        rows.append(row | {"image": {"bytes": png.getvalue(), "path": row["file_name"]}})
    return rows


def test_an_image_that_is_a_file_stays_where_it_is(rows: list[dict], tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "picture.jpg"
    file.write_bytes(rows[0]["image"]["bytes"])
    linked = rows[0] | {"image": {"bytes": None, "path": str(file)}}
    doc, same = (documents([row], GROUNDING.rows, "here")[0] for row in (linked, rows[0]))
    assert doc["image_file"] == str(file)
    assert {**doc, "image_file": ""} == {**same, "image_file": ""}


def test_the_fingerprint_is_of_the_meaning(refcoco_folder: Path, rows: list[dict], tmp_path: Path) -> None:
    first = loading.load_task(suites.spec_of("refcoco_val"), str(refcoco_folder))
    assert (first.dataset, first.revision, first.spec.split) == ("dir:refcoco", None, "val")
    # The same rows written in another way, with another column, are the same data ...
    table = pa.Table.from_pylist([row | {"extra": 1} for row in rows])
    pq.write_table(table, tmp_path / "refcoco_val.parquet", compression="zstd", row_group_size=2)
    assert loading.load_task(suites.spec_of("refcoco_val"), str(tmp_path)).data_sha256 == first.data_sha256
    # ... and one box that differs by a pixel makes others.
    rows[2]["bbox"][0] += 1
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "refcoco_val.parquet")
    assert loading.load_task(suites.spec_of("refcoco_val"), str(tmp_path)).data_sha256 != first.data_sha256


def test_the_hubs_rows_are_of_a_commit_that_is_recorded(rows: list[dict], monkeypatch) -> None:
    asked: list[tuple] = []

    def load_dataset(name: str, config: str | None, *, revision: str, split: str) -> datasets.Dataset:
        asked.append((name, revision, split))
        return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    commit = HUB_REVISIONS["lmms-lab-encoder/RefCOCOplus"]
    data = loading.load_task(suites.spec_of("refcoco+_testA"), "hub")
    assert asked == [("lmms-lab-encoder/RefCOCOplus", commit, "testA")]
    assert (data.dataset, data.revision, len(data.docs)) == ("hub:lmms-lab-encoder/RefCOCOplus", commit, 10)


def test_no_hub(monkeypatch) -> None:
    def unreachable(name: str, config: str | None, *, revision: str, split: str) -> None:
        raise RuntimeError("Name or service not known")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(PerpoError, match=r"cannot be fetched from the hub: .* not known") as error:
        loading.load_task(suites.spec_of("refcoco_val"), "hub")
    assert error.value.exit_code == 3


def test_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "refcoco_val.parquet").write_bytes(b"PAR1 something")
    with pytest.raises(PerpoError, match="not a Parquet file"):
        loading.load_task(suites.spec_of("refcoco_val"), str(tmp_path))


def test_the_tiny_world_is_drawn_once(cache: Path) -> None:
    first = loading.load_task(suites.spec_of("refshapesg_val"), "tiny")
    row = next(benchmark_rows("refshapesg", "val", images=20))
    assert (first.dataset, first.spec.split, first.docs[0]["query"]) == ("tiny:refshapesg", "val", row["answer"][0])
    x, y, width, height = row["bbox"]
    assert json.loads(first.docs[0]["target"]) == [x, y, x + width, y + height]
    (file,) = cache.glob("tiny-world-*/refshapesg_val.parquet")
    drawn = file.stat().st_mtime_ns
    assert loading.load_task(suites.spec_of("refshapesg_val"), "tiny").data_sha256 == first.data_sha256
    assert file.stat().st_mtime_ns == drawn
    with Image.open(io.BytesIO(Path(first.docs[0]["image_file"]).read_bytes())) as image:
        assert image.size == (96, 96)


@pytest.mark.parametrize("linked", [True, False])
def test_a_turned_picture_is_upright_but_of_coco_as_it_is_stored(
    rows: list[dict], tmp_path: Path, linked: bool
) -> None:
    with Image.open(io.BytesIO(rows[0]["image"]["bytes"])) as image:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 8
        image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "turned.jpg") as image:
        stored, upright = np.asarray(image), np.asarray(image.transpose(Image.Transpose.ROTATE_90))
    file = tmp_path / "turned.jpg"
    rows[0]["image"] = {"bytes": None if linked else file.read_bytes(), "path": str(file)}
    metadata = {b"perpo": json.dumps({"source": "jsonl"})}
    for name, expected in (("refcoco_val", stored), ("boxes_own", upright)):
        pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(metadata), tmp_path / f"{name}.parquet")
        docs = loading.load_task(suites.spec_of(name), str(tmp_path)).docs
        np.testing.assert_array_equal(np.asarray(functions.doc_to_visual(docs[0])[0]), expected)
        assert (docs[0]["height"], docs[0]["width"]) == expected.shape[:2]
        assert hashlib.sha256(Path(docs[0]["image_file"]).read_bytes()).hexdigest() == docs[0]["image_sha256"]
    hub = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    assert hub_documents(hub, GROUNDING.rows)[0]["height"] == len(stored)


def test_dense_pages_are_run_by_the_suite_of_pages_or_by_name() -> None:
    """The embedded default was not taught them, and `--suite paper` is what its committed record is of."""

    def chosen(suite: str, *tasks: str) -> list[str]:
        return [spec.name for spec in suites.select_tasks(suite, "tiny", tasks)]

    assert chosen("ocr") == ["tinypages_test", "tinydense_test"]
    assert "tinydense_test" not in chosen("paper")
    assert chosen("paper", "tinydense_test", "refshapes_val") == ["refshapes_val", "tinydense_test"]
    # Nothing else is drawn by their code, so that they leave the version of all other data alone.
    versions = [
        suites.data_version("tiny", suites.select_tasks("paper", "tiny", tasks)) for tasks in ([], ["refshapes_val"])
    ]
    assert versions[0] == versions[1] != suites.data_version("tiny", suites.select_tasks("ocr", "tiny", []))
    assert suites.spec_of("tinydense_test").group == "tinydense_test"
