"""The judged benchmarks' rows: published files in a folder or on the hub, and the tiny world's."""

from __future__ import annotations

import json
import shutil
import zipfile
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest

from perpo.benchmarks.llava_bench import LLAVA_BENCH_CATEGORIES
from perpo.benchmarks.mmhal import MMHAL_TYPES
from perpo.errors import PerpoError
from perpo.prepare.published_counts import HUB_REVISIONS
from perpo.tiny.world.judged import mmhal_rows, wild_rows
from perpo_eval.rows import published, suites
from perpo_eval.rows.loading import load_task
from perpo_eval.rows.published import PUBLISHED
from perpo_eval.rows.suites import missing_tasks, select_tasks, spec_of
from tests.support import SHARED, published_files

DATA = SHARED / "data"


def test_published_files_become_documents(tmp_path: Path) -> None:
    folder = published_files.both(tmp_path)
    wild, mmhal = (load_task(spec_of(name), str(folder)) for name in ("llava_bench_wild", "mmhal_bench"))
    assert (wild.dataset, wild.revision, wild.spec.split) == ("dir:llava_bench_wild", None, "test")
    assert (wild.note, mmhal.note) == (
        "12 questions, not the published 60",
        "16 questions, not the published 96",
    )
    doc = wild.docs[4]
    assert (doc["source_id"], doc["query"], doc["image_path"]) == ("4", "What is in picture 1 (detail)?", "002.jpg")
    assert json.loads(doc["target"]) == {
        "category": "detail",
        "caption": "A picture numbered 1.",
        "reference": "The number 1, detail.",
    }
    doc = mmhal.docs[9]
    assert (doc["source_id"], doc["image_path"]) == ("9", "9_o.jpg")
    assert json.loads(doc["target"]) == {
        "category": "adversarial",
        "image_content": ["Cat", "Chair"],
        "reference": "Thing 9 is red.",
    }
    assert len(set(wild.docs["image_sha256"])) == 4


@pytest.mark.parametrize(
    ("make", "within", "names"),
    [
        (published_files.llava_bench, "llava_bench_wild", ["llava_bench_wild"]),
        (published_files.llava_bench, ".", ["llava_bench_wild"]),
        (published_files.mmhal, "MMHal-Bench", ["mmhal_bench"]),
        (partial(published_files.mmhal, name="mmhal-bench_answer_template.json"), "mmhal", ["mmhal_bench"]),
        (published_files.both, ".", ["llava_bench_wild", "mmhal_bench"]),
    ],
)
def test_the_folder_may_be_a_benchmarks_own_or_hold_both(make, within: str, names: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "data"
    make(folder / within)
    specs = select_tasks("judged", str(folder), [])
    assert [spec.name for spec in specs] == names
    said = missing_tasks("judged", str(folder), specs)
    if len(names) == 2:
        assert said is None
    else:
        other = PUBLISHED[({"llava_bench_wild", "mmhal_bench"} - set(names)).pop()]
        assert said is not None
        assert f"fetch {other.repository} from the hub with their images into FOLDER" in said


def zipped(folder: Path, inside: str = "images") -> Path:
    """The images of a folder moved into test_data.zip, with members beside that nothing should touch."""
    with zipfile.ZipFile(folder / "test_data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((folder / "images").iterdir()):
            archive.write(file, f"{inside}/{file.name}")
        archive.writestr("../../escaped.jpg", b"x")
        archive.writestr("__MACOSX/images_of_it/._0_o.jpg", b"x")
    shutil.rmtree(folder / "images")
    return folder


@pytest.mark.parametrize("inside", ["images", "test_data/images"])
def test_zipped_images_are_those_of_the_folder(inside: str, tmp_path: Path) -> None:
    plain, packed = (published_files.mmhal(tmp_path / name / "mmhal") for name in ("plain", "packed"))
    zipped(packed, inside)
    before = sorted(tmp_path.rglob("*"))
    one, other = (load_task(spec_of("mmhal_bench"), str(folder)) for folder in (plain, packed))
    assert other.docs["image_sha256"] == one.docs["image_sha256"]
    assert other.docs["image_path"] == one.docs["image_path"]
    assert sorted(tmp_path.rglob("*")) == before  # nothing was unpacked there
    specs = select_tasks("judged", str(packed), [])
    first = suites.data_version(str(packed), specs)
    with zipfile.ZipFile(packed / "test_data.zip", "a") as archive:
        archive.writestr("more", b"x")
    assert suites.data_version(str(packed), specs) != first


def test_a_zip_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = zipped(published_files.mmhal(tmp_path / "mmhal"))
    monkeypatch.setattr(published, "_LARGEST_IMAGE", 100)
    with pytest.raises(PerpoError, match=r"test_data\.zip: 'images/.*_o\.jpg' is larger than"):
        load_task(spec_of("mmhal_bench"), str(folder))
    monkeypatch.undo()
    whole = (folder / "test_data.zip").read_bytes()
    for content in (
        b"version https://git-lfs.github.com/spec/v1\n",
        whole[: len(whole) // 2],
        whole[:200] + whole[260:],
    ):
        (folder / "test_data.zip").write_bytes(content)
        with pytest.raises(PerpoError, match=r"test_data\.zip cannot be read: "):
            load_task(spec_of("mmhal_bench"), str(folder))
    with zipfile.ZipFile(folder / "test_data.zip", "w") as archive:
        archive.writestr("images/0_o.jpg", b"x")
    with pytest.raises(PerpoError, match=r"15 images are missing in .*images or test_data\.zip, such as 1_o\.jpg"):
        load_task(spec_of("mmhal_bench"), str(folder))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(PerpoError, match="has no task of --suite judged") as error:
        select_tasks("judged", str(tmp_path), [])
    assert "liuhaotian/llava-bench-in-the-wild and Shengcao1006/MMHal-Bench" in error.value.hint
    folder = published_files.both(tmp_path)
    (folder / "mmhal" / "images" / "3_o.jpg").unlink()
    with pytest.raises(
        PerpoError, match=r"1 images are missing in .*images or test_data.zip, such as 3_o\.jpg"
    ) as error:
        load_task(spec_of("mmhal_bench"), str(folder))
    assert error.value.hint == "fetch images of Shengcao1006/MMHal-Bench from the hub, or test_data.zip"
    wild = folder / "llava_bench_wild"
    for name, said in (("answers_gpt4", "question 11"), ("context", "about 004.jpg")):
        file = wild / f"{name}.jsonl"
        whole = file.read_text()
        file.write_text("".join(whole.splitlines(keepends=True)[:-1]))
        with pytest.raises(PerpoError, match=f"{name}.jsonl has nothing for .*{said}"):
            load_task(spec_of("llava_bench_wild"), str(folder))
        file.write_text(whole)
    (wild / "questions.jsonl").write_text('{"image": "001.jpg", "text": "Why?", "question_id": 0}\n')
    with pytest.raises(PerpoError, match="a row lacks category"):
        load_task(spec_of("llava_bench_wild"), str(folder))
    (wild / "questions.jsonl").write_text('{"image": "001.jpg", "text": "?", "question_id": 0, "category": "talk"}\n')
    with pytest.raises(PerpoError, match="category is 'talk'; expected conv, detail, complex"):
        load_task(spec_of("llava_bench_wild"), str(folder))
    published_files.llava_bench(wild)
    (wild / "images" / "002.jpg").write_bytes(b"no picture")  # of three questions
    with pytest.raises(PerpoError, match=r"questions\.jsonl: 1 images cannot be read: 002\.jpg"):
        load_task(spec_of("llava_bench_wild"), str(folder))
    published_files.llava_bench(wild)
    (wild / "context.jsonl").write_text('{"image": "001.jpg", "caption": ["A cat.", "A dog."]}\n')
    (wild / "questions.jsonl").write_text('{"image": "001.jpg", "text": "?", "question_id": 0, "category": "conv"}\n')
    with pytest.raises(PerpoError, match=r"caption is \['A cat\.', 'A dog\.'\]; expected a text"):
        load_task(spec_of("llava_bench_wild"), str(folder))


def test_other_files_are_another_version(tmp_path: Path) -> None:
    folder = published_files.both(tmp_path)
    specs = select_tasks("judged", str(folder), [])
    first = suites.data_version(str(folder), specs)
    assert suites.data_version(str(folder), specs) == first
    published_files.picture(folder / "mmhal" / "images" / "0_o.jpg", 7)
    second = suites.data_version(str(folder), specs)
    text = folder / "llava_bench_wild" / "context.jsonl"
    text.write_text(text.read_text().replace("numbered 0", "called 0"))
    assert len({first, second, suites.data_version(str(folder), specs)}) == 3


def test_the_hubs_files_are_of_a_pinned_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = published_files.mmhal(tmp_path / "snapshot"), []

    def snapshot_download(repository: str, **given: object) -> str:
        asked.append((repository, given))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert [spec.name for spec in select_tasks("judged", "hub", [])] == ["llava_bench_wild", "mmhal_bench"]
    data = load_task(spec_of("mmhal_bench"), "hub")
    commit = HUB_REVISIONS["Shengcao1006/MMHal-Bench"]
    ((repository, given),) = asked
    assert (repository, given["repo_type"], given["revision"]) == ("Shengcao1006/MMHal-Bench", "dataset", commit)
    assert {"response_template.json", "images/*", "test_data.zip"} <= set(given["allow_patterns"])
    assert (data.dataset, data.revision, len(data.docs)) == ("hub:Shengcao1006/MMHal-Bench", commit, 16)
    shutil.rmtree(folder / "images")
    (folder / "response_template.json").unlink()
    with pytest.raises(PerpoError, match=r"does not hold response_template\.json or"):
        load_task(spec_of("mmhal_bench"), "hub")


def test_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(repository: str, **given: object) -> str:
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(PerpoError, match="cannot be fetched from the hub: OSError: Name or service") as error:
        load_task(spec_of("llava_bench_wild"), "hub")
    assert error.value.exit_code == 3


@pytest.mark.skipif(not DATA.is_dir(), reason="the published files are not beside the checkout")
def test_the_published_files_are_as_described(tmp_path: Path) -> None:
    """60 questions (conv 17, detail 15, complex 28) about 24 pictures; 96, whose types take turns."""
    wild, mmhal = PUBLISHED["llava_bench_wild"], PUBLISHED["mmhal_bench"]
    folder = tmp_path / "data"
    for name in ("llava_bench_wild", "mmhal"):
        shutil.copytree(DATA / name, folder / name)
    for each in (wild, mmhal):
        files = each.find(folder)
        assert files is not None
        images = files[0].parent / "images"
        for number, row in enumerate(each.read(files, images)):
            published_files.picture(images / row["file_name"], number)
    data = load_task(spec_of("llava_bench_wild"), str(folder))
    kinds = [json.loads(target)["category"] for target in data.docs["target"]]
    assert [kinds.count(kind) for kind in LLAVA_BENCH_CATEGORIES] == [17, 15, 28]
    assert (len(set(data.docs["image_path"])), data.note) == (24, None)
    data = load_task(spec_of("mmhal_bench"), str(folder))
    kinds = [json.loads(target)["category"] for target in data.docs["target"]]
    assert (kinds, data.note) == (list(MMHAL_TYPES) * 12, None)


def test_the_tiny_worlds_questions_have_one_answer() -> None:
    """Each reference is what the description of the same picture says; no two shapes of it are described alike."""
    rows = list(wild_rows())
    assert [row["category"] for row in rows] == list(LLAVA_BENCH_CATEGORIES) * 6
    numbers = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
    for conv, detail, hard in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
        shapes = detail["reference"].removeprefix("The picture shows ").removesuffix(".").split("; ")
        assert len(set(shapes)) == len(shapes) == numbers[conv["reference"].split()[2]]
        assert all(shape in conv["caption"] for shape in shapes)
        rounded = sum(" circle " in shape or " ring " in shape for shape in shapes)
        said = "more round" if 2 * rounded > len(shapes) else "more straight"
        assert ("as many of each" if 2 * rounded == len(shapes) else said) in hard["reference"]
    rows = list(mmhal_rows())
    assert [row["question_type"] for row in rows] == list(MMHAL_TYPES) * 2
    assert len({row["file_name"] for row in rows}) == 16
    for row in rows:
        if row["question_type"] == "adversarial":
            asked = row["question"].removeprefix("How large is the ").removesuffix("?")
            assert asked not in row["image_content"]
            assert asked in row["gt_answer"]
