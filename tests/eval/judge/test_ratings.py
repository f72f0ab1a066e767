"""Ratings are read where they can mean one thing only; the official scripts' numbers are theirs, faults and all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perpo.benchmarks.metrics import METRICS
from perpo_eval.judge.ratings import (
    mmhal_flags,
    official_mmhal_rating,
    official_pair_rating,
    pair_flags,
    parse_mmhal_rating,
    parse_pair_rating,
)
from perpo_eval.judge.readings import readings
from perpo_eval.judge.table import JUDGINGS
from tests.support import ROOT

FAILED = (-1.0, -1.0)


@pytest.mark.parametrize(
    ("text", "pair", "official"),
    [
        ("8 9", (8, 9), (8, 9)),
        ("8,9", (8, 9), (8, 9)),
        ("8, 9", (8, 9), FAILED),  # the comma becomes a second space
        ("8.5/9", (8.5, 9), FAILED),
        ("Assistant 1: 8, Assistant 2: 7", (8, 7), FAILED),
        ("Scores: 8 and 9", (8, 9), FAILED),
        ("10 1.5\nThe first is better.", (10, 1.5), (10, 1.5)),
        ("8 9\n\nOn a scale of 1 to 10, 2 and 3 would be unfair.", (8, 9), (8, 9)),
        ("\n8 9", (8, 9), FAILED),  # only the first line is read there
        ("Here are the two scores:\n\n8 9\n\nThe first ...", (8, 9), FAILED),
        ("**8 9**", (8, 9), FAILED),
        ("(8, 9)", (8, 9), FAILED),  # the tuple that a judge may write
        ("8/10 9/10", (8, 9), FAILED),
        ("8/10, 9/10", (8, 9), FAILED),
        ("Scores: 8 and 9. Both answers name the place.", (8, 9), FAILED),
        ("Overall scores: 7 8", (7, 8), FAILED),
        ("**Assistant 1:** 8/10\n**Assistant 2:** 7.5/10\n\nBoth ...", (8, 7.5), FAILED),
        ("Assistant 1's score: 8\nAssistant 2's score: 7", (8, 7), FAILED),
        ("Assistant 2: 7. Assistant 1: 8.", (8, 7), FAILED),  # by name, not by place
        ("| Assistant 1 | 8 |\n| Assistant 2 | 7 |", (8, 7), FAILED),
        ("Assistant 1 gets 8 and Assistant 2 gets 7.", (8, 7), FAILED),
        ("<think>Maybe 5 5?\n5 5\n</think>\n\n8 9", (8, 9), FAILED),
        ("8，9", (8, 9), FAILED),  # a full-width comma
        ("Overall score: 9/10\nAssistant 1: 9\nAssistant 2: 8", (9, 8), FAILED),  # one score of ten is no pair
    ],
)
def test_pairs_that_can_be_read(text, pair, official) -> None:
    assert parse_pair_rating(text) == pair
    assert official_pair_rating(text) == official


def as_llavas_script_reads(review: str) -> list[float]:
    """The rule of LLaVA's eval_gpt_review_bench.py in the words of this test: two floats on the first line."""
    try:
        numbers = [float(word) for word in review.split("\n")[0].replace(",", " ").split(" ")]
    except ValueError:
        return [-1.0, -1.0]
    return numbers if len(numbers) == 2 else [-1.0, -1.0]


@pytest.mark.parametrize(
    "text",
    [
        "0 9\nAssistant 2 gave no answer.", "0 5", "80 90", "8 11", "-8 9", "2023 2024\n8 9", "0 0", "1e1 9", "0,9",
        "0.5 9.5",
    ],
)  # fmt: skip
def test_what_the_official_script_counts_is_counted_and_flagged_off_the_scale(text) -> None:
    expected = as_llavas_script_reads(text)
    assert expected != [-1.0, -1.0]
    assert list(parse_pair_rating(text) or ()) == list(official_pair_rating(text)) == expected
    off = any(not 1 <= score <= 10 for score in expected)
    assert ("out_of_scale" in pair_flags(text)) == off


@given(st.floats(-20, 200), st.floats(-20, 200), st.sampled_from([" ", ",", "  ", ", "]), st.text())
def test_a_first_line_that_the_official_script_reads_is_read_alike(first, second, between, rest) -> None:
    text = f"{first}{between}{second}\n{rest}"
    official = as_llavas_script_reads(text)
    assert list(official_pair_rating(text)) == official
    if official != [-1.0, -1.0]:
        assert list(parse_pair_rating(text) or ()) == official


@pytest.mark.parametrize(
    ("text", "official"),
    [
        ("", FAILED),
        ("I cannot rate these answers.", FAILED),
        ("8", FAILED),
        ("8/10", FAILED),  # one score of ten, or 8 and 10
        ("Score: 8/10", FAILED),
        ("Scores: 8/10. Both are good.", FAILED),
        ("Overall: 8 / 10", FAILED),
        ("8 9 10", FAILED),
        ("8/9/10", FAILED),
        ("8 9/10", FAILED),
        ("8-9", FAILED),  # a range
        ("Both give 2 good reasons, and 3 of them are wrong.", FAILED),
        ("nan 9", FAILED),
        ("Assistant 1: 8", FAILED),
        ("Assistant 1: 8, Assistant 2: 7\nOverall, Assistant 1: 6, Assistant 2: 7", FAILED),  # two scores for one
        ("Assistant 1: 3 apples are named. Assistant 2: 4 pears are.", FAILED),
        ("Assistant 1 and 2: equal, 8.", FAILED),
        ("<think>\n8 9\nor", FAILED),  # cut while it was thinking
    ],
)
def test_pairs_that_cannot_be_read(text, official) -> None:
    assert parse_pair_rating(text) is None
    assert official_pair_rating(text) == official


def test_a_second_pair_that_differs_is_flagged() -> None:
    assert parse_pair_rating("8 9\nOn reflection:\n7 9") == (8, 9)
    assert pair_flags("8 9\nOn reflection:\n7 9") == ["two_ratings"]
    assert pair_flags("8 9\nScores: 8 and 9") == pair_flags("8 9") == pair_flags("none") == []


@pytest.mark.parametrize(
    ("text", "rating", "official"),
    [
        ("Rating: 4", 4, 4),
        ("**Rating:** 4", 4, 0),  # "rating:** 4" does not hold "rating: 4"
        ("**Rating: 4**", 4, 4),
        ("rating:3", 3, 0),
        ("Rating:  3", 3, 0),
        ("Rating: 0, not informative, with hallucination", 0, 0),
        ("The answer is right.\n- Rating: 6, very informative with good analysis", 6, 6),
        ("Rating: 4/6", 4, 4),
        ("Rating: 4 out of 6.", 4, 4),
        ("Rating (0-6): 4", 4, 0),
        ("Rating: [[4]]", 4, 0),
        ('"rating": "5"', 5, 0),
        ("Rating: **4**", 4, 0),
        ("Rating:\n4", 4, 0),
        ("Rating - 4", 4, 0),
        ("I give a rating of 5.", 5, 0),
        ("Rating: 3. It does not deserve a rating of 6.", 3, 3),  # the label counts, not what is told of another
        ("Rating: 4 (a rating of 5 is for more detail)", 4, 4),
        ("A rating of 2 would be harsh.\nThe rating is: 3", 3, 0),
        ("Rating: 4\n- 2 dogs are named.", 4, 4),
        ("<think>Rating: 1</think>Rating: 4", 4, 0),
        ("Rating: 4.0", 4, 4),
    ],
)
def test_ratings_that_can_be_read(text, rating, official) -> None:
    assert parse_mmhal_rating(text) == rating
    assert official_mmhal_rating(text) == official


@pytest.mark.parametrize(
    ("text", "official"),
    [
        ("", 0),
        ("4", 0),  # no label
        ("The ratings vary from 3 to 5.", 0),
        ("Rating: 10", 1),  # its first digit
        ("Rating: 7", 0),
        ("Rating: -1", 0),
        ("Rating: 3.5", 3),
        ("Rating: 4/10", 4),  # another scale
        ("Rating: 8 out of 10", 0),
        ("Rating: 3-4", 3),
        ("Rating: 3 or 4", 3),
        ("Rating: 4\nRating: 10", 0),  # the last one decides
        ("Rating: four", 0),
        ("Operating: 4", 4),
    ],
)
def test_ratings_that_cannot_be_read(text, official) -> None:
    assert parse_mmhal_rating(text) is None
    assert official_mmhal_rating(text) == official


def test_the_last_of_two_ratings_counts_and_is_flagged() -> None:
    text = "An answer like this could get Rating: 4. But it names a dog.\nRating: 2"
    assert (parse_mmhal_rating(text), official_mmhal_rating(text)) == (2, 0)
    assert mmhal_flags(text) == ["two_ratings"]
    assert mmhal_flags("Rating: 4. As I said, rating: 4") == mmhal_flags("Rating: 4") == mmhal_flags("") == []


SCORES = st.integers(4, 40).map(lambda quarters: quarters / 4)


@given(
    SCORES, SCORES, st.sampled_from(["{:g} {:g}", "{:g}, {:g}", "Assistant 1: {:g}, Assistant 2: {:g}", "{:g}/{:g}"])
)
@example(8, 10, "{:g} {:g}")
def test_whatever_pair_is_written_is_read(first, second, form) -> None:
    text = form.format(first, second)
    # "8/10" could be one score of ten
    assert parse_pair_rating(text) == (None if form == "{:g}/{:g}" and second == 10 else (first, second))


@given(st.one_of(st.text(), st.text(alphabet="0123456789 ,./:-\nAssistant12ratingRscoe|*()")))
@example("Rating: 99999999999999999999999999999999999999999999999999")
@example("9" * 400 + " 1")
def test_any_text_is_read_on_the_scale_or_flagged_or_not_at_all(text) -> None:
    pair, rating = parse_pair_rating(text), parse_mmhal_rating(text)
    off = pair is not None and any(not 1 <= score <= 10 for score in pair)
    assert off == ("out_of_scale" in pair_flags(text))
    assert rating is None or rating in range(7)
    assert official_mmhal_rating(text) in range(7)
    assert all(isinstance(score, float) for score in official_pair_rating(text))
    assert set(pair_flags(text) + mmhal_flags(text)) <= {"two_ratings", "out_of_scale"}


def test_published_prompts_are_not_read_as_ratings() -> None:
    """What a judge was asked, said back, gives no rating, or a flagged one."""
    prompts = ROOT / "eval/perpo_eval/judge/prompts"
    for rule in json.loads((prompts / "llava_bench.json").read_text()).values():
        assert parse_pair_rating(rule["prompt"]) is None
    assert mmhal_flags((prompts / "mmhal.txt").read_text()) == ["two_ratings"]


def test_a_zero_counts_in_the_relative_score_and_its_interval_and_is_told() -> None:
    """Of three pairs (8, 4), (8, 6), (9, 0) the model has 10 of the reference's 25; without the 0, 10 of 16."""
    said = ["8 4", "8 6", "9 0"]
    votes = [
        [{"vote": 0, "swapped": False, "rating": parse_pair_rating(text), "official": official_pair_rating(text)}]
        for text in said
    ]
    ratings = [JUDGINGS["llava_bench"].scores(each)[0] for each in votes]
    columns = {name: np.array([rating[name] for rating in ratings]) for name in ("model", "reference")}
    (relative,) = (metric for metric in METRICS["llava_bench"] if metric.name == "relative_score")
    found = relative.estimate(columns, np.array(["a", "b", "c"]), np.zeros(3))
    assert found.value == pytest.approx(10 / 25)
    assert found.ci_low is not None
    assert found.ci_low >= 0
    told = {m.name: m for m in readings("llava_bench", [json.dumps(each) for each in votes], ["a", "b", "c"])}
    assert (told["relative_score:out_of_scale"].value, told["relative_score:out_of_scale"].n) == (1 / 3, 3)
    assert "relative_score:official" not in told  # the same
