"""From the scores of samples to metrics: every one against the formula written out, missing scores, strata."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from perpo.benchmarks.base import Definition
from perpo.benchmarks.grounding import SIZES
from perpo.benchmarks.metrics import METRICS, PRIMARY, metrics_of
from perpo.benchmarks.mmhal import MMHAL_TYPES
from perpo.benchmarks.ocr import NORMALISED
from perpo.benchmarks.omnidocbench_simple import LANGUAGES
from perpo.texts.unit_tests import TYPES

NAN = float("nan")
F1 = Definition("f1", "F1", True, {"tp": 2.0}, {"tp": 2.0, "fp": 1.0, "fn": 1.0})
MEAN = Definition("iou", "IoU")


def array(*values: Any) -> np.ndarray:
    return np.array(values)


def test_a_mean_and_its_interval_by_hand() -> None:
    """Two images of two samples: means 0.2 and 0.6, so their residues' sums are -0.4 and 0.4, over n = 4."""
    scores = array(0.1, 0.3, 0.5, 0.7)
    found = MEAN.estimate({"iou": scores}, array("a", "a", "b", "b"), array(0, 0, 0, 0))
    stderr = math.sqrt(2 / 1 * (0.1**2 + 0.1**2))
    assert (found.value, found.stderr) == (pytest.approx(0.4), pytest.approx(stderr))
    # Wilson's limits p of 0.4 solve (0.4 - p)^2 = z^2 p (1 - p) / m, with z^2 / m = t^2 s^2 / (0.4 * 0.6).
    ratio = (t.ppf(0.975, 1) * stderr) ** 2 / (0.4 * 0.6)
    assert (0.4 - found.ci_high) ** 2 == pytest.approx(ratio * found.ci_high * (1 - found.ci_high))
    assert (0.4 - found.ci_low) ** 2 == pytest.approx(ratio * found.ci_low * (1 - found.ci_low))
    assert (found.n, found.n_clusters, found.ci_method) == (4, 2, "cluster-wilson")


def test_f1_and_its_interval_by_hand() -> None:
    """Image a: tp, fp; image b: tp, tp, fn. F1 = 2 * 3 / (2 * 3 + 1 + 1) = 0.75, linearised per image."""
    columns = {"tp": array(1.0, 0, 1, 1, 0), "fp": array(0.0, 1, 0, 0, 0), "fn": array(0.0, 0, 0, 0, 1)}
    found = F1.estimate(columns, array("a", "a", "b", "b", "b"), np.zeros(5))
    residues = (2 - 0.75 * 3, 4 - 0.75 * 5)
    stderr = math.sqrt(2 * sum((u / 8) ** 2 for u in residues))
    assert (found.value, found.stderr) == (pytest.approx(0.75), pytest.approx(stderr))


def test_strata_weigh_the_same_whatever_their_size() -> None:
    columns = {"tp": array(1.0, 1, 1, 1, 0), "fp": array(0.0, 0, 0, 0, 1), "fn": np.zeros(5)}
    # The first four have F1 = 1, the last has F1 = 0; all together 8 / 9.
    strata = array("random", "random", "random", "random", "popular")
    assert F1.estimate(columns, np.arange(5), strata).value == pytest.approx(0.5)
    assert F1.estimate(columns, np.arange(5), np.zeros(5)).value == pytest.approx(8 / 9)


def test_an_image_of_several_strata_is_one_draw() -> None:
    """The same rows once more under another task add no evidence: neither value nor interval change."""
    scores, clusters = array(0.1, 0.3, 0.5, 0.9), array("a", "b", "c", "d")
    once = MEAN.estimate({"iou": scores}, clusters, np.zeros(4))
    twice = MEAN.estimate({"iou": np.tile(scores, 2)}, np.tile(clusters, 2), np.repeat([0, 1], 4))
    assert (twice.value, twice.stderr) == (pytest.approx(once.value), pytest.approx(once.stderr))
    assert (twice.n, twice.n_clusters) == (8, 4)


def test_samples_without_the_score_are_left_out_and_never_zero() -> None:
    columns = {"iou": array(0.2, NAN, 0.6, NAN)}
    found = MEAN.estimate(columns, array("a", "a", "b", "c"), np.zeros(4))
    assert found.value == pytest.approx(0.4)
    assert (found.n, found.n_clusters) == (2, 2)


def test_a_sample_that_lacks_one_of_the_parts_is_left_out() -> None:
    columns = {"tp": array(1.0, 1, 1), "fp": array(0.0, 0, NAN), "fn": array(0.0, 1, 0)}
    found = F1.estimate(columns, np.arange(3), np.zeros(3))
    assert found.value == pytest.approx(4 / 5)
    assert found.n == 2


def test_a_stratum_without_scores_leaves_the_value_undefined() -> None:
    columns = {"iou": array(0.2, 0.4, NAN, NAN)}
    found = MEAN.estimate(columns, np.arange(4), array("one", "one", "two", "two"))
    assert (found.value, found.stderr, found.ci_low, found.ci_high) == (None, None, None, None)
    assert (found.n, found.ci_method) == (2, "undefined")


def test_a_stratum_without_denominator_leaves_the_value_undefined() -> None:
    """Precision of a split in which nothing was answered yes, beside one in which something was."""
    precision = next(metric for metric in METRICS["pope"] if metric.name == "precision")
    columns = {"tp": array(1.0, 0, 0, 0), "fp": array(0.0, 1, 0, 0)}
    found = precision.estimate(columns, np.arange(4), array(0, 0, 1, 1))
    assert (found.value, found.n) == (None, 4)


def test_no_samples_at_all() -> None:
    for columns in ({"iou": array()}, {"iou": array(NAN, NAN)}):
        length = len(columns["iou"])
        found = MEAN.estimate(columns, np.arange(length), np.zeros(length))
        assert (found.value, found.stderr, found.n) == (None, None, 0)


def test_a_score_that_is_unknown_is_an_error() -> None:
    with pytest.raises(KeyError, match="iou"):
        MEAN.estimate({"acc@0.5": array(1.0)}, array("a"), array(0))


def test_what_a_metric_needs() -> None:
    assert MEAN.needs() == {"iou"}
    assert F1.needs() == {"tp", "fp", "fn"}
    assert Definition("yes_ratio", "", True, {"yes": 1.0}).needs() == {"yes"}


def test_metrics_of_samples_with_some_scores() -> None:
    names = [metric.name for metric in metrics_of("pope", ["tp", "fp", "parse_fail"])]
    assert names == ["precision", "parse_fail"]
    assert metrics_of("ocr", []) == []
    assert metrics_of("grounding", ["acc@0.5:padded", "acc@0.5"])[0].name == "acc@0.5"
    with pytest.raises(KeyError):
        metrics_of("captions", ["iou"])


def test_each_benchmark_has_distinct_names_and_the_one_that_stands_for_it() -> None:
    for benchmark, metrics in METRICS.items():
        names = [metric.name for metric in metrics]
        assert len(set(names)) == len(names)
        assert PRIMARY[benchmark] in names
    assert set(PRIMARY) == set(METRICS)
    lower = {metric.name for metrics in METRICS.values() for metric in metrics if metric.higher_is_better is False}
    rates = {f"hallucination_rate{suffix}" for suffix in ("", *(f":{kind}" for kind in MMHAL_TYPES))}
    languages = {f"text_edit:{language}" for language in LANGUAGES}
    of_blocks = {"text_edit", "reading_order", "page_edit", *languages}
    assert lower == {"parse_fail", "edit_distance", NORMALISED, "truncated", "missing", *rates, *of_blocks}


def plain(benchmark: str, name: str, rows: list[dict[str, float]]) -> float | None:
    """A metric of some samples as a textbook has it."""

    def count(score: str) -> float:
        return sum(row[score] for row in rows)

    if benchmark == "pope" and name in ("precision", "recall", "f1", "f1:strict"):
        suffix = ":strict" if name.endswith("strict") else ""
        tp, fp, fn = (count(part + suffix) for part in ("tp", "fp", "fn"))
        precision, recall = tp / (tp + fp), tp / (tp + fn)
        harmonic = 2 * precision * recall / (precision + recall)
        return {"precision": precision, "recall": recall}.get(name, harmonic)
    if name.startswith("relative_score"):
        suffix = name.removeprefix("relative_score")
        return count(f"model{suffix}") / count(f"reference{suffix}")
    if name.startswith("pass_rate"):
        suffix = name.removeprefix("pass_rate")
        held = [row for row in rows if not math.isnan(row[f"tests{suffix}"])]
        return sum(row[f"passed{suffix}"] for row in held) / sum(row[f"tests{suffix}"] for row in held)
    score = "yes" if name == "yes_ratio" else name
    held = [row[score] for row in rows if not math.isnan(row[score])]
    return sum(held) / len(held) if held else None


def table(benchmark: str, rng: np.random.Generator, rows: int) -> list[dict[str, float]]:
    """Random scores of the benchmark's samples; what goes together does, and some are missing."""
    names = {name for metric in METRICS[benchmark] for name in metric.needs()}
    found = []
    for number in range(rows):
        row = {name: float(rng.random()) for name in sorted(names)}
        if benchmark == "pope":
            for suffix in ("", ":strict"):
                # Every kind of answer occurs, so that nothing is divided by zero.
                right, label = number % 3 > 0, number % 2 == 0
                row |= {
                    f"accuracy{suffix}": float(right),
                    f"tp{suffix}": float(right and label),
                    f"fn{suffix}": float(label and not right),
                    f"fp{suffix}": float(not label and not right),
                    "yes": float(right == label),
                }
        if benchmark == "grounding":
            size = SIZES[int(rng.integers(3))]
            row |= {f"acc@0.5:{other}": NAN for other in SIZES if other != size}
        if benchmark == "llava_bench":  # ratings are 1 to 10
            row = {name: value if name == "missing" else 1 + 9 * value for name, value in row.items()}
        if benchmark == "olmocr_no_math":  # some pages have no test of a type
            for suffix in ("", *(f":{kind}" for kind in TYPES)):
                tests = float(rng.integers(1, 6))
                row |= {f"tests{suffix}": tests, f"passed{suffix}": float(rng.integers(0, tests + 1))}
                if suffix and number % 3 == 0:
                    row |= {f"tests{suffix}": NAN, f"passed{suffix}": NAN}
        if benchmark == "ocr" and number % 4 == 0:
            row |= {"truncated": NAN}
        found.append(row)
    return found


@pytest.mark.parametrize("benchmark", list(METRICS))
def test_every_metric_is_what_its_formula_says(benchmark: str) -> None:
    """On two tasks of different sizes about shared images: the mean of the two tasks' plain numbers."""
    rng = np.random.default_rng(len(benchmark))
    tasks = [table(benchmark, rng, 18), table(benchmark, rng, 30)]
    rows = [row for task in tasks for row in task]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    clusters = np.array([k % 9 for k in range(len(rows))])
    strata = np.repeat([0, 1], [18, 30])
    metrics = metrics_of(benchmark, list(columns))
    assert metrics == list(METRICS[benchmark])
    for metric in metrics:
        found = metric.estimate(columns, clusters, strata)
        each = [plain(benchmark, metric.name, task) for task in tasks]
        assert None not in each
        assert found.value == pytest.approx(sum(each) / 2), metric.name
        assert found.ci_low < found.value < found.ci_high
        # Of one task alone, the plain number itself.
        first = {name: values[:18] for name, values in columns.items()}
        assert metric.estimate(first, clusters[:18], strata[:18]).value == pytest.approx(each[0])


def test_intervals_of_judged_metrics_on_two_images_stay_in_their_range() -> None:
    """12.7 standard errors of two ratings reach far beyond 0 and 6."""
    columns = {name: np.array([1.0, 5.0]) for name in ("score", "score:other")}
    columns |= {name: np.array([1.0, 0.0]) for name in ("hallucination_rate", "missing")}
    found = {
        metric.name: metric.estimate(columns, np.arange(2), np.zeros(2))
        for metric in metrics_of("mmhal", list(columns))
    }
    values = {"score": 3, "score:other": 3, "hallucination_rate": 0.5, "missing": 0.5}
    assert {name: each.value for name, each in found.items()} == values
    for name, each in found.items():
        whole = 2 * values[name]
        assert 0 <= each.ci_low < 0.01 * whole < 0.99 * whole < each.ci_high <= whole


def test_how_far_two_runs_can_be_apart() -> None:
    """A model's ratings of 1 to 10 over the references' mean: all 10 against all 1."""
    metrics = {metric.name: metric for name in ("llava_bench", "mmhal") for metric in METRICS[name]}
    assert metrics["score"].reach(np.ones(3), np.ones(3)) == 6
    relative = metrics["relative_score"]
    assert relative.reach(np.array([7.0, 9.0]), np.array([8.0, 8.0])) == pytest.approx(9 / 8)
    assert relative.reach(np.array([5.0]), np.array([10.0])) == pytest.approx(10 / 5 - 1 / 10)
    assert relative.reach(np.array([]), np.array([])) == pytest.approx(9.9)


def test_a_metric_that_no_sample_has_is_undefined_and_the_others_stay() -> None:
    """METEOR without WordNet."""
    rows = table("ocr", np.random.default_rng(0), 12)
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    columns["meteor"] = np.full(12, NAN)
    values = {m.name: m.estimate(columns, np.arange(12), np.zeros(12)).value for m in metrics_of("ocr", list(columns))}
    assert values["meteor"] is None
    assert values["bleu"] == pytest.approx(np.mean([row["bleu"] for row in rows]))
