"""perpo.results.compare: pairing by sample, and refusing what does not belong together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perpo.benchmarks.base import Definition
from perpo.errors import PerpoError
from perpo.results.compare import check_comparable, metric_difference, mismatches, paired_difference
from perpo.results.samples import Scores, read_scores
from perpo.stats import clustered_mean


def random_rows(seed: int, lift: float) -> dict[str, list[tuple[str, float]]]:
    """Two tasks about the same 30 images; the same seed gives the same difficulty per expression."""
    rng = np.random.default_rng(seed)
    rows = {}
    for task in ("a", "b"):
        hard = rng.random(60)
        rows[task] = [(f"image{k % 30}", float(hard[k] < 0.5 + lift)) for k in range(60)]
    return rows


def test_pairs_are_matched_by_key_whatever_the_order(make_run) -> None:
    base, better = random_rows(1, 0.0), random_rows(1, 0.2)
    one, other = read_scores(make_run("base", base)), read_scores(make_run("better", better))
    assert sorted(one.keys) == list(one.keys)
    found = paired_difference(other, one, "acc@0.5")
    by_hand = [b[1] - a[1] for task in "ab" for a, b in zip(base[task], better[task], strict=True)]
    images = [image for task in "ab" for image, _ in base[task]]
    expected = clustered_mean(by_hand, images, ["a"] * 60 + ["b"] * 60, bounds=(-1, 1))
    assert (found.value, found.stderr) == pytest.approx((expected.value, expected.stderr))
    assert found.n_clusters == 30
    assert found.value == pytest.approx(np.mean(by_hand))


def test_pairing_is_sharper_than_two_separate_intervals(make_run) -> None:
    one, other = (read_scores(make_run(name, random_rows(2, lift))) for name, lift in (("base", 0.0), ("up", 0.1)))
    paired = paired_difference(other, one, "acc@0.5").stderr
    separate = np.hypot(*(clustered_mean(s.values["acc@0.5"], s.clusters, s.tasks).stderr for s in (one, other)))
    assert paired < 0.7 * separate


def test_a_difference_and_its_reverse(make_run) -> None:
    one, other = (read_scores(make_run(name, random_rows(3, lift))) for name, lift in (("base", 0.0), ("up", 0.1)))
    up, down = paired_difference(other, one, "iou"), paired_difference(one, other, "iou")
    assert (up.value, up.ci_low, up.ci_high) == pytest.approx((-down.value, -down.ci_high, -down.ci_low))


def test_a_run_against_itself(make_run) -> None:
    scores = read_scores(make_run("base", random_rows(4, 0.0)))
    found = paired_difference(scores, scores, "acc@0.5")
    assert (found.value, found.stderr) == (0.0, None)
    assert found.ci_low == pytest.approx(-found.ci_high)


def test_other_samples_are_refused(make_run) -> None:
    rows = random_rows(5, 0.0)
    less = {task: pairs[:-1] for task, pairs in rows.items()}
    one, other = read_scores(make_run("base", rows)), read_scores(make_run("less", less))
    with pytest.raises(PerpoError, match="have 59 samples in common, of 118 and 120"):
        paired_difference(other, one, "acc@0.5")


def test_all_that_differs_is_listed(make_run) -> None:
    rows = random_rows(6, 0.0)
    base = make_run("base", rows)
    assert mismatches(make_run("same", random_rows(6, 0.3)).record, base.record) == []
    other = make_run("other", {"a": rows["a"][:10], "c": rows["b"]}, data_sha256="1" * 64)
    with pytest.raises(PerpoError) as error:
        check_comparable(other, base)
    for part in ("other and base", "the tasks b, c", "a: data_sha256 111", "a: n_scored 10 against 60"):
        assert part in error.value.message


def test_a_run_whose_loops_were_stopped_is_another_one(make_run) -> None:
    """A run from before there was that setting stopped none; of answers made elsewhere nobody knows."""
    run = make_run("base", random_rows(6, 0.0)).record
    usual = run.generation | {"temperature": 0.0}
    usual.pop("stop_on_repetition", None)
    old, running, stopping, elsewhere = (
        replace(run, generation=usual | more)
        for more in (
            {},
            {"stop_on_repetition": False},
            {"stop_on_repetition": True},
            {"temperature": None, "stop_on_repetition": None},
        )
    )
    for one in (old, running):
        assert mismatches(stopping, one) == ["stop_on_repetition True against False"]
        assert mismatches(one, old) == mismatches(elsewhere, one) == []


def test_samples_without_the_score_are_left_out_and_half_missing_ones_refused(make_run) -> None:
    nan = float("nan")
    rows = {"a": [("x", 0.0), ("y", 1.0), ("z", 0.0)], "b": [("x", nan), ("y", nan)]}
    better = {"a": [("x", 1.0), ("y", 1.0), ("z", 0.0)], "b": [("x", nan), ("y", nan)]}
    one, other = (scores_of(r) for r in (rows, better))
    found = paired_difference(other, one, "acc")
    assert found.value == pytest.approx(1 / 3)
    assert found.n == 3
    better["b"][0] = ("x", 1.0)
    with pytest.raises(PerpoError, match="acc is missing for samples of one run but not of the other"):
        paired_difference(scores_of(better), one, "acc")


def scores_of(rows: dict[str, list[tuple[str, float]]]) -> Scores:
    flat = [(task, image, score) for task, pairs in rows.items() for image, score in pairs]
    tasks, images, values = map(np.array, zip(*flat, strict=True))
    return Scores(np.array([f"{t}{i}" for t, i, _ in flat]), tasks, images, {"acc": values.astype(float)})


def test_a_sample_without_an_answer_in_one_run_is_left_out_of_both() -> None:
    """Of ten images eight are answered by both: the gain is 3 of these 8."""
    one, other = np.zeros(10), np.zeros(10)
    one[:4] = 1.0
    one[9], other[0] = np.nan, np.nan
    keys, images = (np.array([f"{what}{k}" for k in range(10)]) for what in "ki")
    tasks = np.array(["t"] * 10)
    candidate = Scores(keys, tasks, images, {"acc": one}, np.isnan(one))
    baseline = Scores(keys, tasks, images, {"acc": other}, np.isnan(other))
    found = metric_difference(candidate, baseline, Definition("acc", "acc"))
    assert (found.n, found.value) == (8, pytest.approx(3 / 8))
    with pytest.raises(PerpoError, match="is missing for samples of one run but not of the other"):
        metric_difference(replace(candidate, failed=None), replace(baseline, failed=None), Definition("acc", "acc"))
