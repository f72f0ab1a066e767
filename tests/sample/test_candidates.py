"""Filters and the summary, with numbers worked out by hand."""

from __future__ import annotations

import pytest

from perpo.sample.candidates import AnswerSet, Summary, summarise


def answer_set(answers, rewards, *, truncated=None, looped=None, readable=None, id=0):
    return AnswerSet(
        id=id,
        answers=answers,
        rewards=rewards,
        readable=readable or [True] * len(answers),
        truncated=truncated or [False] * len(answers),
        looped=looped or [False] * len(answers),
        reference_logps=[-float(k) for k in range(len(answers))],
    )


def test_of_equal_answers_the_first_stays_and_the_order_is_kept():
    answers = answer_set(["b", "a", "b", "c", "a"], [0.1, 0.2, 0.1, 0.3, 0.2], id=4)
    assert answers.distinct() == AnswerSet(
        id=4,
        answers=["b", "a", "c"],
        rewards=[0.1, 0.2, 0.3],
        readable=[True] * 3,
        truncated=[False] * 3,
        looped=[False] * 3,
        reference_logps=[0.0, -1.0, -3.0],
    )


def test_of_equal_answers_one_with_a_log_prob_stays():
    answers = AnswerSet(
        id=0,
        answers=["a", "b", "a", "a", "b"],
        rewards=[0.1, 0.2, 0.1, 0.1, 0.2],
        readable=[True] * 5,
        truncated=[False] * 5,
        looped=[False] * 5,
        reference_logps=[None, None, -2.0, -3.0, None],
    )
    assert answers.distinct().answers == ["a", "b"]
    assert answers.distinct().reference_logps == [-2.0, None]


def test_an_answer_that_was_cut_is_another_than_the_same_text_finished():
    answers = answer_set(["a", "a", "a"], [0.5] * 3, truncated=[True, False, True])
    assert answers.distinct().truncated == [True, False]


@pytest.mark.parametrize(
    ("rewards", "truncated", "margin"),
    [
        ([0.25, 1.0, 0.5], [False, False, False], 0.75),
        ([0.25, 1.0, 0.5], [False, True, False], 0.25),
        ([0.25, 1.0, 0.5], [True, True, False], 0.0),
        ([0.25, 1.0, 0.5], [True, True, True], 0.0),
    ],
)
def test_the_margin_is_that_of_the_finished_answers(rewards, truncated, margin):
    assert answer_set(["a", "b", "c"], rewards, truncated=truncated).margin() == margin


def test_the_summary():
    sets = [
        answer_set(["a", "a", "b", "?"], [1.0, 1.0, 0.95, 0.0], readable=[True, True, True, False]),
        answer_set(
            ["c", "d", "e", "f"],
            [0.0, 0.1, 0.55, 0.0],
            truncated=[False, True, False, True],
            looped=[True, True, False, False],
            id=1,
        ),
    ]
    summary = summarise(sets, kept=1)
    assert summary == Summary(
        questions=2,
        kept=1,
        candidates=8,
        distinct=7,
        unreadable=1,
        truncated=2,
        looped=2,
        looped_truncated=1,
        mean_reward=pytest.approx(3.6 / 8),
        best_of_n=pytest.approx((1.0 + 0.55) / 2),
        histogram=[3, 1, 0, 0, 0, 1, 0, 0, 0, 3],
    )
    text = str(summary)
    assert "candidates           8, 7 (87.5%) distinct" in text
    assert "unreadable           1 (12.5%)" in text
    assert "cut                  2 (25.0%)" in text
    assert "end in a loop        2 (25.0%), 1 of them cut" in text
    assert "kept                 1 (50.0%) of the questions" in text
    assert "best of N            0.775" in text
    assert f"  0.9-1.0         3  {'#' * 40}" in text
