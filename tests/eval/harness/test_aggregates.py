"""Aggregation functions that were written to be called once: each call finds things as they were."""

from __future__ import annotations

import numpy as np
import pytest

from perpo_eval.harness.aggregates import Aggregation, drawn, is_mean
from perpo_eval.harness.refusing import asks_a_judge
from perpo_eval.harness.scoring import number_of

TABLE: dict[str, int] = {"all": 0}


def adds_up(results):
    for result in results:
        TABLE["all"] += result["score"]
    return TABLE["all"] / 10


def eats_what_it_is_given(results):
    total = 0
    while results:
        total += results.pop()["score"]
    return total


def needs_other_ids(results, args):
    seen = [result["question_id"] for result in results]
    assert len(set(seen)) == len(seen)
    with open(f"{args.output_path}/submission.txt", "w") as file:
        print(seen, file=file)
    return sum(result["score"] for result in results) / len(results)


def looks_ids_up(results):
    return sum({"a": 1, "b": 2}[result["question_id"]] for result in results)


def median(results):
    return float(np.median(results))


def payloads(scores, ids="ab") -> list[dict]:
    return [{"question_id": name, "score": score} for name, score in zip(ids, scores, strict=False)]


def test_a_table_of_the_module_is_as_it_was_after_each_call() -> None:
    aggregation = Aggregation(adds_up)
    assert [aggregation(payloads([1, 1])) for _ in range(3)] == [0.2, 0.2, 0.2]
    assert TABLE == {"all": 0}


def test_what_a_function_eats_is_there_for_the_next_call() -> None:
    aggregation, given = Aggregation(eats_what_it_is_given), payloads([1, 0])
    assert [aggregation(given) for _ in range(3)] == [1, 1, 1]
    assert len(given) == 2


def test_a_cluster_that_is_drawn_twice_has_other_ids() -> None:
    clusters = np.array(["x", "y"])
    found = drawn(Aggregation(needs_other_ids), payloads([1, 0]), clusters, 50)
    rng = np.random.default_rng(0)
    assert found["values"] == [np.mean([1 - place for place in rng.integers(2, size=2)]) for _ in range(50)]
    assert found["n_clusters"] == 2


def test_a_function_that_looks_ids_up_gets_those_that_it_knows() -> None:
    found = drawn(Aggregation(looks_ids_up), payloads([1, 0]), np.array(["x", "x"]), 5)
    assert found["values"] == [3] * 5


def test_a_mean_is_told_whatever_the_answers_are() -> None:
    of_zeros = [[0.0, 1.0, 0.0]] * 12
    assert not is_mean(Aggregation(median), of_zeros, number_of)
    assert is_mean(Aggregation(np.mean), of_zeros, number_of)
    assert not is_mean(Aggregation(lambda results: sum(results) / 1000), of_zeros, number_of)


def test_what_gives_no_number_says_why() -> None:
    aggregation = Aggregation(lambda results: {"a": 1.0})
    assert aggregation([1.0]) is None
    assert aggregation.failed == "it gives {'a': 1.0}"
    assert Aggregation(lambda results: float("nan"))([1.0]) is None


@pytest.mark.parametrize(
    ("payload", "number"),
    [
        (1, 1.0),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (float("nan"), None),
        ("1", None),
        ([1, 2], None),
        ({"question_id": 7, "score": 0.25}, 0.25),
        ({"index": 7, "exact_match": 1}, 1.0),
        ({"index": 7, "acc": 1, "iou": 0.5}, None),
        ({"index": 7, "length": 3}, None),
        (None, None),
    ],
)
def test_a_payload_counts_as_the_one_score_that_it_holds(payload, number) -> None:
    assert number_of(payload) == number


def asks(results):
    """No openai is needed here."""
    return [helps(result) for result in results]


def helps(result):
    return get_server(result)  # noqa: F821


def names_it_alone(results):
    """Static: no openai."""
    return {"judgement of people": 1}


def test_what_asks_a_judge_is_found_in_what_it_calls() -> None:
    assert asks_a_judge(asks) == "get_server"
    assert asks_a_judge(names_it_alone) is None
    assert asks_a_judge(adds_up) is None
