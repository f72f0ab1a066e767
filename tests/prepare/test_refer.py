"""The refer layout: rows as they were put in, counts, leaks, and what is refused."""

import io
import json
import pickle
import shutil

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Image
from PIL import Image as Pictures

from perpo.cli.data import main
from perpo.prepare import published_counts

COLUMNS = [
    "question_id", "image", "question", "answer", "bbox", "iscrowd", "file_name", "image_id", "ref_id", "category_id",
]  # fmt: skip


@pytest.fixture
def run(refer, tmp_path):
    """Runs perpo-data refer on the small set; returns the exit code."""

    def go(*words, counts=True):
        images = [] if "--images" in words else ["--images", str(refer.images)]
        base = ["refer", "--root", str(refer.root), *images, "--output", str(tmp_path / "out")]
        return main([*base, *(["--allow_other_counts"] if counts else []), *words])

    return go


def _metadata(path):
    return json.loads(pq.read_schema(path).metadata[b"perpo"])


def test_rows_are_the_refs_with_their_boxes_and_images(refer, run, tmp_path):
    assert run("--splits", "val", "test") == 0
    for dataset, split in [("refcoco", "val"), ("refcoco+", "val"), ("refcocog", "val"), ("refcocog", "test")]:
        table = pq.read_table(tmp_path / "out" / f"{dataset}_{split}.parquet")
        assert table.column_names == COLUMNS
        refs = [ref for ref in refer.refs[dataset] if ref["split"] == split]
        for row, ref in zip(table.to_pylist(), refs, strict=True):
            name = f"COCO_train2014_{ref['image_id']:012d}.jpg"
            assert row["answer"] == [sentence["sent"] for sentence in ref["sentences"]]
            assert row["bbox"] == refer.box(ref["image_id"])
            assert row["image"] == {"bytes": (refer.images / name).read_bytes(), "path": name}
            assert (row["file_name"], row["question"], row["iscrowd"]) == (name, "", 0)
            assert row["question_id"] == str(ref["ref_id"])
            assert all(row[key] == ref[key] for key in ("image_id", "ref_id", "category_id"))


def test_the_datasets_library_decodes_the_image_column(run, tmp_path):
    run("--datasets", "refcoco", "--splits", "testA")
    data = Dataset.from_parquet(str(tmp_path / "out" / "refcoco_testA.parquet"), cache_dir=str(tmp_path / "cache"))
    assert data.cast_column("image", Image())[0]["image"].size == (24, 16)


def test_no_evaluation_image_is_in_a_training_file(run, tmp_path, capsys):
    assert run() == 0
    rows = {path.stem: pq.read_table(path, columns=["image_id"]).to_pylist() for path in (tmp_path / "out").iterdir()}
    images = {name: {row["image_id"] for row in found} for name, found in rows.items()}
    held_out = set().union(*(found for name, found in images.items() if not name.endswith("_train")))
    assert held_out == {5, 6, 11, 12, 13, 14, 21, 22}
    assert images["refcoco_train"] == {1, 2, 3, 4}
    assert images["refcoco+_train"] == {1, 2, 3, 4}
    assert images["refcocog_train"] == {1, 2}
    error = capsys.readouterr().err
    # 5 is in RefCOCO+'s val, 6 in RefCOCOg's test; 11 of RefCOCOg's train is in val of both of the others.
    assert "refcoco train: 2 of 6 refs dropped, since evaluations use their images (refcoco+ 1, refcocog 1)" in error
    assert "refcocog train: 2 of 4 refs dropped, since evaluations use their images (refcoco 1, refcoco+ 2)" in error
    metadata = _metadata(tmp_path / "out" / "refcocog_train.parquet")
    assert metadata["dropped_refs"] == 2
    assert metadata["dropped_refs_by"] == {"refcoco": 1, "refcoco+": 2}
    assert metadata["evaluation_images_of"] == ["refcoco", "refcoco+", "refcocog"]
    assert metadata["evaluation_images_missing_of"] == ["refcoco:google", "refcocog:google"]
    assert "refcocog has no refs(google).p" in error


def test_sets_that_are_not_asked_for_are_kept_out_too_and_absent_ones_are_said(refer, run, tmp_path, capsys):
    shutil.rmtree(refer.root / "refcocog")
    assert run("--datasets", "refcoco", "--splits", "train") == 0
    table = pq.read_table(tmp_path / "out" / "refcoco_train.parquet")
    assert table["image_id"].to_pylist() == [1, 2, 3, 4, 6]  # 5 is in RefCOCO+'s val
    assert "refcocog is not under --root" in capsys.readouterr().err
    assert _metadata(tmp_path / "out" / "refcoco_train.parquet")["evaluation_images_missing_of"] == [
        "refcocog", "refcoco:google", "refcocog:google",
    ]  # fmt: skip


@pytest.fixture
def google(refer):
    """Google's partitions: 3 of RefCOCO's train is in RefCOCO's val there, 4 in RefCOCOg's, 1 and 2 in train."""
    refs = refer.refs["refcoco"]
    for dataset, images in (("refcoco", {1: "train", 3: "val"}), ("refcocog", {2: "train", 4: "val"})):
        found = [{**refs[0], "image_id": image, "split": split} for image, split in images.items()]
        (refer.root / dataset / "refs(google).p").write_bytes(pickle.dumps(found, protocol=0))


def test_googles_evaluation_images_are_kept_out_if_asked_for(google, run, tmp_path, capsys):
    assert run("--datasets", "refcoco", "--splits", "train", "--keep_out_google") == 0
    path = tmp_path / "out" / "refcoco_train.parquet"
    assert pq.read_table(path)["image_id"].to_pylist() == [1, 2]
    error = capsys.readouterr().err
    assert "4 of 6 refs dropped" in error
    assert "warning" not in error
    metadata = _metadata(path)
    assert metadata["dropped_refs_by"] == {"refcoco+": 1, "refcocog": 1, "refcoco:google": 1, "refcocog:google": 1}
    assert {"refcoco:google", "refcocog:google"} <= set(metadata["evaluation_images_of"])
    assert metadata["evaluation_images_missing_of"] == []
    assert metadata["refs_on_images_left_in_of"] == {}


def test_googles_evaluation_images_that_stay_in_are_counted_and_said(google, run, tmp_path, capsys):
    assert run("--datasets", "refcoco", "--splits", "train") == 0
    path = tmp_path / "out" / "refcoco_train.parquet"
    assert pq.read_table(path)["image_id"].to_pylist() == [1, 2, 3, 4]
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "warning: " in line]
    assert "refcoco train: 4 refs are kept" in warning
    assert "share the images of refcoco:google 1, refcocog:google 1; --keep_out_google drops them" in warning
    metadata = _metadata(path)
    assert metadata["refs_on_images_left_in_of"] == {"refcoco:google": 1, "refcocog:google": 1}
    assert metadata["evaluation_images_missing_of"] == []


def test_googles_counts_are_checked_before_images_are_kept_out(google, refer, run, monkeypatch, capsys):
    for dataset, splits in published_counts.REFER_COUNTS.items():
        for split in splits:
            refs = [ref for ref in refer.refs[dataset] if ref["split"] == split]
            count = (len(refs), sum(len(ref["sentences"]) for ref in refs))
            monkeypatch.setitem(published_counts.REFER_COUNTS[dataset], split, count)
    assert run("--splits", "train", "--keep_out_google", counts=False) == 2
    expected = "refs of refcoco:google: expected 5000 val and 5000 test, found 1 val and 0 test"
    assert expected in capsys.readouterr().err


def test_help_says_what_keeping_googles_images_out_costs(capsys):
    with pytest.raises(SystemExit):
        main(["refer", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    # 10,000 of 50,000 objects are Google's, 2.5 are in an image.
    assert f"{1 - 0.8**2.5:.0%} of RefCOCO's 19,994 images" in said


def test_other_counts_are_refused_and_the_known_ones_pass(run, monkeypatch, capsys):
    assert run("--datasets", "refcoco", "--splits", "testA", counts=False) == 2
    expected = "refcoco testA: expected 1975 refs and 5657 expressions, found 1 refs and 2 expressions"
    assert expected in capsys.readouterr().err
    monkeypatch.setitem(published_counts.REFER_COUNTS["refcoco"], "testA", (1, 2))
    assert run("--datasets", "refcoco", "--splits", "testA", counts=False) == 0
    assert "as known" in capsys.readouterr().out


def test_the_known_counts_add_up_to_the_published_totals():
    def expressions(dataset, splits):
        return sum(published_counts.REFER_COUNTS[dataset][split][1] for split in splits)

    # Evaluation splits: card of JierunChen/Ref-L4. All: 142,210 and 141,564 (Yu et al. 2016), 95,010 (UMD).
    assert expressions("refcoco", ("val", "testA", "testB")) == 21_586
    assert expressions("refcoco+", ("val", "testA", "testB")) == 21_373
    assert expressions("refcocog", ("val", "test")) == 14_498
    assert expressions("refcoco", published_counts.REFER_COUNTS["refcoco"]) == 142_210
    assert expressions("refcoco+", published_counts.REFER_COUNTS["refcoco+"]) == 141_564
    assert expressions("refcocog", published_counts.REFER_COUNTS["refcocog"]) == 95_010
    objects = {name: sum(refs for refs, _ in splits.values()) for name, splits in published_counts.REFER_COUNTS.items()}
    assert objects == {"refcoco": 50_000, "refcoco+": 49_856, "refcocog": 49_822}


def test_missing_and_damaged_images_are_counted_before_anything_is_written(refer, run, tmp_path, capsys):
    for number in (1, 2, 3):
        (refer.images / f"COCO_train2014_{number:012d}.jpg").unlink()
    cut = refer.images / "COCO_train2014_000000000013.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    assert run("--datasets", "refcoco") == 2
    error = capsys.readouterr().err
    assert "4 of 8 images cannot be used" in error  # 1-4 of train (5 and 6 are dropped), 11, 12, 13, 14
    assert "COCO_train2014_000000000001.jpg: no such file" in error
    assert "COCO_train2014_000000000013.jpg: " in error
    assert not (tmp_path / "out").exists()


def test_links_store_absolute_paths_and_no_bytes(refer, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("--splits", "testB", "--link_images", "--images", "train2014") == 0
    path = tmp_path / "out" / "refcoco_testB.parquet"
    cell = pq.read_table(path)["image"].to_pylist()[0]
    assert cell == {"bytes": None, "path": str(refer.images / "COCO_train2014_000000000014.jpg")}
    with Pictures.open(cell["path"]) as image:
        assert image.size == (24, 16)
    assert _metadata(path)["images"] == "linked"


def test_the_metadata_say_what_was_done_and_no_path(refer, run, tmp_path):
    run("--datasets", "refcoco", "--splits", "val")
    metadata = _metadata(tmp_path / "out" / "refcoco_val.parquet")
    assert (metadata["kind"], metadata["source"], metadata["split"]) == ("grounding", "refer:refcoco:unc", "val")
    assert metadata["counts"] == {"rows": 2, "images": 2, "expressions": 3}
    assert metadata["command"] == "perpo-data refer --allow_other_counts --datasets refcoco --splits val"
    assert str(tmp_path) not in json.dumps(metadata)


def _damage(refer, change):
    path = refer.root / "refcoco" / "refs(unc).p"
    refs = refer.refs["refcoco"]
    path.write_bytes(pickle.dumps(change(refs), protocol=2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda refs: {"refs": refs}, "expected a list of refs"),
        (lambda refs: [], "expected a list of refs"),
        (lambda refs: [*refs, 7], "ref 11: expected its fields by name"),
        (lambda refs: [refs[0] | {"ann_id": "x"}], "ref 1: expected a whole number as ann_id, found 'x'"),
        (lambda refs: [refs[0] | {"sentences": []}], "expected a split and sentences"),
        (lambda refs: [refs[0] | {"sentences": [{"raw": "x"}]}], "expected a split and sentences"),
        (lambda refs: [refs[0] | {"split": "dev"}], "its split is 'dev'"),
        (lambda refs: [ref | {"ann_id": 999_999} for ref in refs], "lacks 1 annotations of the refs, such as 999999"),
        (lambda refs: [ref for ref in refs if ref["split"] != "val"], "refcoco has no refs of the split val"),
    ],
)
def test_refs_that_are_none_are_refused(refer, run, capsys, change, said):
    _damage(refer, change)
    assert run("--datasets", "refcoco", "--splits", "val") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", '{"images": [{}]}', '{"annotations": [{"id": 1, "image_id": 1}]}'])
def test_instances_that_are_not_in_cocos_form_are_refused(refer, run, capsys, content):
    (refer.root / "refcoco" / "instances.json").write_text(content)
    assert run("--datasets", "refcoco", "--splits", "val") == 2
    assert "instances.json" in capsys.readouterr().err


def test_an_empty_box_is_refused(refer, run, capsys):
    path = refer.root / "refcoco" / "instances.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["bbox"][2] = 0
    path.write_text(json.dumps(content))
    assert run("--datasets", "refcoco", "--splits", "val") == 2
    assert "has the box [1.25, 2.35, 0.0, 4.05]" in capsys.readouterr().err


def test_pycocotools_says_nothing_on_stdout(run, capsys):
    run("--splits", "val")
    lines = io.StringIO(capsys.readouterr().out).read().split("\n")
    assert lines[0].split() == ["file", "rows", "images", "expressions", "counts"]


def test_pictures_of_another_size_than_the_annotations_give_are_refused(refer, run, capsys, noise):
    noise(refer.images / "COCO_train2014_000000000011.jpg", 11, (16, 24))
    assert run("--datasets", "refcoco", "--splits", "val") == 2
    said = "COCO_train2014_000000000011.jpg: 16 x 24 pixels are stored, instances.json says 24 x 16"
    assert said in capsys.readouterr().err
