"""perpo.rewards.asked: the questions of sampling and of validation are read and checked alike."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from perpo.data import read_questions
from perpo.errors import PerpoError
from perpo.rewards.asked import read_asked
from perpo.sample.arguments import SampleArguments
from perpo.train.arguments import TrainArguments

REWARD = "def reward(answer, truth, sample):\n    return 0.5\n"
SAID = {"box_scale": "percent", "box_order": "xyxy", "box_frame": "original"}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write questions about one picture of 40 x 24 pixels, and a reward of one's own; returns their file."""
    Image.new("RGB", (40, 24)).save(tmp_path / "0.png")
    (tmp_path / "own_reward.py").write_text(REWARD)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(*rows):
        usual = {"image_path": "0.png", "question": "where?", "answer": "[0, 0, 50, 100]"}
        (tmp_path / "questions.jsonl").write_text("".join(json.dumps(usual | row) + "\n" for row in rows))
        return tmp_path / "questions.jsonl"

    return write


def sampled(file, **changes):
    args = SampleArguments(output="o.jsonl", questions=str(file), **changes)
    return read_asked(
        args.model,
        args.reward,
        lambda: (read_questions(file), file.parent),
        answer_parts=args.box_parts,
        truth_parts=args.truth_parts,
        limit=args.limit,
    )


def held_out(file, **changes):
    from perpo.train.watching.validation import read_held_out

    changes = {f"eval_{name}": value for name, value in changes.items()}
    return read_held_out(TrainArguments(data="d", output_dir="o", eval_data=str(file), **changes), [])


@pytest.mark.parametrize("read", [sampled, held_out])
def test_truths_are_boxes_if_every_row_says_how_it_writes_them(written, read):
    """Whatever the reward, but for edit, which compares texts."""
    file = written(SAID, SAID)
    found = read(file, reward="own_reward:reward")
    assert found.truth_format is not None
    assert [each.question for each in found.asked] == found.of_file == read_questions(file)
    assert read(file, reward="edit").truth_format is None
    assert read(written(SAID, {}), reward="own_reward:reward").truth_format is None
    with pytest.raises(PerpoError, match="question 2: its truth 'the left half' holds no box"):
        read(written(SAID, SAID | {"answer": "the left half"}), reward="own_reward:reward")


@pytest.mark.parametrize("read", [sampled, held_out])
def test_rows_that_contradict_the_user_are_refused(written, read):
    with pytest.raises(
        PerpoError, match="question 1 says that the scale of its box is percent, but the flag says pixels"
    ):
        read(written(SAID), reward="own_reward:reward", truth_scale="pixels")


def test_only_what_is_asked_is_checked(written):
    file = written(SAID, SAID | {"image_path": "gone.png"})
    found = sampled(file, reward="iou", limit=1)
    assert (len(found.asked), len(found.of_file)) == (1, 2)
    assert found.questions == found.of_file[:1]
    with pytest.raises(PerpoError, match=r"gone\.png"):
        sampled(file, reward="iou")
