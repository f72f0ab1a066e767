"""perpo_eval.scorers.ocrbench_v2 against the official formula, built of NLTK's and jieba's own functions."""

from __future__ import annotations

import random
import re
import warnings

import jieba
import nltk
import pytest
from nltk.metrics import edit_distance, f_measure
from nltk.translate.meteor_score import meteor_score

from perpo.models.families import FAMILIES
from perpo_eval.benchmarks.ocrbench_v2 import OCRBENCH_V2
from perpo_eval.scorers.ocrbench_v2 import score_full_page
from tests.eval.scorers.test_ocr import no_wordnet, small_wordnet  # noqa: F401

ENGLISH = ["the", "The", "car", "auto", "run", "runs", "dash", "fast", "Total:", "12.50", "“page”", "ﬁne", "北京"]
CHINESE = [*"我来到北京清华大学的中文页面，第一章3.5元", "OCR ", "hello"]


def official(said: str, true: str) -> float:
    """The formula in the script's order: the answer first; what NLTK does not define counts 0."""
    if not said:
        return 0.0
    cut = jieba.lcut if re.search("[\u4e00-\u9fa5]", said + true) else str.split
    hypothesis, reference = cut(said), cut(true)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bleu = nltk.translate.bleu([reference], hypothesis)
    parts = bleu, meteor_score([reference], hypothesis), f_measure(set(reference), set(hypothesis)) or 0.0
    return (sum(parts) + 1 - edit_distance(said, true) / max(len(said), len(true))) / 4


def made_answers(count: int) -> list[tuple[str, str]]:
    """Pages and answers with words lost, added, turned round and repeated; some are empty."""
    rng = random.Random(0)
    pairs = []
    for number in range(count):
        words, joint = (CHINESE, "") if number % 3 == 0 else (ENGLISH, rng.choice([" ", "\n", "  "]))
        page = rng.choices(words, k=rng.randint(1, 30))
        said = [word for word in page if rng.random() > 0.1]
        for _ in range(rng.randint(0, 4)):
            said.insert(rng.randint(0, len(said)), rng.choice(words))
        if number % 7 == 0:
            rng.shuffle(said)
        text = "" if number % 40 == 0 else joint.join(said * (3 if number % 41 == 0 else 1))
        pairs.append((text, joint.join(page)))
    return [(said, true) for said, true in pairs if said.strip() or not said]


def test_600_made_answers_have_the_official_score(small_wordnet) -> None:  # noqa: F811
    pairs = made_answers(620)
    assert len(pairs) > 600
    found = [score_full_page(said, true)["page_score"] for said, true in pairs]
    assert found == pytest.approx([official(said, true) for said, true in pairs], abs=1e-12)
    assert 0.2 < sum(found) / len(found) < 0.9


def test_the_formula_written_out(small_wordnet) -> None:  # noqa: F811
    """One of two words is right: F1 1/2; METEOR of one match in one chunk is P = R = 1/2, less half; BLEU next to 0."""
    scores = score_full_page("dog cow", "dog hen")
    assert scores["bleu"] < 1e-70
    assert scores["page_score"] == pytest.approx((0 + 0.5 * 0.5 + 0.5 + 1 - 3 / 7) / 4)


@pytest.mark.parametrize("said", ["", " \n"])
def test_an_empty_answer_has_no_points(small_wordnet, said: str) -> None:  # noqa: F811
    assert score_full_page(said, "a page")["page_score"] == 0


def test_without_wordnet_there_is_no_score(no_wordnet) -> None:  # noqa: F811
    assert score_full_page("a page", "a page")["page_score"] is None
    assert score_full_page("", "a page")["page_score"] is None  # else the average would be that of empty answers


def test_a_response_is_scored_without_thoughts_and_white_space_around_it(small_wordnet) -> None:  # noqa: F811
    scored = OCRBENCH_V2.score("<think>hm</think>\n the car ", "the car", (2, 2), FAMILIES["llava"])
    assert (scored.prediction, scored.scores["page_score"]) == (
        "the car",
        score_full_page("the car", "the car")["page_score"],
    )
    lost = OCRBENCH_V2.score("<think>the car", "the car", (2, 2), FAMILIES["llava"])
    assert (lost.readable, lost.scores["page_score"]) == (False, 0)
