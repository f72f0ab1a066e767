"""What becomes of pages of twelve kinds, and of settings."""

import io
import json
import random

import pytest
from PIL import Image

from perpo.cli.data import main
from perpo.data import read_questions
from perpo.prepare.pdf.reasons import REASONS


def _expected(made):
    return {name: one.reason or one.texts for name, one in made.items()}


def test_each_kind_gives_the_written_text_or_its_reason(made_pdfs, pdf, tmp_path, capsys):
    made = made_pdfs.write_folder(tmp_path / "in", len(made_pdfs.KINDS))
    done = pdf("--eval_share", "0.5", "--workers", "2")
    assert done.code == 0
    assert done.found() == _expected(made)
    out = capsys.readouterr().out
    table = out[: out.index("questions.jsonl")].splitlines()[:-1]
    assert max(map(len, table)) <= 80
    assert "    " + REASONS["no_ink"] not in out
    assert [line.split()[:2] for line in table if "no_ink" in line] == [["no_ink", "2"]]
    said = done.report["counts"]
    assert said["documents"] == 12
    assert said["pages"] == sum(len(one.texts) for one in made.values())
    assert said["train_pages"] == len(done.questions) > 0
    assert said["eval_pages"] == len(done.rows()) > 0
    texts = [text for one in made.values() for text in one.texts]
    assert sum(done.report["left_out"]["pages"].values()) == sum(text.startswith("<") for text in texts)


def test_questions_and_rows_are_read_by_the_other_programs(made_pdfs, pdf, tmp_path):
    made_pdfs.write_folder(tmp_path / "in", 2)
    assert pdf("--eval_share", "0").code == 0
    questions = read_questions(tmp_path / "out" / "questions.jsonl")
    assert {question.question for question in questions} == {"OCR this image:"}
    for question in questions:
        with Image.open(tmp_path / "out" / question.image_path) as picture:
            assert (picture.size, picture.mode) == ((1000, 1400), "L")
    done = pdf("--eval_share", "1", "--name", "held", "--language", "en", "--question", "Read.", output="held")
    assert done.questions == {}
    rows = done.rows("held")
    assert len(rows) == len(questions)
    assert {(row["language"], row["question"]) for row in rows} == {("en", "Read.")}
    assert Image.open(io.BytesIO(rows[0]["image"]["bytes"])).size == (1000, 1400)
    # The pictures of evaluation are in the rows alone.
    assert list((tmp_path / "held" / "images").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "size"),
    [(["--longest_side", "700"], (500, 700)), (["--dpi", "72"], (600, 840)), (["--dpi", "36"], (300, 420))],
)
def test_pictures_have_the_declared_size(made_pdfs, pdf, tmp_path, words, size):
    made_pdfs.write_folder(tmp_path / "in", 1)
    done = pdf("--eval_share", "0", "--min_height", "1", "--image_format", "jpeg", *words)
    name = next(iter(done.questions))
    assert name.endswith(".jpg")
    assert Image.open(done.folder / "images" / name).size == size


def test_a_page_in_colour_stays_in_colour(made_pdfs, pdf, tmp_path):
    sheet = made_pdfs._Sheet()
    sheet.canvas.setFillColorRGB(0.8, 0, 0)
    sheet.lines(["some words in red on white " * 2] * 4)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "red.pdf").write_bytes(sheet.data())
    done = pdf("--eval_share", "0")
    picture = Image.open(done.folder / "images" / next(iter(done.questions)))
    assert picture.mode == "RGB"
    assert min(green for _, (red, green, _) in picture.getcolors(10**6) if red < 210) <= 1


def test_huge_pages_are_left_out_before_they_are_rendered(made_pdfs, pdf, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "large.pdf").write_bytes(made_pdfs.large(random.Random(0)).data)
    done = pdf("--dpi", "300")
    assert done.code == 2
    assert done.report["documents"][0]["left_out"] == [
        {"page": page, "reason": "too_large", "detail": "58334 x 83334 pixels"} for page in (1, 2)
    ]


def test_paragraphs_are_joined_where_that_is_asked(made_pdfs, pdf, tmp_path):
    sheet = made_pdfs._Sheet()
    sheet.lines(["One para-", "graph of three", "lines."])
    sheet.lines(["Another of well-", "Known words."], top=700)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.pdf").write_bytes(sheet.data())
    kept = pdf("--eval_share", "0")
    assert list(kept.questions.values()) == ["One para-\ngraph of three\nlines.\nAnother of well-\nKnown words."]
    joined = pdf("--eval_share", "0", "--line_ends", "join", output="joined")
    assert list(joined.questions.values()) == ["One paragraph of three lines.\nAnother of well-Known words."]


def test_a_few_letters_that_are_not_seen_are_left_out_and_counted(made_pdfs, pdf, tmp_path):
    sheet = made_pdfs._Sheet()
    body = ["a line of words that is long enough to make the others few"] * 12
    sheet.lines(body)
    sheet.write(-50, 400, "out")  # 3 of 591 letters
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.pdf").write_bytes(sheet.data())
    done = pdf("--eval_share", "0")
    assert list(done.questions.values()) == ["\n".join(body)]
    assert done.report["documents"][0]["lost_letters"] == {"1": 3}
    assert done.report["counts"]["lossy_pages"] == 1


def test_letters_of_a_font_that_is_not_there_leave_no_ink_within_a_line(made_pdfs, pdf, tmp_path):
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))  # its glyphs are not written into the file
    sheet = made_pdfs._Sheet()
    for row in range(10):
        sheet.write(60, 700 - 20 * row, "words in Latin letters and then")
        sheet.write(190, 700 - 20 * row, made_pdfs._CJK[row : row + 8], "STSong-Light")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.pdf").write_bytes(sheet.data())
    left_out = pdf("--eval_share", "0").report["documents"][0]["left_out"]
    if left_out:  # a machine with a Chinese font draws them
        assert left_out == [{"page": 1, "reason": "no_ink", "detail": "80 of 340 characters"}]


@pytest.mark.parametrize("mark", ["<image>", "</s>", "<|im_end|>", "<img>a.png</img>", "</think>", "[/think]"])
def test_pages_that_spell_the_marks_of_models_are_left_out(made_pdfs, pdf, tmp_path, mark):
    sheet = made_pdfs._Sheet()
    sheet.lines([f"The prompt of the model holds {mark} at this place."])
    sheet.end_page()
    sheet.lines(["A page with a < b > c and <nothing> that stands for a picture."])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.pdf").write_bytes(sheet.data())
    done = pdf("--eval_share", "0")
    said = "marks of a thought or an answer" if "think" in mark else mark
    assert done.report["documents"][0]["left_out"] == [{"page": 1, "reason": "mark", "detail": said}]
    assert len(read_questions(tmp_path / "out" / "questions.jsonl")) == 1


def test_wrong_arguments_are_refused_before_anything_is_written(made_pdfs, tmp_path, capsys):
    made_pdfs.write_folder(tmp_path / "in", 1)
    where = ["pdf", "--pdf", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    for words, said in [
        (["--dpi", "100", "--longest_side", "1000"], "expected --longest_side or --dpi, found both"),
        (["--name", "a/b"], "cannot be part of a file name"),
        (["--min_characters", "9", "--max_characters", "8"], "--min_characters is above --max_characters"),
        (["--question", "<image> and <image>"], "placeholders of 2 pictures"),
        (["--eval_share", "2"], "must be from 0 to 1"),
    ]:
        assert main([*where, *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["pdf", "--pdf", str(tmp_path / "none"), "--output", str(tmp_path / "out")]) == 2
    assert "found no folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*where, "--eval_share", "0"]) == 0
    assert main([*where, "--eval_share", "0"]) == 2
    assert "already exist" in capsys.readouterr().err
    assert main([*where, "--eval_share", "0", "--overwrite"]) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["counts"]["documents"] == 1
