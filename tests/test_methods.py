"""A training method is a row in `perpo.methods`, a loss in `perpo.losses`, and an entry of the trainer's table."""

import dataclasses
from typing import get_args

import pytest

from perpo import methods
from perpo.methods import METHODS, best, best_and_worst, every, unused_by, which
from perpo.results.colours import BY_METHOD, PALETTE
from perpo.results.leaderboard import board
from perpo.train.arguments import TrainArguments
from perpo.train.trainer import LOSSES
from tests.support.comparisons import compared_by_name


def test_every_method_has_a_loss_and_every_loss_a_method():
    assert list(LOSSES) == list(METHODS)
    assert get_args(methods.MethodName) == tuple(METHODS)
    assert all(name == row.name for name, row in METHODS.items())


def test_one_that_ranks_samples_and_only_such_a_one_takes_a_reference():
    assert all(row.samples for row in METHODS.values() if row.ranks)
    for row in METHODS.values():
        assert row.ranks == ({"beta", "reference", "precompute_reference"} <= set(row.takes))


def test_the_arguments_that_it_takes_are_arguments():
    known = {field.name for field in dataclasses.fields(TrainArguments)}
    for row in METHODS.values():
        assert set(row.takes) <= known
        assert set(unused_by(row.name)).isdisjoint(row.takes)
    taken = {argument for row in METHODS.values() for argument in row.takes}
    assert set(unused_by("unheard")) == taken


def test_names_titles_and_colours_are_told_apart():
    assert len({row.title for row in METHODS.values()} | {methods.UNTRAINED}) == len(METHODS) + 1
    assert len(set(BY_METHOD.values())) == len(BY_METHOD) == len(METHODS) + 1
    assert set(BY_METHOD.values()) <= set(PALETTE)
    assert list(board._METHODS.values()) == list(BY_METHOD)


def test_a_card_links_the_paper_of_a_method_that_has_one():
    for row in METHODS.values():
        link = f"[arXiv {row.paper}](https://arxiv.org/abs/{row.paper})"
        assert (link in row.card_line) == (row.paper is not None)
        assert "{" not in row.card_line


def test_no_code_asks_for_a_method_by_its_name():
    """What differs between methods stands in their rows; the names stand in no comparison."""
    assert compared_by_name("method", METHODS) == []


@pytest.mark.parametrize(
    ("rewards", "first", "pair"),
    [
        ([0.5, 0.1, 0.9, 0.3], [2], [1, 2]),
        ([0.9, 0.1, 0.9, 0.1], [0], [0, 1]),
        ([0.2, 0.2, 0.2], [0], [0, 1]),
        ([0.4], [0], None),
    ],
)
def test_what_is_picked(rewards, first, pair):
    assert best(rewards) == first
    assert pair is None or best_and_worst(rewards) == pair
    assert every(rewards) == list(range(len(rewards)))


def test_names_in_words():
    assert which(lambda row: row.name in ("dpo", "lipo", "perpo")) == "dpo, lipo and perpo"
    assert which(lambda row: row.name == "perpo") == "perpo"
