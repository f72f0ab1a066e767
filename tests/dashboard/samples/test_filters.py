"""What is asked for and in which order: against plain loops over the same rows."""

import numpy as np
import pyarrow as pa
import pytest

from perpo_dashboard.samples.filters import SORTS, Condition, Filter, chosen, ordered
from perpo_dashboard.shared.outcomes import Pair

NAN = float("nan")
MEASURE = np.array([[0.2, 0.9, NAN, 0.5, 0.5, 0.1], [0.7, 0.1, 0.5, 0.5, NAN, 0.2]])
COLUMNS = {
    "question": ["Is it?", "Where is the RING", None, "ring (a.b)", "", "straße"],
    "response": [["yes", "no", None, "a ring", "12345678", "x"], ["no", "no", "yes", "b", "", "Yes."]],
    "parse_ok": [[True, False, None, True, True, True], [True, True, True, False, True, False]],
    "tokens_out": [[1, 2, 3, None, 5, 6], [6, 5, 4, 3, 2, 1]],
    "scores": [[{"iou": v} for v in (0.2, 0.9, None, 0.5, 0.5, 0.1)]] * 2,
}


@pytest.fixture
def pair() -> Pair:
    right = np.where(np.isnan(MEASURE), -1, MEASURE >= 0.5).astype(np.int8)
    keys, places = np.array([f"k{n}" for n in range(6)]), np.tile(np.arange(6), (2, 1))
    return Pair(
        keys, ["boxes", "pages"], np.array([0, 0, 0, 1, 1, 1]), np.arange(6), places, MEASURE, right, np.ones(2)
    )


def column(run: int, name: str) -> pa.Array:
    values = COLUMNS[name]
    return pa.array(values[run] if isinstance(values[0], list) else values)


BOTH = ("boxes", "pages")


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        (Filter(BOTH), [0, 1, 2, 3, 4, 5]),
        (Filter(("pages",)), [3, 4, 5]),
        (Filter(()), []),
        (Filter(BOTH, outcome="only B"), [0]),
        (Filter(BOTH, outcome="only A"), [1]),
        (Filter(BOTH, outcome="both right"), [3]),
        (Filter(BOTH, outcome="both wrong"), [5]),
        (Filter(BOTH, question="ring"), [1, 3]),
        (Filter(BOTH, question="(A.B)"), [3]),
        (Filter(BOTH, question="STRASSE"), []),
        (Filter(BOTH, question="STRAßE"), [5]),
        (Filter(BOTH, answer="yes"), [0, 2, 5]),
        (Filter(BOTH, unreadable="A"), [1]),
        (Filter(BOTH, unreadable="B"), [3, 5]),
        (Filter(BOTH, unreadable="either"), [1, 3, 5]),
        (Filter(BOTH, unreadable="neither"), [0, 2, 4]),
        (Filter(BOTH, a=(0.2, 0.5)), [0, 3, 4]),
        (Filter(BOTH, b=(0.0, 1.0)), [0, 1, 2, 3, 5]),
        (Filter(BOTH, keys=frozenset({"k4", "k1", "of others"})), [1, 4]),
        (Filter(BOTH, keys=frozenset()), []),
        (Filter(BOTH, condition=Condition(0, "tokens_out", low=2, high=5)), [1, 2, 4]),
        (Filter(BOTH, condition=Condition(1, "tokens_out", high=2)), [4, 5]),
        (Filter(BOTH, condition=Condition(0, "scores.iou", low=0.5)), [1, 3, 4]),
        (Filter(BOTH, condition=Condition(1, "response", holds="NO")), [0, 1]),
        (Filter(("boxes",), outcome="only B", question="is it", answer="yes"), [0]),
    ],
)
def test_each_part_narrows_what_is_asked_for(pair, wanted, places):
    assert np.flatnonzero(chosen(pair, wanted, column)).tolist() == places


@pytest.mark.parametrize(
    ("sort", "places"),
    [
        ("disagreement", [1, 0, 5, 3, 2, 4]),
        ("B gains most", [0, 5, 3, 1, 2, 4]),
        ("B loses most", [1, 3, 5, 0, 2, 4]),
        ("worst of A", [5, 0, 3, 4, 1, 2]),
        ("worst of B", [1, 5, 2, 3, 0, 4]),
        ("key", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_samples_are_sorted_and_those_without_a_score_come_last(pair, sort, places):
    assert ordered(pair, np.ones(6, dtype=bool), sort, column).tolist() == places


def test_every_order_holds_each_sample_once(pair):
    for sort in SORTS:
        assert sorted(ordered(pair, pair.tasks == 1, sort, column).tolist()) == [3, 4, 5]


def test_the_longest_answers_come_first(pair):
    assert ordered(pair, pair.tasks == 1, "longest answers", column).tolist() == [4, 3, 5]
