"""Blind votes: what is drawn, on which side it stands, and which votes count."""

from collections import Counter
from dataclasses import asdict, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from perpo.errors import PerpoError
from perpo.results.samples import Scores
from perpo_dashboard.vote import votes
from perpo_dashboard.vote.votes import (
    AskedSample,
    Opened,
    Pool,
    Study,
    Vote,
    ballot,
    draw,
    majority,
    new_study,
    outcome,
    pool_of,
)


def _pool(tasks, clusters, alike=None):
    keys = np.array([f"{place:064x}" for place in range(len(tasks))])
    alike = np.zeros(len(tasks), dtype=bool) if alike is None else np.array(alike)
    return Pool(keys, np.array(tasks), np.array(clusters), alike)


def _study(count=8, runs=("one", "two")):
    questions = tuple(AskedSample("t", f"{place:064x}") for place in range(count))
    return Study("ab12cd34", "2026-01-01T00:00:00+00:00", 3, runs, ("1" * 64, "2" * 64), questions, 0)


def _vote(study, place, choice, voter="ann", left="one"):
    question = study.questions[place]
    return Vote(study.id, voter, question.task, question.sample_key, left, choice, votes.now())


def test_each_task_is_asked_about_as_often_and_different_images_first():
    pool = _pool(["a"] * 90 + ["b"] * 10, ["x"] * 80 + [f"c{n}" for n in range(20)])
    drawn = draw(pool, 20, seed=1)
    assert Counter(question.task for question in drawn) == {"a": 10, "b": 10}
    images = {str(key): str(cluster) for key, cluster in zip(pool.keys, pool.clusters, strict=True)}
    assert max(Counter(images[question.sample_key] for question in drawn).values()) == 1  # x once, of 80


def test_the_draw_depends_on_the_seed_and_ends_with_the_pool():
    pool = _pool(["a"] * 50, [str(n) for n in range(50)])
    assert draw(pool, 10, 1) == draw(pool, 10, 1) != draw(pool, 10, 2)
    assert len(set(draw(pool, 99, 1))) == 50


def test_the_pool_is_what_both_answered():
    def scores(keys, tasks):
        return Scores(np.array(keys), np.array(tasks), np.array([f"image {key}" for key in keys]), {})

    first = scores(["a", "b", "c", "d", "e"], ["t", "t", "t", "t", "u"])
    second = scores(["b", "c", "d", "e", "f"], ["t", "t", "t", "t", "t"])
    said = pa.array(["1", "2", " 3", "4", "5"]), pa.array(["2", "x", None, "5", "6"])
    pool = pool_of(first, second, said)
    assert list(pool.keys) == ["b", "c"]  # d has no answer, e is of another task
    assert list(pool.alike) == [True, False]
    assert list(pool.clusters) == ["image b", "image c"]
    with pytest.raises(PerpoError, match="no sample in common"):
        pool_of(first.take(np.array([0])), second, (said[0].take(pa.array([0])), said[1]))


def test_answers_that_are_alike_are_asked_only_if_wanted():
    pool = _pool(["a"] * 4, list("wxyz"), [True, True, False, False])
    make = {"runs": ("one", "two"), "samples_sha256": ("1", "2"), "pool": pool, "count": 9, "seed": 0}
    fewer, all_of_them = new_study(**make, ask_alike=False), new_study(**make, ask_alike=True)
    assert (len(fewer.questions), fewer.alike) == (2, 2)
    assert (len(all_of_them.questions), all_of_them.alike) == (4, 0)
    with pytest.raises(PerpoError, match="the same answer to every question"):
        new_study(**make | {"pool": pool.take(pool.alike)}, ask_alike=False)


def test_each_voter_has_an_order_of_their_own_that_stays():
    study = _study(40)
    ann, bob = ballot(study, "ann"), ballot(study, "bob")
    assert ann == ballot(study, "ann") != bob
    assert {question for question, _ in ann} == {question for question, _ in bob} == set(study.questions)
    assert sum(left for _, left in ann) == sum(left for _, left in bob) == 20
    assert [question for question, _ in ann] != list(study.questions)


@pytest.mark.parametrize(
    ("choice", "left", "won"),
    [
        ("left", "one", "first"),
        ("left", "two", "second"),
        ("right", "one", "second"),
        ("right", "two", "first"),
        ("tie", "two", "tie"),
        ("both bad", "one", "both bad"),
    ],
)
def test_a_vote_means_the_run_that_stood_there(choice, left, won):
    study = _study()
    assert outcome(study, _vote(study, 0, choice, left=left)) == won


@pytest.mark.parametrize(
    ("said", "most"),
    [
        (["first"], "first"),
        (["first", "second", "second"], "second"),
        (["first", "second"], "tie"),
        (["both bad", "both bad", "tie"], "both bad"),
        (["first", "first", "second", "second", "both bad"], "tie"),
    ],
)
def test_majority(said, most):
    assert majority(said) == most


def test_the_later_vote_counts_and_a_session_goes_on(tmp_path):
    file, study = tmp_path / "votes.jsonl", _study()
    for row in (study, _vote(study, 0, "left"), _vote(study, 1, "tie"), _vote(study, 0, "right")):
        votes.add(file, row)
    found = votes.read(file)
    assert found.studies == {study.id: study}
    assert {q: vote.choice for q, vote in found.of(study, "ann").items()} == {
        study.questions[0]: "right", study.questions[1]: "tie",
    }  # fmt: skip
    assert found.of(study, "bob") == {}
    assert found.outcomes(study) == {"ann": {study.questions[0]: "second", study.questions[1]: "tie"}}
    order = ballot(study, "ann")
    place = votes.next_question(order, found.of(study, "ann"))
    assert order[place][0] not in found.of(study, "ann")
    assert all(question in found.of(study, "ann") for question, _ in order[:place])


def test_a_finished_ballot_has_no_next_question():
    study = _study(3)
    order = ballot(study, "ann")
    assert votes.next_question(order, dict.fromkeys(study.questions)) is None


def test_votes_after_the_names_were_seen_do_not_count(tmp_path):
    file, study = tmp_path / "votes.jsonl", _study()
    for row in (
        study,
        _vote(study, 0, "left"),
        Opened(study.id, "ann", votes.now()),
        _vote(study, 0, "right"),
        _vote(study, 1, "right"),
        _vote(study, 1, "left", voter="bob"),
    ):
        votes.add(file, row)
    found = votes.read(file)
    assert found.outcomes(study) == {"ann": {study.questions[0]: "first"}, "bob": {study.questions[1]: "first"}}
    assert found.late == {study.id: 2}
    assert found.seen == {(study.id, "ann")}


def test_lines_that_make_no_sense_are_counted_and_spoil_nothing(tmp_path):
    file, study = tmp_path / "votes.jsonl", _study()
    votes.add(file, study)
    stranger = AskedSample("t", "f" * 64)
    for row in (
        {"kind": "vote"},
        {"kind": "riot"},
        {},
        {**vars(_vote(study, 0, "left")), "choice": "3"},
        {**vars(_vote(study, 0, "left")), "left": "three"},
        {**vars(_vote(study, 0, "left")), "sample_key": stranger.sample_key},
        {**vars(_vote(study, 0, "left")), "study": "unknown"},
        {**asdict(study), "id": "other", "created_utc": "some day"},
    ):
        votes.json_lines.append(file, {name: value for name, value in row.items() if not name.startswith("__")})
    votes.add(file, _vote(study, 0, "left"))
    found = votes.read(file)
    assert found.unread == 8
    assert found.outcomes(study) == {"ann": {study.questions[0]: "first"}}


def test_the_day_of_a_study_is_that_in_utc():
    times = {"2026-02-01T00:30:00+02:00": date(2026, 1, 31), "2026-01-31T22:30:00-05:00": date(2026, 2, 1)}
    for text, day in times.items():
        assert replace(_study(), created_utc=text).day == day


def test_no_file_holds_no_votes(tmp_path):
    found = votes.read(tmp_path / "votes.jsonl")
    assert (found.studies, found.votes, found.unread) == ({}, {}, 0)
