"""perpo.rewards.table: all that is known of a reward stands in its row, and no code asks for one by its name."""

from __future__ import annotations

import pytest

from perpo.boxes import BoxFormat
from perpo.errors import PerpoError
from perpo.rewards import Rewarded, load_reward, score
from perpo.rewards.functions import check_truths
from perpo.rewards.table import REWARDS, box_rewards, named, truth_of, without_boxes
from perpo.sample.arguments import SampleArguments
from perpo.train.arguments import TrainArguments
from tests.support import ROOT
from tests.support.comparisons import compared_by_name

FORM = BoxFormat("0-1")
SAMPLE = {"image_size": (400, 200)}
# What is said, the truth, and the reward by hand; of every reward.
EXAMPLES = {
    "iou": ("[0.1, 0.1, 0.3, 0.3]", "[0.2, 0.2, 0.4, 0.4]", 1 / 7),  # 2 x 2 tenths each, 1 x 1 in common
    "edit": ("kitten", "sitting", 1 - 3 / 7),  # three changes, seven letters
    "unit_tests": ("A kitten", '[{"type": "present", "text": "kitten"}, {"type": "present", "text": "sat"}]', 1 / 2),
}


def test_every_reward_has_an_example_a_line_of_the_readme_and_a_place_in_the_help():
    assert list(EXAMPLES) == list(REWARDS)
    assert all(name == row.name for name, row in REWARDS.items())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in REWARDS:
        assert f"`{name}`" in readme
    assert named() == f"{', '.join(REWARDS)} or module:function"
    for row in REWARDS.values():
        assert (f"{row.name} ({row.explained})" in named(explained=True)) == bool(row.explained)


@pytest.mark.parametrize("name", REWARDS)
def test_its_number(name):
    reward, (said, truth, expected) = load_reward(name, FORM, FORM), EXAMPLES[name]
    assert score(reward, said, truth, SAMPLE).reward == pytest.approx(expected)
    assert score(reward, truth, truth, SAMPLE) == Rewarded(1.0, readable=True)
    assert score(reward, f"<think>{said}", truth, SAMPLE) == Rewarded(0.0, readable=False)  # a thought without an end


def test_of_a_reward_of_ones_own_nothing_is_known():
    assert truth_of("module:function") is None
    assert {truth_of(name) for name in REWARDS} == {"box", "text", "tests"}


@pytest.mark.parametrize("name", REWARDS)
def test_what_is_said_of_boxes_is_refused_by_texts_alone(name):
    def sampled():
        SampleArguments(output="o.jsonl", reward=name, truth_frame="padded")

    def held_out():
        TrainArguments(data="d", output_dir="o", eval_data="e", eval_reward=name, eval_box_scale="0-1")

    for make, said in (
        (sampled, f"has no effect with --reward {name}"),
        (held_out, f"has no effect with --eval_reward {name}"),
    ):
        if truth_of(name) == "box":
            make()
            continue
        with pytest.raises(PerpoError, match=said) as caught:
            make()
        assert caught.value.hint.endswith(f"or choose {box_rewards()}")


@pytest.mark.parametrize("name", REWARDS)
def test_without_a_way_to_write_boxes_there_are_no_rewards_of_boxes(name):
    if without_boxes(name):
        truth = EXAMPLES[name][1]
        assert score(load_reward(name, None, None), truth, truth, SAMPLE).reward == 1.0
        return
    with pytest.raises(PerpoError, match=f"no reward '{name}'") as caught:
        load_reward(name, None, None)
    assert name not in caught.value.hint.removeprefix("known: ").split(", ")


def test_no_code_asks_for_a_reward_by_its_name():
    """Scores of answers, which are not rewards, may be called like one."""
    scores = compared_by_name("scores", REWARDS)
    assert [place for place in compared_by_name("", REWARDS) if place not in scores] == []


@pytest.mark.parametrize("truth", ["no JSON", "[]", "{}", '[{"type": "math", "math": "x"}]', '[{"type": "present"}]'])
def test_truths_that_are_no_unit_tests_are_refused_before_anything_is_sampled(truth):
    with pytest.raises(PerpoError, match=r"question 1: its truth .* cannot be read by this reward"):
        check_truths(load_reward("unit_tests", None, None), [SAMPLE | {"answer": truth}], None)
