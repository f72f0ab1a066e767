"""POPE's lists: rows, counts, and labels."""

import json
from collections import Counter

import pyarrow.parquet as pq
import pytest

from perpo.benchmarks.pope import POPE_SPLITS
from perpo.cli.data import main
from perpo.prepare.pope import find_lists, pope_verdict, read_list
from tests.support import SHARED

COLUMNS = ["id", "question_id", "question", "answer", "image_source", "image", "category"]


@pytest.fixture
def lists(tmp_path, noise):
    """Three lists of four questions about two images; the images as PNG files with COCO's names."""
    folder = tmp_path / "pope"
    folder.mkdir()
    for split in ("random", "popular", "adversarial"):
        lines = [
            {
                "question_id": 2 * image + place + 1,
                "image": f"COCO_val2014_{image:012d}.jpg",
                "text": f"Is there a {thing} in the image?",
                "label": label,
            }
            for image in range(2)
            for place, (thing, label) in enumerate([("cat", "yes"), (split, "no")])
        ]
        (folder / f"coco_pope_{split}.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for image in range(2):
        noise(tmp_path / "val2014" / f"COCO_val2014_{image:012d}.jpg", image)
    return folder


@pytest.fixture
def run(lists, tmp_path):
    def go(*words, counts=True, questions=lists):
        base = ["pope", "--questions", str(questions), "--images", str(tmp_path / "val2014")]
        return main([*base, "--output", str(tmp_path / "out"), *(["--allow_other_counts"] if counts else []), *words])

    return go


def test_rows_have_the_hubs_columns(run, lists, tmp_path):
    assert run() == 0
    for split in ("random", "popular", "adversarial"):
        table = pq.read_table(tmp_path / "out" / f"coco_pope_{split}.parquet")
        assert table.column_names == COLUMNS
        lines = [json.loads(line) for line in (lists / f"coco_pope_{split}.json").read_text().splitlines()]
        for position, (row, line) in enumerate(zip(table.to_pylist(), lines, strict=True)):
            assert row == {
                "id": str(position),
                "question_id": str(line["question_id"]),
                "question": line["text"],
                "answer": line["label"],
                "image_source": line["image"].removesuffix(".jpg"),
                "image": {"bytes": (tmp_path / "val2014" / line["image"]).read_bytes(), "path": line["image"]},
                "category": split,
            }


def test_one_list_can_be_given_by_its_file(run, lists, tmp_path):
    assert run(questions=lists / "coco_pope_popular.json") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["coco_pope_popular.parquet"]


def test_other_counts_are_refused(run, capsys):
    assert run(counts=False) == 2
    assert "POPE random: expected 3000 questions and 500 images, found 4 questions and 2 images" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(("split", "length", "good"), [("random", 2910, True), ("popular", 2910, False)])
def test_the_older_random_list_is_accepted_and_said(split, length, good, capsys):
    rows = [{"image": f"{number % 500}.jpg"} for number in range(length)]
    if good:
        assert pope_verdict(split, rows, False) == "as known (the older list of 2910)"
        assert "older list of 2910 questions, not today's list of 3000 questions" in capsys.readouterr().err
    else:
        with pytest.raises(Exception, match="expected 3000 questions"):
            pope_verdict(split, rows, False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "maybe"}, "question 1: expected yes or no as its label, found 'maybe'"),
        ({"label": "Yes"}, "expected yes or no as its label, found 'Yes'"),
        ({"text": None}, "expected text as `text`, found None"),
        ({"question_id": 2}, "question 2: expected a question_id that no other question has, found 2"),
        ({"image": "nowhere.jpg"}, "1 of 3 images cannot be used"),
    ],
)
def test_bad_rows_are_refused(run, lists, tmp_path, capsys, change, said):
    path = lists / "coco_pope_random.json"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | change), *rest]))
    assert run() == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_popes_are_refused(run, tmp_path, capsys):
    other = tmp_path / "coco_pope_randon.json"
    other.write_text("{}")
    assert run(questions=other) == 2
    assert "did you mean 'coco_pope_random.json'?" in capsys.readouterr().err
    assert run(questions=tmp_path / "val2014") == 2
    assert "holds none of coco_pope_random.json" in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
def test_the_published_lists_have_the_known_counts():
    lists = find_lists([SHARED / "data" / "pope"])
    assert list(lists) == list(POPE_SPLITS)
    for split, path in lists.items():
        rows = read_list(path)
        assert pope_verdict(split, rows, False) == "as known"
        assert Counter(row["label"] for row in rows) == {"yes": 1500, "no": 1500}
        assert set(Counter(row["image"] for row in rows).values()) == {6}
