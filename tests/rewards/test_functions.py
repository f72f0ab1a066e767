"""perpo.rewards: IoU, edit distance, and the user's own function."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpo.boxes import BoxFormat
from perpo.errors import PerpoError
from perpo.rewards import Rewarded, check_truths, load_reward, score

LLAVA = BoxFormat("0-1")
SAMPLE = {"image_size": (400, 200)}


def edit_distance(a: str, b: str) -> int:
    """Wagner and Fischer's table."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        last, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (left != right))
    return row[-1]


def users_module(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> str:
    (folder / f"{name}.py").write_text(code)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return name


def test_iou_of_overlapping_squares() -> None:
    # 2 x 2 tenths each, 1 x 1 in common: 1 / 7
    reward = load_reward("iou", LLAVA, LLAVA)
    found = score(reward, "[0.1, 0.1, 0.3, 0.3]", "[0.2, 0.2, 0.4, 0.4]", SAMPLE)
    assert found.reward == pytest.approx(1 / 7)
    assert found.readable


def test_an_answer_without_a_box_gets_0_and_is_marked() -> None:
    reward = load_reward("iou", LLAVA, LLAVA)
    assert score(reward, "a cup", "[0.2, 0.2, 0.4, 0.4]", SAMPLE) == Rewarded(0.0, readable=False)
    assert score(reward, "[0.9, 0.9, 1.0, 1.0]", "[0.2, 0.2, 0.4, 0.4]", SAMPLE) == Rewarded(0.0, readable=True)


def test_iou_reads_the_declared_format() -> None:
    bins = load_reward("iou", *[BoxFormat("bins", "yxyx")] * 2)
    same = "<loc0100><loc0200><loc0300><loc0400>"
    assert score(bins, same, same, SAMPLE) == Rewarded(1.0, readable=True)
    assert not score(bins, "[100, 200, 300, 400]", same, SAMPLE).readable


@given(st.text(max_size=12), st.text(max_size=12))
def test_edit_is_1_minus_distance_over_the_longer_length(prediction: str, truth: str) -> None:
    longer = max(len(prediction), len(truth))
    expected = 1 - edit_distance(prediction, truth) / longer if longer else 1.0
    assert score(load_reward("edit", LLAVA, LLAVA), prediction, truth, {}).reward == pytest.approx(expected, abs=1e-12)


def test_a_function_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
def length(prediction, truth, sample):
    if not prediction:
        return None
    return min(len(prediction) / sample["most"], 1)
"""
    name = users_module(tmp_path, monkeypatch, "rewards_of_length", code)
    reward = load_reward(f"{name}:length", LLAVA, LLAVA)
    assert score(reward, "ab", "", {"most": 8}) == Rewarded(0.25, readable=True)
    assert score(reward, "", "", {"most": 8}) == Rewarded(0.0, readable=False)


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), float("inf")])
def test_a_value_out_of_range_is_an_error_that_names_the_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    name = users_module(tmp_path, monkeypatch, "rewards_out_of_range", "def f(p, t, s):\n    return s['value']\n")
    reward = load_reward(f"{name}:f", LLAVA, LLAVA)
    with pytest.raises(PerpoError, match=f"{name}:f returned"):
        score(reward, "p", "t", {"value": value})


def test_a_function_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "def crash(p, t, s):\n    return 1 / 0\ndef text(p, t, s):\n    return 'high'\n"
    name = users_module(tmp_path, monkeypatch, "rewards_that_fail", code)
    with pytest.raises(PerpoError, match=r"crash failed: ZeroDivisionError"):
        score(load_reward(f"{name}:crash", LLAVA, LLAVA), "p", "t", {})
    with pytest.raises(PerpoError, match=r"text failed: ValueError"):
        score(load_reward(f"{name}:text", LLAVA, LLAVA), "p", "t", {})
    with pytest.raises(PerpoError, match="no function 'crush'") as caught:
        load_reward(f"{name}:crush", LLAVA, LLAVA)
    assert caught.value.hint == "did you mean 'crash'?"


def test_a_module_that_is_missing_or_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PerpoError, match="the module 'no_such_module' of the reward cannot be imported"):
        load_reward("no_such_module:f", LLAVA, LLAVA)
    name = users_module(tmp_path, monkeypatch, "rewards_broken", "import )\n")
    with pytest.raises(PerpoError, match="SyntaxError"):
        load_reward(f"{name}:f", LLAVA, LLAVA)


@pytest.mark.parametrize("spec", ["ioo", "iou:", ":f", ""])
def test_an_unknown_name_is_an_error(spec: str) -> None:
    with pytest.raises(PerpoError, match=f"no reward '{spec}'") as caught:
        load_reward(spec, LLAVA, LLAVA)
    assert "iou" in caught.value.hint


def test_iou_is_taken_in_the_original_picture_when_the_frames_differ() -> None:
    # The picture is 400 x 200, its padded square 400 x 400 with the picture from 100 to 300.
    reward = load_reward("iou", BoxFormat("0-1", frame="padded"), BoxFormat("0-1", frame="original"))
    left_half = "[0, 0, 0.5, 1]"
    assert score(reward, "[0, 0.25, 0.5, 0.75]", left_half, SAMPLE).reward == pytest.approx(1.0)
    # The square's whole left half is 200 x 400, of which the picture's left half is half.
    assert score(reward, left_half, left_half, SAMPLE).reward == pytest.approx(0.5)


def check(spec: str, *truths: str, boxes: BoxFormat | None = LLAVA) -> None:
    samples = [SAMPLE | {"answer": truth} for truth in truths]
    check_truths(load_reward(spec, LLAVA, LLAVA), samples, boxes)


@pytest.mark.parametrize(
    ("truth", "problem"),
    [
        ("the left one", "holds no box"),
        ("[0.3, 0.1, 0.1, 0.3]", "holds an empty or inverted box"),
        ("[0.1, 0.1, 0.1, 0.3]", "holds an empty or inverted box"),
        ("[0.1, 0.1, 1.3, 0.3]", "holds a box outside of the scale 0-1"),
        ("[-0.1, 0.1, 0.3, 0.3]", "holds a box outside of the scale 0-1"),
        ("[100, 100, 300, 300]", "holds a box outside of the scale 0-1"),
    ],
)
def test_truths_that_cannot_earn_a_reward_are_found_before_sampling(truth: str, problem: str) -> None:
    good = "[0.1, 0.1, 0.3, 0.3]"
    check("iou", good, good, "[0.0, -0.004, 1.004, 1.0]")  # what rounding does is no error
    with pytest.raises(PerpoError) as caught:
        check("iou", good, truth)
    assert caught.value.message == f"question 2: its truth {truth!r} {problem}"
    check("edit", good, truth, boxes=None)


def test_truths_are_read_in_their_own_frame() -> None:
    samples = [SAMPLE | {"answer": "[0.0, 0.0, 400, 200]"}]
    for truths, good in ((BoxFormat("pixels"), True), (BoxFormat("pixels", frame="cropped"), False)):
        # The centred square of 200 x 200 begins at 100: 400 lies beyond it.
        reward = load_reward("iou", truths, truths)
        if good:
            check_truths(reward, samples, truths)
        else:
            with pytest.raises(PerpoError, match="outside of the scale pixels"):
                check_truths(reward, samples, truths)


def test_a_truth_that_the_users_function_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = users_module(tmp_path, monkeypatch, "rewards_of_nothing", "def f(p, t, s):\n    return None\n")
    with pytest.raises(PerpoError, match="question 1: its truth 'a' cannot be read by this reward"):
        check(f"{name}:f", "a", boxes=None)


def test_a_thought_is_no_answer_and_no_truth() -> None:
    reward = load_reward("iou", LLAVA, LLAVA)
    truth = "<think>Not [0.1, 0.1, 0.3, 0.3].</think><answer>[0.6, 0.6, 0.8, 0.8]</answer>"
    check_truths(reward, [SAMPLE | {"answer": truth}], LLAVA)
    assert score(reward, "[0.6, 0.6, 0.8, 0.8]", truth, SAMPLE).reward == 1.0
    assert score(reward, "[0.1, 0.1, 0.3, 0.3]", truth, SAMPLE).reward == 0.0
    assert not score(reward, "<think>[0.6, 0.6, 0.8, 0.8]", truth, SAMPLE).readable
    edit = load_reward("edit", None, None)
    assert score(edit, "<think>hm</think>\na page", "a page", SAMPLE) == Rewarded(1.0, readable=True)
    assert score(edit, "<think>a page", "a page", SAMPLE) == Rewarded(0.0, readable=False)


@pytest.mark.parametrize(
    ("truth", "problem"),
    [
        ('[{"bbox_2d": [0.1, 0.2, 0.3, 0.4]}, {"bbox_2d": [0.6, 0.6, 0.8, 0.8]}]', "holds 2 boxes instead of one"),
        ("[[0.1, 0.2], [0.3, 0.25], [0.3, 0.4], [0.1, 0.4]]", "holds no box"),
        ("<think>[0.1, 0.2, 0.3, 0.4]", "holds no box"),
    ],
)
def test_a_truth_holds_exactly_one_box(truth: str, problem: str) -> None:
    reward = load_reward("iou", LLAVA, LLAVA)
    samples = [SAMPLE | {"answer": "[0.1, 0.2, 0.3, 0.4]"}, SAMPLE | {"answer": truth}]
    with pytest.raises(PerpoError, match=f"question 2: .* {problem}"):
        check_truths(reward, samples, LLAVA)
