"""The hub's rows: pinned, counted, and Google's told apart; the hub itself is a stand-in."""

import json
import shutil

import datasets
import huggingface_hub
import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image, List, Value

from perpo.cli.data import main
from perpo.errors import PerpoError
from perpo.prepare import published_counts
from perpo.prepare.hub import rows as hub
from perpo.prepare.hub.rows import hub_folder
from perpo.prepare.parquet import METADATA_KEY
from perpo.prepare.published_counts import HUB_REVISIONS
from perpo.prepare.refer.google_split import tell_apart
from perpo.prepare.refer.layout import Annotations, Ref

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# The types that the hub's data sets declare; boxes are float32 there.
GROUNDING = Features(
    {
        "question_id": Value("string"),
        "image": Image(),
        "question": Value("string"),
        "answer": List(Value("string")),
        "segmentation": List(Value("float32")),
        "bbox": List(Value("float32")),
        "iscrowd": Value("int8"),
        "file_name": Value("string"),
    }
)


@pytest.fixture
def fake_hub(monkeypatch):
    """A hub with one data set for each (repository, configuration, split); notes what it was asked for."""
    stored, asked = {}, []

    class Api:
        def dataset_info(self, repository, revision=None):
            asked.append(("info", repository, revision))
            return type("Info", (), {"sha": COMMIT})()

    def load_dataset(repository, name=None, *, revision, split):
        asked.append(("load", repository, name, revision, split))
        return stored[repository, name, split]

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return stored, asked


def _grounding(refer, refs, noise, tmp_path):
    rows = []
    for number, ref in enumerate(refs):
        path = noise(tmp_path / "hub_images" / f"{ref['image_id']}.png", ref["image_id"])
        rows.append(
            {
                "question_id": str(number),
                "image": {"bytes": path.read_bytes(), "path": None},
                "question": "Please describe the area.",
                "answer": [sentence["sent"] for sentence in ref["sentences"]],
                "segmentation": [0.0] * 6,
                "bbox": refer.box(ref["image_id"]),
                "iscrowd": 0,
                "file_name": f"COCO_train2014_{ref['image_id']:012d}_{number}.jpg",
            }
        )
    return Dataset.from_list(rows, features=GROUNDING)


@pytest.fixture
def mixture(refer, fake_hub, noise, tmp_path, monkeypatch):
    """RefCOCO val with UNC's two rows after three of Google's, one of which is about an object of UNC's."""
    stored, asked = fake_hub
    unc = [ref for ref in refer.refs["refcoco"] if ref["split"] == "val"]
    google = [refer.refs["refcoco"][0], refer.refs["refcoco"][1], unc[1]]
    stored["lmms-lab-encoder/RefCOCO", None, "val"] = _grounding(refer, google + unc, noise, tmp_path)
    monkeypatch.setitem(published_counts.REFER_COUNTS["refcoco"], "val", (2, 3))
    monkeypatch.setitem(published_counts.HUB_GOOGLE_ROWS, "refcoco_val", 3)
    return asked


def _run(tmp_path, *words):
    return main(["hub", "--output", str(tmp_path / "out"), *words])


def test_without_the_refs_the_mixture_is_written_and_said(mixture, tmp_path, capsys):
    assert _run(tmp_path, "--tasks", "refcoco_val") == 0
    table = pq.read_table(tmp_path / "out" / "refcoco_val.parquet")
    assert table.num_rows == 5
    metadata = json.loads(table.schema.metadata[METADATA_KEY])
    pinned = HUB_REVISIONS["lmms-lab-encoder/RefCOCO"]
    assert metadata["revision"] == pinned
    assert metadata["source"] == "hub:lmms-lab-encoder/RefCOCO"
    assert metadata["mixture"] == "2 rows of UNC's partition, which papers use, and 3 of Google's"
    assert metadata["mixture"] in capsys.readouterr().err
    row = table.to_pylist()[3]
    assert (row["image_id"], row["ref_id"], row["category_id"]) == (11, None, None)
    assert row["image"]["path"] == "COCO_train2014_000000000011_3.jpg"
    # A full commit is not looked up.
    assert mixture == [("load", "lmms-lab-encoder/RefCOCO", None, pinned, "val")]


def test_with_the_refs_the_papers_rows_are_told_apart(mixture, refer, tmp_path, capsys):
    assert _run(tmp_path, "--tasks", "refcoco_val", "--refer_root", str(refer.root)) == 0
    table = pq.read_table(tmp_path / "out" / "refcoco_val.parquet")
    unc = [ref for ref in refer.refs["refcoco"] if ref["split"] == "val"]
    # The third of Google's rows is the same object as UNC's second, so that it serves as well.
    assert sorted(table["ref_id"].to_pylist()) == sorted(ref["ref_id"] for ref in unc)
    assert sorted(map(tuple, table["answer"].to_pylist())) == [("thing 11", "left of 11"), ("thing 12",)]
    metadata = json.loads(table.schema.metadata[METADATA_KEY])
    assert "mixture" not in metadata
    assert metadata["rows_left_out"] == 3
    assert "2 of 5 rows are the papers'" in capsys.readouterr().err


def test_rows_that_cannot_all_be_told_apart_are_refused(mixture, refer, fake_hub, tmp_path, capsys):
    stored, _ = fake_hub
    key = ("lmms-lab-encoder/RefCOCO", None, "val")
    moved = stored[key].map(lambda row: {"bbox": [value + 1 for value in row["bbox"]]})
    stored[key] = moved
    assert _run(tmp_path, "--tasks", "refcoco_val", "--refer_root", str(refer.root)) == 2
    assert "expected 2 rows of the papers, found 0 rows of the papers" in capsys.readouterr().err
    words = ["--tasks", "refcoco_val", "--refer_root", str(refer.root), "--allow_other_counts"]
    assert _run(tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert "--refer_root has none of its rows" in error
    assert "--allow_other_counts" not in error
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_some_of_the_papers_rows_are_taken_if_other_counts_are_allowed(mixture, refer, fake_hub, tmp_path, capsys):
    """The hub's last row, which is UNC's second, and Google's of the same object are gone."""
    stored, _ = fake_hub
    key = ("lmms-lab-encoder/RefCOCO", None, "val")
    stored[key] = stored[key].select([0, 1, 3])
    words = ["--tasks", "refcoco_val", "--refer_root", str(refer.root), "--allow_other_counts"]
    assert _run(tmp_path, *words) == 0
    table = pq.read_table(tmp_path / "out" / "refcoco_val.parquet")
    assert table["image_id"].to_pylist() == [11]
    assert json.loads(table.schema.metadata[METADATA_KEY])["rows_left_out"] == 2
    said = capsys.readouterr().out
    assert "3 rows instead of 5; 1 rows of the papers instead of 2; 2 other rows left out" in said


def test_an_object_in_both_partitions_gives_each_ref_the_row_with_its_own_words():
    box = [10.35, 20.1, 30.05, 40.15]
    refs = [Ref(1, 101, 7, 1, "val", ["mine"]), Ref(2, 102, 7, 1, "val", ["other words"])]
    annotations = Annotations({101: box, 102: [1.0, 2.0, 3.0, 4.0]}, {}, {})
    name = "COCO_train2014_000000000007_0.jpg"
    stored = [float(value) for value in np.asarray(box, dtype=np.float32)]
    assert stored != box
    rows = [
        {"file_name": name, "bbox": stored, "answer": ["google's"]},
        {"file_name": name, "bbox": stored, "answer": ["mine"]},
        {"file_name": "COCO_train2014_000000000008_0.jpg", "bbox": stored, "answer": ["mine"]},
        {"file_name": name, "bbox": [1.0, 2.0, 3.0, 4.0], "answer": ["said otherwise"]},
    ]
    found, other = tell_apart(rows, refs, annotations)
    assert found == {1: refs[0], 3: refs[1]}
    assert other == 1


def test_two_refs_of_one_object_take_two_rows():
    box = [1.0, 2.0, 3.0, 4.0]
    refs = [Ref(1, 101, 7, 1, "val", ["mine"]), Ref(2, 101, 7, 1, "val", ["mine"])]
    rows = [{"file_name": "000000000007.jpg", "bbox": box, "answer": [text]} for text in ("mine", "google's")]
    found, other = tell_apart(rows, refs, Annotations({101: box}, {}, {}))
    assert found == {0: refs[0], 1: refs[1]}
    assert other == 1
    assert len(tell_apart(rows[:1], refs, Annotations({101: box}, {}, {}))[0]) == 1


def test_popes_rows_are_written_in_their_columns(fake_hub, noise, tmp_path, monkeypatch):
    stored, asked = fake_hub
    data = noise(tmp_path / "x.jpg", 1).read_bytes()
    row = {"id": "0", "question_id": "1", "question": "Is there a cat?", "answer": "yes", "category": "popular"}
    row |= {"image_source": "COCO_val2014_000000000001", "image": {"bytes": data, "path": None}}
    stored["lmms-lab-encoder/POPE", "Full", "popular"] = Dataset.from_list([row]).cast_column("image", Image())
    assert _run(tmp_path, "--tasks", "coco_pope_popular", "--revision", "v1", "--allow_other_counts") == 0
    assert asked == [
        ("info", "lmms-lab-encoder/POPE", "v1"),
        ("load", "lmms-lab-encoder/POPE", "Full", COMMIT, "popular"),
    ]
    written = pq.read_table(tmp_path / "out" / "coco_pope_popular.parquet").to_pylist()
    assert written == [row | {"image": {"bytes": data, "path": "COCO_val2014_000000000001"}}]


def test_other_counts_and_missing_columns_are_refused(mixture, fake_hub, tmp_path, monkeypatch, capsys):
    stored, _ = fake_hub
    monkeypatch.setitem(published_counts.HUB_GOOGLE_ROWS, "refcoco_val", 4)
    assert _run(tmp_path, "--tasks", "refcoco_val") == 2
    assert "refcoco_val: expected 6 rows, found 5 rows" in capsys.readouterr().err
    key = ("lmms-lab-encoder/RefCOCO", None, "val")
    stored[key] = stored[key].remove_columns(["bbox"])
    assert _run(tmp_path, "--tasks", "refcoco_val") == 2
    assert "lacks bbox" in capsys.readouterr().err


def test_answers_that_are_neither_yes_nor_no_are_refused(fake_hub, tmp_path, capsys):
    stored, _ = fake_hub
    row = dict.fromkeys(("id", "question_id", "question", "image_source"), "1") | {"answer": "maybe", "image": None}
    stored["lmms-lab-encoder/POPE", "Full", "popular"] = Dataset.from_list([row]).cast_column("image", Image())
    assert _run(tmp_path, "--tasks", "coco_pope_popular") == 2
    error = capsys.readouterr().err
    assert "1 answers are neither yes nor no, such as 'maybe'" in error
    assert "hint: give an older --revision" in error


def test_a_row_without_its_image_is_refused(mixture, fake_hub, tmp_path, capsys):
    stored, _ = fake_hub
    key = ("lmms-lab-encoder/RefCOCO", None, "val")
    rows = stored[key].cast_column("image", Image(decode=False)).to_list()
    rows[4]["image"] = None
    stored[key] = Dataset.from_list(rows, features=GROUNDING)
    assert _run(tmp_path, "--tasks", "refcoco_val") == 2
    assert "COCO_train2014_000000000012_4.jpg: the hub's row holds no image" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_the_rows_can_be_had_without_writing_them(mixture):
    rows, commit = hub.hub_rows("lmms-lab-encoder/RefCOCO", None, "val", revision="main")
    assert (len(rows), commit) == (5, COMMIT)
    assert mixture[0] == ("info", "lmms-lab-encoder/RefCOCO", "main")


class Unreachable:
    """Stands for HfApi without a network."""

    def dataset_info(self, repository, revision=None):
        raise ConnectionError("Name or service\nnot known")


def test_an_unreachable_hub_is_infrastructure_and_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "HfApi", Unreachable)
    assert _run(tmp_path, "--tasks", "refcoco_testA", "--revision", "v1") == 3
    error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("perpo-data: ")]
    assert error[0] == (
        "error: lmms-lab-encoder/RefCOCO cannot be fetched from the hub: ConnectionError: Name or service not known"
    )
    # perpo-eval says the same, and has no --revision.
    assert error[1] == (
        "hint: check the network, and check that the repository has the revision v1; "
        "perpo-data refer and perpo-data pope need no hub"
    )
    assert len(error) == 2


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No network, and a function that puts RefCOCO's val of a commit where `datasets` keeps what it fetched."""
    monkeypatch.setattr(huggingface_hub, "HfApi", Unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def fetched(commit, rows):
        source = tmp_path / "rows.parquet"
        Dataset.from_list(rows).to_parquet(str(source))
        datasets.load_dataset("parquet", data_files={"val": str(source)}, cache_dir=str(tmp_path / "built"))
        (arrow,) = (tmp_path / "built").rglob("parquet-val.arrow")
        folder = tmp_path / "cache" / "lmms-lab-encoder___ref_coco" / "default" / "0.0.0" / commit
        folder.mkdir(parents=True)
        shutil.copy(arrow, folder / "ref_coco-val.arrow")
        about = json.loads((arrow.parent / "dataset_info.json").read_text())
        about |= {"dataset_name": "ref_coco", "config_name": "default"}
        (folder / "dataset_info.json").write_text(json.dumps(about))

    return fetched


def test_what_was_fetched_before_is_found_without_a_network(offline):
    pinned = HUB_REVISIONS["lmms-lab-encoder/RefCOCO"]
    offline(pinned, [{"x": 1}, {"x": 2}])
    rows, commit = hub.hub_rows("lmms-lab-encoder/RefCOCO", None, "val")
    assert (rows["x"][:], commit) == ([1, 2], pinned)


def test_what_was_fetched_of_another_commit_is_refused(offline):
    offline(COMMIT, [{"x": 1}])
    with pytest.raises(
        PerpoError, match=f"is of commit {COMMIT}, not {HUB_REVISIONS['lmms-lab-encoder/RefCOCO']}"
    ) as e:
        hub.hub_rows("lmms-lab-encoder/RefCOCO", None, "val")
    assert (e.value.exit_code, e.value.hint) == (3, "run the command once with a network connection")


def test_nothing_fetched_before_is_infrastructure(offline):
    with pytest.raises(PerpoError, match="cannot be fetched from the hub") as caught:
        hub.hub_rows("lmms-lab-encoder/RefCOCO", None, "val")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks", "refcoco_vl"], "there is no task 'refcoco_vl'"),
        (["--tasks", "refcoco_train"], "there is no task 'refcoco_train'"),
        (["--tasks", "refcoco_val", "refcocog_val", "--revision", "abc"], "the tasks are in 2"),
        (
            ["--tasks", "refcoco_testA", "--refer_root", "."],
            "--refer_root can be used only for refcoco_val and refcocog_val",
        ),
    ],
)
def test_wrong_words_are_refused_before_the_hub_is_asked(fake_hub, tmp_path, capsys, words, said):
    assert _run(tmp_path, *words) == 2
    assert said in capsys.readouterr().err
    assert fake_hub[1] == []


def test_the_papers_columns_and_popes_lists_can_be_fetched():
    assert list(hub.hub_tasks()) == [
        "refcoco_val", "refcoco_testA", "refcoco_testB", "refcoco+_val", "refcoco+_testA", "refcoco+_testB",
        "refcocog_val", "refcocog_test", "coco_pope_random", "coco_pope_popular", "coco_pope_adversarial",
    ]  # fmt: skip


def test_files_of_a_repository_that_is_not_pinned_are_of_a_commit_that_is_looked_up(tmp_path, monkeypatch):
    asked = []

    class Looked:
        def dataset_info(self, repository, revision):
            asked.append((repository, revision))
            return type("Info", (), {"sha": "d" * 40})

    def download(repository, revision, **options):
        asked.append((repository, revision))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.HfApi", Looked)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert hub_folder("allenai/olmOCR-bench", ["*"]) == (tmp_path, "d" * 40)
    assert hub_folder("allenai/olmOCR-bench", ["*"], "c" * 40) == (tmp_path, "c" * 40)
    assert asked == [(("allenai/olmOCR-bench"), name) for name in ("main", "d" * 40, "c" * 40)]
