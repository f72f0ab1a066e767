"""Shares and agreement, against closed forms, statsmodels, and the worked example of the method's author."""

import math

import numpy as np
import pytest
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa

from perpo_dashboard.vote.tally import agreements, by_question, cohen_kappa, krippendorff_alpha, share, tally
from perpo_dashboard.vote.votes import AskedSample


@pytest.mark.parametrize(("count", "n"), [(0, 7), (7, 7), (3, 10), (61, 100)])
def test_wilson_interval_solves_its_equation(count, n):
    """Its bounds p are where |count/n - p| = z sqrt(p (1 - p) / n); at 0 and n one of them is the edge itself."""
    found = share(count, n)
    z = 1.959963984540054
    for bound in (found.low, found.high):
        assert abs(count / n - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), abs=1e-9)
    assert found.low <= count / n <= found.high
    assert found.low < found.high


def test_a_share_of_nothing_is_unknown():
    assert (share(0, 0).value, share(0, 0).low, share(0, 0).high) == (None, None, None)


def test_tally_counts_each_outcome_and_what_was_decided():
    found = tally(["first", "second", "second", "tie", "both bad"])
    assert {name: each.count for name, each in found.shares.items()} == {
        "first": 1, "second": 2, "tie": 1, "both bad": 1,
    }  # fmt: skip
    assert {each.n for each in found.shares.values()} == {5}
    assert (found.preferred.count, found.preferred.n) == (2, 3)
    assert tally([]).preferred.value is None


def test_a_question_counts_once_with_what_most_say():
    q = [AskedSample("t", str(n)) for n in range(3)]
    voters = {
        "ann": {q[0]: "first", q[1]: "first", q[2]: "both bad"},
        "bob": {q[0]: "first", q[1]: "second"},
        "eve": {q[0]: "tie"},
    }
    assert by_question(voters) == {q[0]: "first", q[1]: "tie", q[2]: "both bad"}


def _answers(voters, questions, seed):
    return np.random.default_rng(seed).choice(4, size=(questions, voters), p=[0.5, 0.3, 0.15, 0.05])


@pytest.mark.parametrize("seed", range(3))
def test_kappa_is_that_of_statsmodels(seed):
    answers = _answers(2, 40, seed)
    answers[:20, 1] = answers[:20, 0]
    table = np.zeros((4, 4))
    np.add.at(table, (answers[:, 0], answers[:, 1]), 1)
    assert cohen_kappa(*answers.T.tolist()) == pytest.approx(cohens_kappa(table).kappa)


@pytest.mark.parametrize("voters", [2, 3, 5])
def test_alpha_is_fleiss_kappa_with_the_smaller_sample_in_mind(voters):
    """With all answers there, alpha = 1 - (1 - kappa) (N - 1) / N, where N counts the answers."""
    answers = _answers(voters, 30, voters)
    answers[:12] = answers[:12, :1]
    kappa = fleiss_kappa(aggregate_raters(answers)[0])
    size = answers.size
    assert krippendorff_alpha(answers.tolist()) == pytest.approx(1 - (1 - kappa) * (size - 1) / size)


def test_alpha_of_the_authors_example_with_missing_answers():
    """Krippendorff 2011, example C: four observers, twelve units, nominal alpha 0.743."""
    observers = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]  # a dot where there is none
    units = [[row[place] for row in observers if row[place] != "."] for place in range(12)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_agreement_that_is_undefined_is_unknown():
    assert cohen_kappa([], []) is None
    assert cohen_kappa(["tie"] * 3, ["tie"] * 3) is None
    assert krippendorff_alpha([["tie"], []]) is None
    assert krippendorff_alpha([["tie", "tie"], ["tie", "tie"]]) is None


def test_pairs_are_compared_where_both_voted():
    q = [AskedSample("t", str(n)) for n in range(4)]
    voters = {
        "ann": dict(zip(q, ["first", "first", "second", "tie"], strict=True)),
        "bob": dict(zip(q[:3], ["first", "second", "second"], strict=True)),
        "eve": {},
    }
    one, none, _ = agreements(voters)
    assert (one.voters, one.questions, one.agreed.count) == (("ann", "bob"), 3, 2)
    assert one.kappa == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))  # chance: 2/3 x 1/3 + 1/3 x 2/3
    assert (none.questions, none.kappa, none.agreed.value) == (0, None, None)
