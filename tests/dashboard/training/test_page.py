"""The page of trainings: what it shows of folders that perpo-train wrote, whole and broken."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import perpo_dashboard
from perpo.records.training_record import write_log
from perpo_dashboard.training.trainings import METRICS

PAGE = Path(perpo_dashboard.__file__).parent / "training" / "page.py"


@pytest.fixture
def trained(tmp_path, announce, write_training):
    """A results folder with two trainings in it."""
    root = tmp_path / "runs"
    write_training(root / "exp" / "dpo" / "adapter", tmp_path, method="dpo", lists=2)
    write_training(root / "exp" / "perpo" / "adapter", tmp_path, lists=3)
    announce(root)
    return root


def look(**state: str | list[str]) -> AppTest:
    """The page in a state of its address."""
    page = AppTest.from_file(str(PAGE), default_timeout=30)
    page.query_params.update(state)
    page.run()
    assert [each.message for each in page.exception] == []
    return page


def texts(page: AppTest) -> str:
    """What is said outside of tables and charts."""
    parts = [*page.markdown, *page.caption, *page.warning, *page.info, *page.error, *page.code]
    return "\n".join(each.value for each in parts)


def test_an_empty_folder_says_what_to_run(tmp_path, announce):
    announce(tmp_path)
    assert "perpo-demo" in look().code[0].value


def test_all_are_shown_at_first_with_their_last_numbers(trained):
    page = look()
    table = page.dataframe[0].value
    assert table["training"].tolist() == ["dpo", "perpo"]
    assert table["method"].tolist() == ["dpo", "perpo"]
    assert table["lists"].tolist() == [2, 3]
    assert table["loss"].tolist() == [1 / 20] * 2
    assert table["pair accuracy"].tolist() == [50.0] * 2
    assert table["minutes"].tolist() == [1.5] * 2
    assert "KL" not in table.columns  # nobody knows it
    assert page.query_params["t"] == ["exp/dpo/adapter", "exp/perpo/adapter"]
    shown = [each.value.strip("*") for each in page.markdown]
    assert [metric.title for metric in METRICS.values() if metric.title in shown] == ["Loss", "Pair accuracy"]


def test_the_address_chooses(trained):
    page = look(t=["exp/perpo/adapter", "exp/gone/adapter"], list="2")
    assert page.dataframe[0].value["training"].tolist() == ["perpo"]
    assert "exp/gone/adapter" in texts(page).replace("\\", "")
    assert page.number_input[0].value == 2


def test_a_list_is_ranked_with_what_training_did(trained):
    page = look(t="exp/perpo/adapter", list="2")
    table = page.dataframe[-1].value
    rewards = table["reward"].to_numpy()
    assert (np.diff(rewards) <= 0).all()
    np.testing.assert_allclose(table["change"], rewards)  # as it was made: each gained its reward
    np.testing.assert_allclose(table["after"] - table["before"], table["change"])
    assert "In 6 of 6 pairs" in texts(page)
    assert page.session_state["list"] == 2


def test_the_list_is_of_another_training_when_its_own_is_not_looked_at_any_more(trained):
    page = look(of="exp/perpo/adapter")
    assert page.selectbox[0].value == "exp/perpo/adapter"
    page.multiselect[0].set_value(["exp/dpo/adapter"]).run()
    assert [each.message for each in page.exception] == []
    assert page.selectbox[0].value == "exp/dpo/adapter"
    assert page.query_params["of"] == "exp/dpo/adapter"
    assert not page.warning


def test_stepping_ends_with_the_lists(trained):
    page = look(t="exp/perpo/adapter")
    for _ in range(4):
        next(button for button in page.button if button.label == "Next").click().run()
    assert page.number_input[0].value == 3
    assert "Log-probabilities were measured for these lists: 1, 2 " in texts(page)
    page.number_input[0].set_value(9).run()
    assert "There is no list 9. This training has 3" in texts(page)
    next(button for button in page.button if button.label == "Previous").click().run()
    assert page.number_input[0].value == 3


def test_data_that_two_learnt_from_are_shown_once(trained):
    shutil.copytree(trained / "exp" / "perpo", trained / "exp" / "again")
    file = trained / "exp" / "again" / "adapter" / "training.json"
    record = json.loads(file.read_text())
    record["arguments"]["output_dir"] = "runs/exp/again/adapter"
    file.write_text(json.dumps(record))
    numbers = next(each for each in look().dataframe if "data of" in each.value.columns)
    assert numbers.value["data of"].tolist() == ["again, perpo", "dpo"]
    assert numbers.value["lists"].tolist() == [3, 2]


def test_what_cannot_be_read_is_named_and_the_rest_stays(trained):
    (trained / "exp" / "dpo" / "adapter" / "training.json").write_text("{")
    page = look()
    assert page.dataframe[0].value["training"].tolist() == ["perpo"]
    assert "training.json is damaged" in texts(page).replace("\\", "")


def test_a_failed_one_says_why_and_a_running_one_that_it_may_be_dead(trained, tmp_path, write_training):
    write_training(trained / "exp" / "bad" / "adapter", tmp_path, status="failed", error="the disk is **full**")
    write_training(trained / "exp" / "now" / "adapter", tmp_path, status="running", steps=None, duration_s=None)
    page = look()
    assert page.dataframe[0].value["status"].tolist() == ["failed", "complete", "running, or was killed", "complete"]
    assert r"the disk is \*\*full\*\*" in page.error[0].value


def test_data_that_changed_are_not_shown_but_what_was_measured_is(trained):
    with open(trained / "exp" / "perpo" / "adapter" / "preferences.jsonl", "a") as file:
        file.write("\n")
    page = look(t="exp/perpo/adapter")
    assert "is not the file that was used for training" in texts(page)
    assert len(page.dataframe[-1].value) == 4  # the probe's first list
    assert page.dataframe[-1].value["change"].notna().all()


def test_nothing_outside_of_the_folders_is_read(trained, tmp_path):
    adapter = trained / "exp" / "perpo" / "adapter"
    for name in ("preferences.jsonl", "picture.png"):
        shutil.move(adapter / name, tmp_path / name)
        (adapter / name).symlink_to(tmp_path / name)
    page = look(t="exp/perpo/adapter")
    said = texts(page).replace("\\", "")
    assert "are not in a folder that may be read" in said
    assert "The picture picture.png is not in a folder that may be read" in said
    assert len(page.get("imgs")) == 0


def test_the_picture_has_boxes_in_the_frame_that_the_model_writes(trained):
    """The picture is 200 x 100, padded to 200 x 200: y of the boxes begins 50 pixels above it."""
    from perpo_dashboard.shared import pictures

    drawn = []
    original = pictures.with_boxes

    def spy(file, sha256, boxes, **more):
        drawn.extend(boxes)
        return original(file, sha256, boxes, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "with_boxes", spy)
        look(t="exp/perpo/adapter", boxes="truth")
    assert [box.xyxy for box in drawn] == [pytest.approx((40.0, 10.0, 120.0, 90.0))]


def test_a_damaged_picture_breaks_nothing(trained):
    (trained / "exp" / "perpo" / "adapter" / "picture.png").write_bytes(b"no picture")
    assert "picture\\.png cannot be read" in texts(look(t="exp/perpo/adapter"))


def test_sft_has_no_rewards_but_its_answers_are_looked_at(trained, tmp_path, write_training):
    write_training(trained / "exp" / "sft" / "adapter", tmp_path, method="sft")
    page = look(t="exp/sft/adapter")
    assert "None of these used rewarded candidates" in texts(page)
    assert len(page.dataframe[-1].value) == 4


def test_a_log_that_is_empty_so_far_says_so(trained):
    write_log(trained / "exp" / "perpo" / "adapter", [])
    assert "Nothing is logged yet" in texts(look(t="exp/perpo/adapter"))


def test_curves_of_validations_are_shown(trained):
    log = [{"step": 0, "epoch": 0.0, "eval_reward": 0.5, "eval_acc_50": 0.6}, {"step": 9, "epoch": 1.0, "loss": 1.0}]
    write_log(trained / "exp" / "perpo" / "adapter", log)
    assert "**Validation: Acc@0.5**" in texts(look(t="exp/perpo/adapter", x="epoch", smooth="0.5"))


def test_a_record_that_says_little_breaks_nothing(trained):
    file = trained / "exp" / "perpo" / "adapter" / "training.json"
    record = json.loads(file.read_text())
    record |= {"arguments": {}, "created_utc": "some day", "data": record["data"] | {"path": None, "counts": None}}
    file.write_text(json.dumps(record))
    page = look()
    assert page.dataframe[0].value["training"].tolist() == ["dpo", "perpo"]
    assert page.dataframe[0].value["began"].isna().tolist() == [False, True]
    assert "perpo: its data are not named" in texts(page).replace("\\", "")
