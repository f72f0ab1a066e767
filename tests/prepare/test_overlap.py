"""Training images that evaluations have too: by content, by COCO's number, in every kind of file."""

import base64
import hashlib
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from perpo.cli.data import main
from perpo.prepare.overlap.images import ImageIdentity, ImageIndex, coco_number, find_matches


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("COCO_train2014_000000123456.jpg", 123456),
        ("COCO_val2014_000000000042.jpg", 42),
        ("000000581929.jpg", 581929),
        ("coco/train2017/000000033471.jpg", 33471),
        ("COCO_train2014_000000581857_16.jpg", 581857),  # the refs' own name for an object in an image
        ("COCO_val2014_000000310196", 310196),
        ("qa__000000020556.jpg", 20556),
        ("202401011234.jpg", None),  # a date and time
        ("0000001234567.jpg", None),
        ("page_000001.png", None),
        ("000000123456/other.jpg", None),
        ("", None),
    ],
)
def test_cocos_number_is_read_from_the_files_name(name, number):
    assert coco_number(name) == number


@given(st.integers(0, 999_999), st.sampled_from(["train2014", "val2014", "test2015", "train2017"]))
def test_every_number_of_coco_is_read_as_coco_writes_it(number, split):
    assert coco_number(f"{split}/COCO_{split}_{number:012d}.jpg") == number
    assert coco_number(f"{split}/{number:012d}.jpg") == number


def test_content_goes_before_names_and_nothing_is_matched_by_a_plain_name():
    index = ImageIndex()
    index.add(ImageIdentity("000000000001.jpg", "aa"), "x.parquet")
    index.add(ImageIdentity("same.png", "bb"), "y.parquet")
    index.add(ImageIdentity("only_a_name.png", None), "z.parquet")
    train = [
        ImageIdentity("000000000001.jpg", "aa"),
        ImageIdentity("COCO_val2014_000000000001.jpg", "cc"),
        ImageIdentity("same.png", "dd"),
        ImageIdentity("renamed.png", "bb"),
        ImageIdentity("only_a_name.png", "ee"),
    ]
    found = find_matches(train, index)
    assert {image.sha256: (match.reason, match.evaluation) for image, match in found.items()} == {
        "aa": ("content", "000000000001.jpg (x.parquet)"),
        "cc": ("COCO number", "000000000001.jpg (x.parquet)"),
        "bb": ("content", "same.png (y.parquet)"),
    }
    assert index.unknown == {"only_a_name.png (z.parquet)"}


@pytest.fixture
def train(tmp_path, noise):
    """Three records: an image of its own, a renamed copy of image 7, and image 8 compressed anew."""
    images = tmp_path / "images"
    noise(images / "own.png", 1)
    noise(images / "copy.png", 7)
    noise(tmp_path / "other.png", 8)
    Image.open(tmp_path / "other.png").resize((8, 8)).save(images / "COCO_train2014_000000000008.jpg")
    rows = [
        {"image_path": name, "question": f"q {name}", "answer": "a", "answers_gen": ["x"], "iou_scores": [0.5]}
        for name in ("own.png", "copy.png", "COCO_train2014_000000000008.jpg", "copy.png")
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _evaluation(tmp_path, noise, folder="evaluation"):
    """Rows in the hub's columns about images 7 and 8."""
    cells = []
    for number in (7, 8):
        data = noise(tmp_path / f"{number}.png", number).read_bytes()
        cells.append({"image": {"bytes": data, "path": None}, "file_name": f"COCO_train2014_{number:012d}_3.jpg"})
    path = tmp_path / folder / "refcoco_val.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(cells), path)
    return path


def _run(train, *against, words=()):
    base = ["overlap", "--train", str(train), "--image_root", str(train.parent / "images")]
    return main([*base, "--against", *map(str, against), *map(str, words)])


def test_shared_images_are_counted_named_and_exit_with_2(train, tmp_path, noise, capsys):
    assert _run(train, _evaluation(tmp_path, noise)) == 2
    said = capsys.readouterr()
    assert "4 rows, 3 images" in said.out
    assert "in both: 2 images (1 by content, 1 by COCO number), 3 rows" in said.out
    assert "copy.png = COCO_train2014_000000000007_3.jpg (refcoco_val.parquet)" in said.out
    assert "3 of 4 rows of" in said.err
    assert "--output" in said.err


def test_pictures_in_texts_are_compared_by_their_content(train, tmp_path, noise, capsys):
    text = base64.b64encode((tmp_path / "images" / "copy.png").read_bytes()).decode()
    for image in (text, f"data:image/png;base64,{text}"):
        train.write_text(json.dumps({"image": image, "question": "q", "answer": "a"}))
        assert _run(train, _evaluation(tmp_path, noise)) == 2
        assert "in both: 1 images (1 by content, 0 by COCO number)" in capsys.readouterr().out
    train.write_text(json.dumps({"image": text[:-5]}))
    assert _run(train, _evaluation(tmp_path, noise)) == 2
    assert "row 1: its image cannot be read: damaged or incomplete base64" in capsys.readouterr().err


def test_a_folder_of_files_will_do_and_what_is_disjoint_exits_with_0(train, tmp_path, noise):
    path = _evaluation(tmp_path, noise)
    assert _run(train, path.parent) == 2
    train.write_text(train.read_text().splitlines()[0])
    assert _run(train, path.parent) == 0


def test_output_holds_the_other_rows_as_they_were(train, tmp_path, noise):
    first = json.loads(train.read_text().splitlines()[0])
    clean = tmp_path / "clean.jsonl"
    assert _run(train, _evaluation(tmp_path, noise), words=["--output", clean]) == 0
    assert [json.loads(line) for line in clean.read_text().splitlines()] == [first]
    assert _run(clean, _evaluation(tmp_path, noise)) == 0


def test_a_runs_samples_are_compared_by_their_digests(train, tmp_path, noise, monkeypatch):
    digest = hashlib.sha256((tmp_path / "images" / "copy.png").read_bytes()).hexdigest()
    samples = [{"image": {"sha256": digest, "path": "whatever.png", "width": 24, "height": 16}}]
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(samples), folder / "samples.parquet")
    assert _run(train, folder.parent) == 2


def test_parquet_training_files_stay_parquet(tmp_path, refer, noise):
    out = tmp_path / "out"
    words = ["refer", "--root", str(refer.root), "--images", str(refer.images), "--output", str(out)]
    assert main([*words, "--datasets", "refcoco", "--splits", "train", "--allow_other_counts"]) == 0
    train, clean = out / "refcoco_train.parquet", tmp_path / "clean.parquet"
    rows = pq.read_table(train)
    cells = [{"image": {"bytes": rows["image"][1].as_py()["bytes"], "path": "x.jpg"}}]
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "against.parquet")
    assert main(["overlap", "--train", str(train), "--against", str(tmp_path / "against.parquet")]) == 2
    words = ["overlap", "--train", str(train), "--against", str(tmp_path / "against.parquet"), "--output", str(clean)]
    assert main(words) == 0
    kept = pq.read_table(clean)
    assert kept.schema.equals(rows.schema, check_metadata=True)
    assert kept.to_pylist() == [row for number, row in enumerate(rows.to_pylist()) if number != 1]


@pytest.fixture
def benchmarks(refer, tmp_path):
    """RefCOCO in one folder, train beside its evaluations, as perpo-data refer writes it."""
    out = tmp_path / "benchmarks"
    words = ["refer", "--root", str(refer.root), "--images", str(refer.images), "--output", str(out)]
    assert main([*words, "--datasets", "refcoco", "--allow_other_counts"]) == 0
    return out


def test_train_files_beside_the_evaluations_are_no_evaluations(benchmarks, tmp_path, capsys):
    """Neither the file itself, nor another of the split train, nor one that its name says to be one."""
    train = benchmarks / "refcoco_train.parquet"
    renamed = shutil.copy(train, benchmarks / "renamed.parquet")
    bare = pq.read_table(train).replace_schema_metadata()
    pq.write_table(bare, benchmarks / "mine_train.parquet")
    assert main(["overlap", "--train", str(train), "--against", str(benchmarks)]) == 0
    said = capsys.readouterr()
    assert "evaluations: 4 images" in said.out  # 11 and 12 of val, 13 of testA, 14 of testB
    assert "in both: 0 images" in said.out
    assert "3 files of --against are training data" in said.err
    assert f"{train}: this training file itself" in said.err
    assert f"{renamed}: its split is train" in said.err
    assert f"{benchmarks / 'mine_train.parquet'}: by its name" in said.err
    # Without metadata and with another name nothing says that it is no evaluation.
    pq.write_table(bare, benchmarks / "mine.parquet")
    assert main(["overlap", "--train", str(train), "--against", str(benchmarks)]) == 2


def test_an_evaluation_that_is_called_train_by_its_file_alone_is_compared(benchmarks, tmp_path, capsys):
    val = benchmarks / "refcoco_val.parquet"
    train = shutil.copy(val, tmp_path / "x.parquet")
    shutil.copy(val, tmp_path / "y_train.parquet")
    assert main(["overlap", "--train", str(train), "--against", str(tmp_path / "y_train.parquet")]) == 2
    assert "in both: 2 images" in capsys.readouterr().out


def test_a_file_that_an_earlier_run_wrote_beside_them_is_no_evaluation(benchmarks, train, tmp_path):
    rows = pq.read_table(benchmarks / "refcoco_train.parquet").replace_schema_metadata()
    mine, clean = tmp_path / "mine.parquet", benchmarks / "clean.parquet"
    pq.write_table(rows, mine)
    words = ["overlap", "--train", str(mine), "--against", str(benchmarks), "--output", str(clean)]
    assert main(words) == 0
    assert main([*words, "--overwrite"]) == 0
    assert pq.read_table(clean).num_rows == rows.num_rows


def test_training_data_alone_are_nothing_to_compare_with(benchmarks, capsys):
    train = str(benchmarks / "refcoco_train.parquet")
    assert main(["overlap", "--train", train, "--against", train]) == 2
    error = capsys.readouterr().err
    assert "error: --against holds no images of evaluations" in error
    assert "hint: " in error


def test_linked_images_are_hashed_and_lost_ones_are_said(train, tmp_path, noise, capsys):
    linked = [{"image": {"bytes": None, "path": str(noise(tmp_path / "seven.png", 7))}}]
    linked += [{"image": {"bytes": None, "path": "/nowhere/lost.png"}}]
    pq.write_table(pa.Table.from_pylist(linked), tmp_path / "linked.parquet")
    assert _run(train, tmp_path / "linked.parquet") == 2
    said = capsys.readouterr()
    assert "copy.png = " in said.out
    assert "1 images of evaluations have only a name" in said.err


def test_missing_training_images_are_counted(train, tmp_path, noise, capsys):
    path = _evaluation(tmp_path, noise)
    shutil.rmtree(tmp_path / "images")
    assert _run(train, path) == 2
    assert "3 of 3 images of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("clean.parquet", "is written as .jsonl"),
        ("train.jsonl", "is the training file"),
        ("refuse.jsonl", "already exist"),
    ],
)
def test_outputs_that_cannot_be_are_refused_first(train, tmp_path, capsys, output, said):
    (tmp_path / "refuse.jsonl").write_text("old")
    assert _run(train, tmp_path / "nowhere.parquet", words=["--output", tmp_path / output]) == 2
    assert said in capsys.readouterr().err


def test_nothing_left_is_an_error_and_no_file(train, tmp_path, noise, capsys):
    lines = train.read_text().splitlines()
    train.write_text("\n".join(lines[1:]))
    assert _run(train, _evaluation(tmp_path, noise), words=["--output", tmp_path / "clean.jsonl"]) == 2
    error = capsys.readouterr().err
    assert "nothing would be left" in error
    assert "hint: check that it is not the file of an evaluation" in error
    assert not (tmp_path / "clean.jsonl").exists()


def test_what_holds_no_images_is_refused(train, tmp_path, capsys):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    assert _run(train, tmp_path / "x.parquet") == 2
    assert "has no column `image`" in capsys.readouterr().err
    pq.write_table(pa.table({"image": ["a.png"]}), tmp_path / "text.parquet")
    assert _run(train, tmp_path / "text.parquet") == 2
    error = capsys.readouterr().err
    assert "expected images as {bytes, path}, found 'a.png'" in error
    assert "hint: give what perpo-data or perpo-eval wrote" in error
    (tmp_path / "y.parquet").write_bytes(b"PAR1")
    assert _run(train, tmp_path / "y.parquet") == 2
    assert "is not a Parquet file" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert _run(train, tmp_path / "empty") == 2
    assert "holds no Parquet files" in capsys.readouterr().err
