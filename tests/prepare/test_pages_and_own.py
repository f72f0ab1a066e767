"""Pages of Fox and of one's own, and JSON lines of one's own."""

import base64
import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import perpo_eval.cli.eval
from perpo.cli.data import main
from perpo.prepare import published_counts

COLUMNS = ["question_id", "image", "question", "answer", "language", "layout", "file_name"]


@pytest.fixture
def fox(tmp_path, noise, monkeypatch):
    """Two English pages and one Chinese page, and known counts that fit."""
    monkeypatch.setitem(published_counts.FOX_PAGES, "en", 2)
    monkeypatch.setitem(published_counts.FOX_PAGES, "cn", 1)
    root = tmp_path / "focus_benchmark_test"
    for language, texts in {"en": ["First page.", "Second\npage."], "cn": ["一页中文。"]}.items():
        entries = []
        for number, text in enumerate(texts):
            name = f"{language}_{number}.png"
            noise(root / f"{language}_pdf_png" / name, number)
            turns = [{"from": "human", "value": "<image>\nOCR this page."}, {"from": "gpt", "value": text}]
            entries.append({"image": name, "conversations": turns})
        (root / f"{language}_page_ocr.json").write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    return root


def test_fox_pages_keep_their_text_and_say_their_language(fox, tmp_path):
    assert main(["fox", "--root", str(fox), "--output", str(tmp_path / "out")]) == 0
    english = pq.read_table(tmp_path / "out" / "fox_ocr_en.parquet")
    assert english.column_names == COLUMNS
    assert english["answer"].to_pylist() == ["First page.", "Second\npage."]
    assert english["question"].to_pylist() == ["OCR this page."] * 2
    assert english["language"].to_pylist() == ["en"] * 2
    assert english["image"].to_pylist()[1]["bytes"] == (fox / "en_pdf_png" / "en_1.png").read_bytes()
    chinese = pq.read_table(tmp_path / "out" / "fox_ocr_cn.parquet").to_pylist()
    assert [(row["answer"], row["language"], row["file_name"]) for row in chinese] == [("一页中文。", "zh", "cn_0.png")]


def test_fox_pages_are_counted(fox, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(published_counts.FOX_PAGES, "en", 112)
    words = ["fox", "--root", str(fox), "--output", str(tmp_path / "out")]
    assert main(words) == 2
    assert "Fox en: expected 112 pages, found 2 pages" in capsys.readouterr().err
    assert main([*words, "--allow_other_counts"]) == 0
    assert "2 pages instead of 112" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([{"from": "gpt", "value": "x"}], "expected a human turn and an answer"),
        (["x", "y"], "expected a human turn and an answer"),
        ([{"from": "human", "value": "q"}, {"from": "gpt", "value": ["x"]}], "expected an image's name and two texts"),
    ],
)
def test_other_conversations_are_refused(fox, tmp_path, capsys, turns, said):
    (fox / "en_page_ocr.json").write_text(json.dumps([{"image": "en_0.png", "conversations": turns}]))
    assert main(["fox", "--root", str(fox), "--output", str(tmp_path / "out")]) == 2
    assert f"page 1: {said}" in capsys.readouterr().err


def test_a_missing_language_is_said(fox, tmp_path, capsys):
    (fox / "cn_page_ocr.json").unlink()
    words = ["fox", "--root", str(fox), "--output", str(tmp_path / "out")]
    assert main(words) == 2
    assert "cn_page_ocr.json, found no such file" in capsys.readouterr().err
    assert main([*words, "--languages", "en"]) == 0


def write_tsv(path, fox, change=None):
    """Fox's pages and a question of another task, as the hub's file has them; the last one names another's image."""
    rows = [("index", "image", "question", "answer", "sub_task")]
    for language, count in (("en", 2), ("cn", 1)):
        for number, entry in enumerate(json.loads((fox / f"{language}_page_ocr.json").read_text())[:count]):
            image = base64.b64encode((fox / f"{language}_pdf_png" / entry["image"]).read_bytes()).decode()
            asked, said = (turn["value"].removeprefix("<image>\n") for turn in entry["conversations"])
            rows.append((f"{language}{number}", image, asked, said, f"{language}_page_ocr"))
    rows += [("box", "en0", "OCR the box.", "x", "en_box_ocr"), ("again", "en0", "Again.", "y", "en_page_ocr")]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows(change(row) if change else row for row in rows)


def test_foxs_file_on_the_hub_gives_the_pages_of_its_folder(fox, tmp_path, monkeypatch):
    monkeypatch.setitem(published_counts.FOX_PAGES, "en", 3)
    write_tsv(tmp_path / "fox.tsv", fox)
    assert main(["fox", "--tsv", str(tmp_path / "fox.tsv"), "--output", str(tmp_path / "out")]) == 0
    english, chinese = (
        pq.read_table(tmp_path / "out" / f"fox_ocr_{lang}.parquet").to_pylist() for lang in ("en", "cn")
    )
    assert [(row["question"], row["answer"]) for row in english] == [
        ("OCR this page.", "First page."),
        ("OCR this page.", "Second\npage."),
        ("Again.", "y"),
    ]
    pictures = [(fox / "en_pdf_png" / f"en_{number}.png").read_bytes() for number in (0, 1, 0)]
    assert [row["image"]["bytes"] for row in english] == pictures
    assert [(row["answer"], row["language"]) for row in chinese] == [("一页中文。", "zh")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row[:4], "lacks sub_task"),
        (
            lambda row: [*row[:4], row[4].replace("page", "line")],
            "has no page_ocr of en or cn, only cn_line_ocr, en_box_ocr",
        ),
        (lambda row: [row[0], row[1].replace("iVBOR", "XXXXX"), *row[2:]], "row 1: its image is no base64"),
    ],
)
def test_other_tables_are_refused(fox, tmp_path, capsys, change, said):
    write_tsv(tmp_path / "fox.tsv", fox, change)
    assert main(["fox", "--tsv", str(tmp_path / "fox.tsv"), "--output", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err


def test_fox_is_read_from_one_place(fox, tmp_path, capsys):
    for words in ([], ["--root", str(fox), "--tsv", "x.tsv"]):
        assert main(["fox", *words, "--output", str(tmp_path / "out")]) == 2
        assert "give --root or --tsv" in capsys.readouterr().err
    assert main(["fox", "--tsv", str(tmp_path / "none.tsv"), "--output", str(tmp_path / "out")]) == 2
    assert "cannot be read as a table" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path, noise):
    for number, name in enumerate(["b.png", "a.JPG", "c.two.webp"]):
        noise(tmp_path / "pages" / name, number)
        (tmp_path / "pages" / name).with_suffix(".txt").write_text(f"Text {number} ü", encoding="utf-8")
    return tmp_path / "pages"


def _pages(folder, out, *words):
    return main(["pages", "--folder", str(folder), "--name", "mine", "--output", str(out), *words])


def test_a_folder_of_pages_becomes_rows(folder, tmp_path):
    assert _pages(folder, tmp_path / "out", "--language", "en") == 0
    table = pq.read_table(tmp_path / "out" / "pages_mine.parquet")
    assert table.column_names == COLUMNS
    found = [(row["file_name"], row["answer"], row["question"], row["language"]) for row in table.to_pylist()]
    assert found == [
        ("a.JPG", "Text 1 ü", "", "en"),
        ("b.png", "Text 0 ü", "", "en"),
        ("c.two.webp", "Text 2 ü", "", "en"),
    ]


def test_orphans_are_counted_on_both_sides(folder, tmp_path, noise, capsys):
    noise(folder / "image_only.png", 9)
    (folder / "text_only.txt").write_text("x")
    (folder / "another.txt").write_text("x")
    assert _pages(folder, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "1 images without a text and 2 texts without an image" in error
    assert "image_only.png" in error
    assert "text_only.txt" in error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "a.txt").write_text(" \n"), "1 of 3 pages have an empty text"),
        (lambda folder: (folder / "a.txt").write_bytes(b"\xff\xfe\x00"), "cannot be read as UTF-8"),
        (lambda folder: (folder / "a.JPG").write_bytes(b"no image"), "1 of 3 images cannot be used"),
        (lambda folder: (folder / "a.png").write_bytes(b"x"), "several images of the same name"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "holds no pages"),
    ],
)
def test_pages_that_cannot_be_used_are_refused(folder, tmp_path, capsys, change, said):
    change(folder)
    assert _pages(folder, tmp_path / "out") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_that_are_no_names_are_refused(folder, tmp_path, capsys):
    assert main(["pages", "--folder", str(folder), "--name", "../x", "--output", str(tmp_path / "out")]) == 2
    assert "--name '../x' cannot be part of a file name" in capsys.readouterr().err


def _own(tmp_path, rows, *words):
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return main(
        ["jsonl", "--file", str(tmp_path / "own.jsonl"), "--name", "q", "--output", str(tmp_path / "out"), *words]
    )


@pytest.fixture
def image(tmp_path, noise):
    return noise(tmp_path / "images" / "one.png", 1).relative_to(tmp_path)


def test_yes_no_rows_of_ones_own_have_popes_columns(image, tmp_path):
    rows = [{"image": str(image), "question": "<image>\nIs it?", "answer": "Yes "}]
    rows += [{"image": str(image), "question": "Or not?", "answer": "no", "question_id": "x7"}]
    assert _own(tmp_path, rows, "--kind", "yesno") == 0
    table = pq.read_table(tmp_path / "out" / "yesno_q.parquet")
    assert table.column_names == ["id", "question_id", "question", "answer", "image_source", "image", "category"]
    found = [(row["id"], row["question_id"], row["question"], row["answer"]) for row in table.to_pylist()]
    assert found == [("0", "0", "Is it?", "yes"), ("1", "x7", "Or not?", "no")]
    assert set(table["category"].to_pylist()) == {"q"}
    assert set(table["image_source"].to_pylist()) == {"one"}


def test_rows_of_other_layouts_and_with_their_pictures(image, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    turns = [{"from": "human", "value": "Is it?\n<image>"}, {"from": "gpt", "value": "yes"}]
    assert _own(tmp_path, [{"image": str(image), "conversations": turns}], "--kind", "yesno") == 0
    (row,) = pq.read_table(tmp_path / "out" / "yesno_q.parquet").to_pylist()
    png = (tmp_path / image).read_bytes()
    assert (row["question"], row["answer"], row["image"]["bytes"]) == ("Is it?", "yes", png)
    cells = [{"image": {"bytes": png, "path": "x.png"}, "question": "Is it?", "answer": "yes"}]
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "own.parquet")
    words = ["jsonl", "--file", str(tmp_path / "own.parquet"), "--name", "p", "--output", str(tmp_path / "out")]
    assert main([*words, "--kind", "yesno"]) == 0
    assert pq.read_table(tmp_path / "out" / "yesno_p.parquet").to_pylist()[0]["image"]["bytes"] == png


def test_fields_can_have_other_names_and_pages_need_no_question(image, tmp_path):
    rows = [{"picture": image.name, "text": "A page."}]
    words = ["--image_field", "picture", "--answer_field", "text", "--image_root", str(tmp_path / "images")]
    assert _own(tmp_path, rows, "--kind", "pages", "--language", "en", *words) == 0
    row = pq.read_table(tmp_path / "out" / "pages_q.parquet").to_pylist()[0]
    assert (row["question"], row["answer"], row["language"], row["file_name"]) == ("", "A page.", "en", "one.png")


@pytest.mark.parametrize(
    ("row", "words", "said"),
    [
        ({"answer": "perhaps"}, [], "expected yes or no as `answer`, found 'perhaps'"),
        ({"answer": 1}, [], "expected text as `answer`, found 1"),
        ({"answer": " "}, [], "`answer` is empty"),
        ({"question": None}, [], "expected text as `question`, found None"),
        ({"image": "nowhere.png"}, [], "1 of 2 images cannot be used"),
        ({"image": "x" * 300}, [], "row 1: 'xxx"),
        ({"question": "<image><image>Is it?"}, [], "row 1: a question holds placeholders of 2 pictures"),
        ({"question_id": 1}, [], "row 2 has the question_id '1', like row 1"),
        ({}, ["--language", "en"], "--language has no effect with --kind yesno"),
    ],
)
def test_rows_of_ones_own_that_cannot_be_used_are_refused(image, tmp_path, capsys, row, words, said):
    good = {"image": str(image), "question": "Is it?", "answer": "yes"}
    assert _own(tmp_path, [good | row, good], "--kind", "yesno", *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["pages", "jsonl"])
def test_the_edit_distance_of_normal_forms_stands_beside_the_raw_one(command, noise, tmp_path, capsys):
    """Pages of a folder and of JSON lines are pages of one's own as those of PDF files are."""
    text, read = "We ﬁnd a reg\u00adular page.", "We find a regular page."
    noise(tmp_path / "in" / "a.png", 0)
    (tmp_path / "in" / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "in/a.png", "answer": text}), encoding="utf-8")
    source = {
        "pages": ["--folder", str(tmp_path / "in")],
        "jsonl": ["--file", str(tmp_path / "rows.jsonl"), "--kind", "pages"],
    }
    out, results = str(tmp_path / "out"), tmp_path / "results"
    assert main([command, *source[command], "--name", "mine", "--output", out]) == 0
    assert "--max_new_tokens 256" in capsys.readouterr().err  # the embedded model has no room for more
    asked = tmp_path / "asked.jsonl"
    words = ["--suite", "ocr", "--data", out]
    assert perpo_eval.cli.eval.main([*words, "--model", "tiny", "--questions", str(asked)]) == 0
    key = json.loads(asked.read_text(encoding="utf-8"))["sample_key"]
    (tmp_path / "said.jsonl").write_text(json.dumps({"sample_key": key, "response": read}), encoding="utf-8")
    words += ["--responses", str(tmp_path / "said.jsonl"), "--name", "other", "--output", str(results)]
    assert perpo_eval.cli.eval.main(words) == 0
    table = capsys.readouterr().out
    assert "normalised" in table
    (record,) = (json.loads(path.read_text(encoding="utf-8")) for path in results.rglob("run.json"))
    values = {metric["name"]: metric["value"] for metric in record["tasks"][0]["metrics"]}
    # A ligature is replaced and a letter put in, and the soft hyphen goes, of 23 characters.
    assert values["edit_distance"] == pytest.approx(3 / 23)
    assert values["edit_distance:normalised"] == 0
