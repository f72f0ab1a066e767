"""Two runs side by side: expected values by hand, from the rule that `INFO` states for each benchmark."""

import numpy as np
import pytest

from perpo.benchmarks.table import INFO
from perpo.records.store import find_runs
from perpo.results.samples import Scores
from perpo_dashboard.shared.outcomes import OUTCOMES, default_pair, pair, scopes

NAN = float("nan")


def scores(rows: dict[str, tuple[str, dict[str, float]]]) -> Scores:
    """Scores of a run by sample key: the task, and what was scored."""
    keys = sorted(rows)
    names = {name for _, found in rows.values() for name in found}
    values = {name: np.array([rows[key][1].get(name, NAN) for key in keys]) for name in names}
    tasks = np.array([rows[key][0] for key in keys])
    return Scores(np.array(keys), tasks, np.array(["image"] * len(keys)), values)


def grounded(iou: float) -> tuple[str, dict[str, float]]:
    return "boxes", {"iou": iou, "acc@0.5": float(iou >= 0.5)}


def test_each_outcome_is_told_from_the_benchmarks_own_score():
    a = scores({"k1": grounded(0.9), "k2": grounded(0.8), "k3": grounded(0.1), "k4": grounded(0.2)})
    b = scores({"k1": grounded(0.5), "k2": grounded(0.4), "k3": grounded(0.7), "k4": grounded(0.3)})
    found = pair(a, b, {"boxes": "grounding"})
    assert [np.flatnonzero(found.outcome(name)).tolist() for name in OUTCOMES] == [[0], [1], [2], [3]]
    assert found.counts() == dict.fromkeys(OUTCOMES, 1) | {"not scored": 0}
    np.testing.assert_allclose(found.gain(), [-0.4, -0.4, 0.6, 0.1])


def test_less_is_better_where_the_benchmark_says_so():
    a = scores({"k1": ("pages", {"edit_distance": 0.05}), "k2": ("pages", {"edit_distance": 0.1})})
    b = scores({"k1": ("pages", {"edit_distance": 0.5}), "k2": ("pages", {"edit_distance": 0.0})})
    found = pair(a, b, {"pages": "ocr"})
    assert found.right.tolist() == [[1, 1], [0, 1]]
    np.testing.assert_allclose(found.gain(), [-0.45, 0.1])


def test_ratings_are_held_against_the_references_and_shared_out_over_their_span():
    a = scores({"k1": ("wild", {"model": 8.0, "reference": 8.0}), "k2": ("wild", {"model": 3.0, "reference": 9.0})})
    b = scores({"k1": ("wild", {"model": 5.0, "reference": 8.0}), "k2": ("wild", {"reference": 9.0})})
    found = pair(a, b, {"wild": "llava_bench"})
    assert found.right.tolist() == [[1, 0], [0, -1]]
    low, high = INFO["llava_bench"].right.span
    np.testing.assert_allclose(found.gain(), [-3 / (high - low), NAN])


def test_what_has_no_score_is_neither_right_nor_wrong():
    a = scores({"k1": grounded(0.9), "k2": ("boxes", {})})
    found = pair(a, a, {"boxes": "grounding"})
    assert found.counts()["not scored"] == 1
    assert sum(found.outcome(name).sum() for name in OUTCOMES) == 1
    unknown = pair(a, a, {"boxes": "a benchmark of tomorrow"})
    assert unknown.counts()["not scored"] == 2


def test_only_samples_that_both_have_in_the_same_task_are_held_against_each_other():
    a = scores({"k1": grounded(0.9), "k2": grounded(0.8), "k5": grounded(0.8)})
    b = scores({"k0": grounded(0.9), "k2": ("other", grounded(0.3)[1]), "k5": grounded(0.2)})
    found = pair(a, b, {"boxes": "grounding", "other": "grounding"})
    assert found.keys.tolist() == ["k5"]
    assert found.places.tolist() == [[2], [2]]
    assert found.outcome("only A").tolist() == [True]


def test_nothing_in_common_is_an_empty_pair():
    found = pair(scores({"k1": grounded(0.9)}), scores({"k2": grounded(0.9)}), {"boxes": "grounding"})
    assert len(found.keys) == len(found.gain()) == 0
    assert found.counts() == dict.fromkeys([*OUTCOMES, "not scored"], 0)


@pytest.mark.parametrize(("prefix", "places"), [("a", [0, 1]), ("ab", [1]), ("", [0, 1, 2]), ("c", []), ("b0", [2])])
def test_samples_are_found_by_the_beginning_of_their_keys(prefix, places):
    run = scores({"aa11": grounded(1.0), "ab22": grounded(1.0), "b033": grounded(1.0)})
    assert pair(run, run, {"boxes": "grounding"}).find(prefix).tolist() == places


@pytest.fixture(scope="module")
def tiny(request):
    """The runs of the full tiny recipe and a run of the whole suite, the oldest first."""
    return find_runs(request.config.rootpath / "results" / "tiny")[0], find_runs(
        request.config.rootpath / "results" / "baselines"
    )[0]


def test_the_newest_run_is_shown_against_the_oldest_that_it_can_be_compared_with(tiny):
    recipe, whole = tiny
    assert default_pair([*recipe, *whole]) == (recipe[0], recipe[-1])
    assert default_pair([whole[0], recipe[0]]) == (whole[0], recipe[0])
    assert default_pair(whole[:1]) == (whole[0], whole[0])


def test_a_model_comes_before_what_was_trained_from_it(tiny):
    runs = {run.record.name: run for run in tiny[0]}
    base, trained, other = runs["base"], runs["dpo"], runs["perpo"]
    assert default_pair([trained, base]) == default_pair([base, trained]) == (base, trained)
    assert default_pair([other, trained]) == (other, trained)


def test_tasks_can_be_looked_at_alone_by_group_and_by_benchmark(tiny):
    record = tiny[1][0].record
    names = [task.task for task in record.tasks]
    found = scopes(record, names)
    assert found["all"] == tuple(names)
    assert [found[name] for name in names] == [(name,) for name in names]
    assert set(found["grounding"]) == {task.task for task in record.tasks if task.benchmark == "grounding"}
    several = [tasks for tasks in found.values() if len(tasks) > 1]
    assert len(several) == len(set(several))
    assert scopes(record, names[:1]) == {"all": (names[0],), names[0]: (names[0],)}
