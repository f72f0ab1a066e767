"""perpo_eval.scorers.ocr against NLTK's own functions in the order of Fox's script, and against closed forms."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import jieba
import nltk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.metrics import f_measure, precision, recall
from nltk.translate.meteor_score import meteor_score

from perpo.models.families import FAMILIES
from perpo.prepare import wordnet
from perpo_eval.benchmarks.ocr import OCR_PAGES
from perpo_eval.scorers import ocr
from perpo_eval.scorers.ocr import PageScores, score_page, wordnet_found
from tests.support import ROOT

DEBIAN = wordnet.DEBIAN  # before a test puts another folder in its place
SYNSETS = {
    "noun": [["car", "auto"], ["dog", "hound"]],
    "adj": [["fast", "quick"]],
    "verb": [["run", "dash"]],
    "adv": [],
}
PAIRS = [
    ("the cat sat on the mat", "the cat sat on the mat"),
    ("the cat sat on a mat", "the cat sat on the mat today"),
    ("the the the the", "the cat on the mat"),
    ("The quick car runs", "the fast auto running"),
    ("Total: 12.50 EUR\nThank you!", "Total: 12,50 EUR\n\nThank you"),
    ("one", "two words"),
    ("我来到北京清华大学", "我来到了北京大学。"),
    ("第1页 hello world", "第1页 Hello, world"),
    ("english only", "混合 english 文本"),
    ("一一一一", "一"),
]


def write_wordnet(folder: Path, synsets: dict[str, list[list[str]]]) -> None:
    """A database of WordNet's format (wndb(5WN)): a synset's line is found by its offset in its file."""
    folder.mkdir(parents=True)
    for number, (kind, groups) in enumerate(synsets.items()):
        data, index = "  1 WordNet 3.0 Copyright\n", ""
        letter = "nvar"[("noun", "verb", "adj", "adv").index(kind)]
        for words in groups:
            offset = f"{len(data):08}"
            frames = "01 + 02 00 " if kind == "verb" else ""
            listed = " ".join(f"{word} 0" for word in words)
            data += f"{offset} {number:02} {letter} {len(words):02x} {listed} 000 {frames}| words alike  \n"
            index += "".join(f"{word} {letter} 1 0 1 0 {offset}\n" for word in words)
        (folder / f"data.{kind}").write_text(data)
        (folder / f"index.{kind}").write_text(index)
        (folder / f"{kind}.exc").touch()


def forget() -> None:
    """What the process has learnt of WordNet."""
    nltk.corpus.wordnet._unload()
    ocr._meteor_available.cache_clear()


@pytest.fixture
def no_wordnet(tmp_path, monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk_data")])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget()
    yield
    forget()


@pytest.fixture(scope="module")
def small_wordnet(tmp_path_factory) -> Iterator[None]:
    """A WordNet of five words and their synonyms, put where NLTK finds it by the program's own copy."""
    folder = tmp_path_factory.mktemp("wordnet")
    write_wordnet(folder / "files", SYNSETS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk.data, "path", [])
        patch.setattr(nltk, "download", lambda *_, **__: False)
        patch.setattr(wordnet, "DEBIAN", folder / "files")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        wordnet.find_or_fetch()
        forget()
        yield
        forget()


def fox(pred: str, gt: str) -> dict[str, float]:
    """The metrics by NLTK's functions, as Fox's script names them; the script calls this with (label, answer)."""
    chinese = any(re.search("[\u4e00-\u9fa5]", text) for text in (pred, gt))
    reference, hypothesis = (jieba.lcut(text) if chinese else text.split() for text in (gt, pred))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bleu = nltk.translate.bleu([reference], hypothesis)
    return {
        "edit_distance": nltk.edit_distance(pred, gt) / max(len(pred), len(gt)),
        "f1": f_measure(set(reference), set(hypothesis)) or 0.0,
        "precision": precision(set(reference), set(hypothesis)),
        "recall": recall(set(reference), set(hypothesis)),
        "bleu": bleu,
        "meteor": meteor_score([reference], hypothesis),
    }


@pytest.mark.parametrize(("said", "true"), PAIRS)
def test_both_orders_equal_nltk(small_wordnet, said: str, true: str) -> None:
    assert asdict(score_page(said, true)) == pytest.approx(fox(said, true), abs=1e-12)
    assert asdict(score_page(said, true, swapped=True)) == pytest.approx(fox(true, said), abs=1e-12)


words = st.sampled_from(
    ["the", "The", "car", "auto", "run", "runs", "dash", "fast", "quick", "a", "dog,", "北京", "大学"]
)
text = st.lists(words, min_size=1, max_size=12).flatmap(
    lambda w: st.sampled_from([" ", "\n", "  "]).map(lambda s: s.join(w))
)


@settings(max_examples=150, deadline=None)
@given(text, text)
def test_both_orders_equal_nltk_on_drawn_texts(small_wordnet, said: str, true: str) -> None:
    assert asdict(score_page(said, true)) == pytest.approx(fox(said, true), abs=1e-12)
    assert asdict(score_page(said, true, swapped=True)) == pytest.approx(fox(true, said), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_every_score_lies_between_0_and_1(small_wordnet, said: str, true: str) -> None:
    for scores in (score_page(said, true), score_page(said, true, swapped=True)):
        assert all(0 <= value <= 1 for value in asdict(scores).values())


def test_the_formulas_written_out(small_wordnet) -> None:
    """4 of 5 words, 3 of 4 pairs, 2 of 3 triples and 1 of 2 fours match; the answer is one word short."""
    scores = score_page("a b c d e", "a b c d f g")
    assert scores.bleu == pytest.approx(math.exp(1 - 6 / 5) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx((4 / 5, 4 / 6, 8 / 11))
    assert scores.edit_distance == pytest.approx(3 / 11)  # one letter replaced, a blank and a letter added
    # Four matches in one chunk: (1 - 0.5 (1 / 4)^3) P R / (0.9 P + 0.1 R).
    assert scores.meteor == pytest.approx((1 - 0.5 / 64) * (4 / 5 * 4 / 6) / (0.9 * 4 / 5 + 0.1 * 4 / 6))


def test_the_scripts_order_swaps_precision_and_recall_and_turns_bleu_and_meteor_round(small_wordnet) -> None:
    said, true = "a b c d", "a b c d e f g h"
    natural, script = score_page(said, true), score_page(said, true, swapped=True)
    assert (natural.precision, natural.recall) == (script.recall, script.precision) == (1.0, 0.5)
    assert (natural.f1, natural.edit_distance) == (script.f1, script.edit_distance)
    assert natural.bleu == pytest.approx(math.exp(1 - 2))  # brevity alone
    assert script.bleu == pytest.approx((4 / 8 * 3 / 7 * 2 / 6 * 1 / 5) ** 0.25)
    assert natural.meteor == pytest.approx((1 - 0.5 / 64) * 0.5 / (0.9 + 0.05))
    assert script.meteor == pytest.approx((1 - 0.5 / 64) * 0.5 / (0.45 + 0.1))


def test_synonyms_and_stems_count_in_meteor(small_wordnet) -> None:
    """One chunk of four words, two of them synonyms; as strangers they would leave two chunks of one."""
    assert score_page("the car is fast", "the auto is quick").meteor == pytest.approx(1 - 0.5 / 64)
    assert score_page("the car is fast", "the dog is brown").meteor == pytest.approx(0.5 * 0.5)
    assert score_page("dogs running", "dog runs").meteor == pytest.approx(1 - 0.5 / 8)


def test_words_are_a_set(small_wordnet) -> None:
    """Repeating a word neither helps nor harms."""
    once, often = score_page("a b", "a b c"), score_page("a b a a b", "a b c c c")
    assert (once.f1, once.precision, once.recall) == (often.f1, often.precision, often.recall) == (0.8, 1.0, 2 / 3)


def test_one_chinese_character_cuts_both_texts_by_jieba(small_wordnet) -> None:
    """jieba parts "hello," from its comma, and makes a word of each blank."""
    assert score_page("hello, you", "hello you").precision == 0.5
    assert score_page("hello, you", "hello you 好").precision == pytest.approx(3 / 4)


@pytest.mark.parametrize("blank", ["", " ", "\n\t "])
@pytest.mark.parametrize("swapped", [False, True])
def test_empty_texts(small_wordnet, blank: str, swapped: bool) -> None:
    assert score_page("", blank, swapped=swapped) == PageScores(0.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert score_page("a page", blank, swapped=swapped) == PageScores(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert score_page(blank, "一页", swapped=swapped) == PageScores(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_without_wordnet_meteor_is_none_and_that_is_said_once(no_wordnet, capsys) -> None:
    assert not wordnet_found()
    for said, true in (("a b", "a b"), ("", ""), ("北京", "北京")):
        scores = score_page(said, true)
        assert (scores.meteor, scores.f1) == (None, 1.0)
    err = capsys.readouterr().err
    assert err.count("warning") == 1
    assert "perpo-data wordnet" in err


def test_wordnet_is_found_in_the_cache(no_wordnet, tmp_path, monkeypatch) -> None:
    write_wordnet(tmp_path / "files", SYNSETS)
    monkeypatch.setattr(wordnet, "DEBIAN", tmp_path / "files")
    monkeypatch.setattr(nltk, "download", lambda *_, **__: False)
    place = wordnet.find_or_fetch()
    assert place == tmp_path / "cache" / "perpo" / "nltk_data" / "corpora" / "wordnet"
    assert wordnet_found()
    assert score_page("car", "auto").meteor == pytest.approx(0.5)


@pytest.mark.skipif(not (DEBIAN / "data.noun").is_file(), reason="WordNet is not here")
def test_the_real_wordnet(no_wordnet, monkeypatch) -> None:
    monkeypatch.setattr(wordnet, "DEBIAN", DEBIAN)
    monkeypatch.setattr(nltk, "download", lambda *_, **__: False)
    wordnet.find_or_fetch()
    assert score_page("the car is fast", "the auto is quick").meteor == pytest.approx(1 - 0.5 / 64)
    for said, true in PAIRS:
        assert asdict(score_page(said, true)) == pytest.approx(fox(said, true), abs=1e-12)
    assert len(nltk.corpus.wordnet.synsets("dog")) > 5


def test_the_edit_distance_of_normal_forms_stands_beside_the_raw_one(small_wordnet) -> None:
    scores = OCR_PAGES.score("ﬁne cafe\u0301", "fine café", (2, 2), FAMILIES["llava"]).scores
    # Of ten characters, ﬁ for two letters and e with its accent for one: four changes, two of them insertions.
    assert scores["edit_distance"] == pytest.approx(4 / 9)
    assert scores["edit_distance:normalised"] == 0


def test_jieba_leaves_no_file_and_keeps_its_own_words(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ocr._jieba.cache_clear()
    fresh = ocr._jieba().lcut("我来到北京清华大学")
    assert fresh == ["我", "来到", "北京", "清华大学"]
    assert (list(tmp_path.iterdir()), capfd.readouterr()) == ([], ("", ""))
    jieba.add_word("我来到北京")
    try:
        assert ocr._jieba().lcut("我来到北京清华大学") == fresh
    finally:
        jieba.del_word("我来到北京")


def test_the_benchmark_finds_equal_distances() -> None:
    """Its smallest size; it stops where NLTK's distance is another."""
    script = ROOT / "benchmarks" / "ocr_scoring.py"
    sizes = ["--pages", "3", "--characters", "80", "--timed", "3"]
    done = subprocess.run([sys.executable, script, *sizes], capture_output=True, text=True, check=True, timeout=60)
    assert "3 pages of 80 characters" in done.stdout
    assert re.search(r"its distances equal ours\nratio of the edit distances: \d+ x", done.stdout)
