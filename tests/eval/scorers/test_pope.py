"""perpo_eval.scorers.pope against a statement of the official rule and counts of its own, also on POPE's labels."""

from __future__ import annotations

import json
import random
import re
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpo.benchmarks.metrics import METRICS
from perpo.stats import clustered_ratio
from perpo_eval.scorers.pope import STRICT, fraction, parse_answer, parse_answer_strict, score_answer, summary
from tests.support import SHARED

SPLITS = ("random", "popular", "adversarial")

# text, official answer, strict answer: read by hand
ANSWERS = [
    ("Yes", "yes", "yes"),
    ("yes\n", "yes", "yes"),
    ("Yes.", "yes", "yes"),
    ("yes, there is a dog.", "yes", "yes"),
    ("No", "no", "no"),
    ("no", "no", "no"),
    ("No, there is not", "no", "no"),
    ("No. Yes.", "no", "no"),
    ("Yes, there is. No doubt.", "yes", "yes"),
    ("There is no dog.", "no", None),
    ("It is not in the image. Yes.", "no", None),
    ("Not sure", "yes", None),
    ("", "yes", None),
    (" \n", "yes", None),
    ("NO", "yes", "no"),
    ("no\n", "yes", "no"),
    ("no!", "yes", "no"),
    ("**No**", "yes", "no"),
    ('"no"', "yes", "no"),
    ("  - _Yes_", "yes", "yes"),
    (". No", "yes", "no"),
    ("Nothing", "yes", None),
    ("No-one is there", "yes", None),
    ("Nope", "yes", None),
    ("The answer is yes", "yes", None),
    ("The answer is no", "no", None),
    ("Yes or no?", "yes", None),
    ("Yes or no", "no", None),
    ("Yes\nNo dog is near it", "yes", "yes"),
    ("Yes! No doubt", "no", "yes"),
    ("...", "yes", None),
]


def official(text: str) -> str:
    """The rule in other words than the program's: the words before the first full stop, commas taken out."""
    before, _, _ = text.partition(".")
    before = "".join(letter for letter in before if letter != ",")
    return "no" if re.search(r"(?:\A| )(?:No|not|no)(?: |\Z)", before) else "yes"


def official_numbers(answers: list[str], labels: list[str]) -> dict[str, float]:
    """Counts and formulas of the paper, over two lists."""
    pairs = [(official(answer), label) for answer, label in zip(answers, labels, strict=True)]
    tp, fp, fn = pairs.count(("yes", "yes")), pairs.count(("yes", "no")), pairs.count(("no", "yes"))
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    return {
        "accuracy": sum(answer == label for answer, label in pairs) / len(pairs),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "yes_ratio": (tp + fp) / len(pairs),
    }


@pytest.mark.parametrize(("text", "expected", "strict"), ANSWERS)
def test_both_rules_read_awkward_answers(text: str, expected: str, strict: str | None) -> None:
    assert parse_answer(text) == official(text) == expected
    assert parse_answer_strict(text) == strict


@given(st.lists(st.sampled_from(["No", "no", "not", "NO", "yes", "Yes", ",", ".", " ", "\n", "\t", "dog", "!"])))
def test_the_official_rule_on_any_text(parts: list[str]) -> None:
    assert parse_answer("".join(parts)) == official("".join(parts))


@given(st.text())
def test_the_strict_rule_reads_only_what_begins_with_its_answer(text: str) -> None:
    read = parse_answer_strict(text)
    assert read in ("yes", "no", None)
    if read is not None:
        assert re.match(rf"[\W_]*{read}", text.lower())
    assert parse_answer_strict(f"**Yes**, {text}") in ("yes", None)


@pytest.mark.parametrize(("text", "expected", "strict"), ANSWERS)
@pytest.mark.parametrize("label", ["yes", "no"])
def test_the_cells_of_an_answer(text: str, expected: str, strict: str | None, label: str) -> None:
    cell = {("yes", "yes"): "tp", ("yes", "no"): "fp", ("no", "yes"): "fn", ("no", "no"): "tn"}
    scores = score_answer(text, label)
    assert [name for name in ("tp", "fp", "fn", "tn") if scores[name]] == [cell[expected, label]]
    assert (scores["accuracy"], scores["yes"]) == (expected == label, expected == "yes")
    # What cannot be read strictly counts as the wrong answer.
    read = strict or {"yes": "no", "no": "yes"}[label]
    assert [name for name in ("tp", "fp", "fn", "tn") if scores[name + STRICT]] == [cell[read, label]]
    assert (scores["accuracy" + STRICT], scores["yes" + STRICT]) == (strict == label, strict == "yes")
    assert scores["parse_fail"] == float(strict is None)


@pytest.mark.parametrize("label", ["Yes", "", "maybe", "no "])
def test_other_labels_are_refused(label: str) -> None:
    with pytest.raises(ValueError, match="expected 'yes' or 'no'"):
        score_answer("yes", label)


@pytest.mark.parametrize(
    ("counts", "f1"),
    [((1183, 31, 317, 1379), 0.8717759764185703), ((7, 0, 3, 5), 14 / 17)],
    ids=["LLaVA-1.5 on the 2,910 random rows, as published", "no false alarm"],
)
def test_numbers_from_counts(counts: tuple[int, ...], f1: float) -> None:
    cells = [("yes", "yes"), ("yes", "no"), ("no", "yes"), ("no", "no")]
    rows = [score_answer(*cell) for cell, count in zip(cells, counts, strict=True) for _ in range(count)]
    tp, fp, fn, tn = counts
    found = summary(rows)
    assert found.f1 == pytest.approx(f1, abs=1e-15)
    assert asdict(found) == pytest.approx(
        {
            "accuracy": (tp + tn) / sum(counts),
            "precision": tp / (tp + fp),
            "recall": tp / (tp + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "yes_ratio": (tp + fp) / sum(counts),
        }
    )
    assert found == summary(rows, STRICT)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], (None, None, None, None, None)),
        ([("no", "no")], (1.0, None, None, None, 0.0)),
        ([("no", "yes"), ("no", "no")], (0.5, None, 0.0, 0.0, 0.0)),
        ([("yes", "no"), ("no", "no")], (0.5, 0.0, None, 0.0, 0.5)),
        ([("yes", "no"), ("no", "yes")], (0.0, 0.0, 0.0, 0.0, 0.5)),
    ],
)
def test_undefined_is_none_and_nothing_divides_by_zero(answers: list[tuple[str, str]], expected: tuple) -> None:
    assert tuple(asdict(summary([score_answer(*pair) for pair in answers])).values()) == expected


def test_the_yes_ratio_is_of_the_answers() -> None:
    """All labels are yes, one answer of four is."""
    rows = [score_answer(text, "yes") for text in ("Yes.", "no", "No", "There is no dog")]
    assert (summary(rows).yes_ratio, summary(rows, STRICT).yes_ratio) == (0.25, 0.25)


def test_an_unreadable_answer_never_raises_the_strict_numbers() -> None:
    rows = [score_answer(text, label) for text, label in (("yes", "yes"), ("no", "no"), ("yes", "no"))]
    for label in ("yes", "no"):
        more = summary([*rows, score_answer("perhaps", label)], STRICT)
        assert more.f1 < summary(rows, STRICT).f1
        assert more.accuracy < summary(rows, STRICT).accuracy


def test_fractions_are_what_intervals_are_made_from() -> None:
    rng = random.Random(1)
    rows = [score_answer(rng.choice(["yes", "no", "hm"]), rng.choice(["yes", "no"])) for _ in range(200)]
    for suffix in ("", STRICT):
        for name, value in asdict(summary(rows, suffix)).items():
            above, below = zip(*(fraction(name, row, suffix) for row in rows), strict=True)
            assert clustered_ratio(above, below, [i % 50 for i in range(200)]).value == pytest.approx(value)
    with pytest.raises(KeyError):
        fraction("f2", rows[0])


def test_every_metric_of_the_records_has_its_fractions() -> None:
    """The formulas stand in one place: a wrong yes by the official rule that the strict one cannot read."""
    scores = score_answer("perhaps", "no")
    found = {metric.name: fraction(metric.name, scores) for metric in METRICS["pope"]}
    assert found == {
        "accuracy": (0, 1),
        "precision": (0, 1),  # tp over tp + fp
        "recall": (0, 0),  # tp over tp + fn
        "f1": (0, 1),  # 2 tp over 2 tp + fp + fn
        "yes_ratio": (1, 1),
        "accuracy:strict": (0, 1),
        "f1:strict": (0, 1),
        "parse_fail": (1, 1),
    }


@pytest.mark.skipif(not SHARED.is_dir(), reason="POPE's labels are not here")
@pytest.mark.parametrize("split", SPLITS)
def test_the_official_numbers_on_the_real_labels(split: str) -> None:
    """3,000 labels, answers of every awkward kind; they come in another order and are paired by their id."""
    lines = (SHARED / "data" / "pope" / f"coco_pope_{split}.json").read_text().splitlines()
    labels = {row["question_id"]: row["label"] for row in map(json.loads, lines)}
    assert len(labels) == len(lines) == 3000
    assert sorted(labels.values()) == ["no"] * 1500 + ["yes"] * 1500
    rng = random.Random(split)
    good = {"yes": ["Yes", "Yes, there is."], "no": ["No", "No, there is not."]}
    said = {
        number: rng.choice(good[label]) if rng.random() < 0.6 else rng.choice(ANSWERS)[0]
        for number, label in labels.items()
    }
    shuffled = rng.sample(sorted(said), len(said))
    found = summary([score_answer(said[number], labels[number]) for number in shuffled])
    expected = official_numbers([said[number] for number in labels], list(labels.values()))
    assert asdict(found) == pytest.approx(expected, abs=1e-12)
    # Pairing by order would have given chance.
    by_order = summary([score_answer(said[n], label) for n, label in zip(shuffled, labels.values(), strict=True)])
    assert abs(by_order.accuracy - found.accuracy) > 0.1
