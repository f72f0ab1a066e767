"""Validation during training: what is answered, how it is scored, what is kept, and that training stays the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from rapidfuzz.distance import Levenshtein
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from perpo.cli.train import main
from perpo.data import PreferenceRecord, Question, read_questions
from perpo.engines.base import Answer, Decoding
from perpo.engines.hf import HfEngine
from perpo.errors import PerpoError
from perpo.models.loaded import render_prompt
from perpo.models.loading import load_model
from perpo.records.training_record import read_log, read_record
from perpo.rewards import load_reward
from perpo.rewards.asked import Asked, QuestionSet
from perpo.train.arguments import TrainArguments
from perpo.train.run import train
from perpo.train.watching.validation import Validation, read_held_out

STEPS = 4


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_records):
    root = tmp_path_factory.mktemp("data")
    asked = [{"question": f"what{' then' * n}?", "answer": "abc" * (n + 1)} for n in range(4)]
    answers = {"rewards": [0.1, 1.0], "reward_name": "edit"}
    write_records(root, [each | answers | {"answers_gen": ["zz", each["answer"]]} for each in asked])
    write_records(root, [*asked, asked[0] | {"image_path": "0.png", "question": "again?"}], "held-out.jsonl")
    return root


@pytest.fixture(scope="module")
def options(data, small_run):
    return small_run | {
        "data": str(data / "records.jsonl"),
        "method": "rft",
        "per_device_train_batch_size": 4,
        "max_steps": STEPS,
        "lr_scheduler_type": "constant",
        "save_steps": 1,
        "save_total_limit": 99,
        "eval_data": str(data / "held-out.jsonl"),
        "eval_steps": 3,
        "eval_max_new_tokens": 12,
        "per_device_eval_batch_size": 2,
    }


@pytest.fixture(scope="module")
def validated(options, tmp_path_factory):
    return train(TrainArguments(**options, output_dir=str(tmp_path_factory.mktemp("validated") / "run")))


def test_a_thought_that_the_prompt_opened_is_no_answer(tmp_path):
    questions = [Question(image_path="0.png", question="?", answer=text, image_id=0) for text in ("abc", "abd")]
    asked = [Asked(question, (9, 9), "") for question in questions]
    Image.new("RGB", (9, 9)).save(tmp_path / "0.png")
    said = [Answer("abc", True, None, "<think>"), Answer("hm</think>abd", False, None, "<think>")]
    validation = SimpleNamespace(
        in_step=True,
        args=SimpleNamespace(per_device_eval_batch_size=2),
        held_out=QuestionSet(
            asked=asked,
            image_root=tmp_path,
            reward=load_reward("edit", None, None),
            reward_name="edit",
            of_file=questions,
        ),
        decoding=Decoding(max_new_tokens=9),
        engine=SimpleNamespace(answers=lambda queries, _: [[said[query.draw]] for query in queries]),
    )
    assert Validation._answered(validation) == [(0.0, False, True), (1.0, True, False)]


def generated_reward(model, adapter, data):
    """Mean edit similarity of what transformers' own generate answers, one question at a time."""
    loaded = load_model(model, adapter)
    rewards = []
    for question in read_questions(data / "held-out.jsonl"):
        prompt = render_prompt(loaded, question.question)
        with Image.open(data / question.image_path) as image:
            inputs = loaded.encode([prompt], [image])
        ids = loaded.model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        text = loaded.tokenizer.decode(ids, skip_special_tokens=True).strip()
        rewards.append(Levenshtein.normalized_similarity(text, question.answer))
    return float(np.mean(rewards))


def test_scores_are_those_of_greedy_answers_before_between_and_after(validated, options, data):
    info = read_record(validated)["validation"]
    assert [score["step"] for score in info["scores"]] == [0, 3, 4]
    adapters = (None, str(validated / "checkpoint-3"), str(validated))
    expected = [generated_reward(options["model"], adapter, data) for adapter in adapters]
    assert [score["reward"] for score in info["scores"]] == pytest.approx(expected, abs=1e-12)
    assert len(set(expected)) > 1
    assert (info["reward_name"], info["questions"]) == ("edit", 5)
    assert all(score["acc_50"] is None and score["unreadable"] == 0.0 for score in info["scores"])


def test_they_are_logged_beside_the_losses(validated):
    scores = read_record(validated)["validation"]["scores"]
    log = read_log(validated)
    assert [(e["step"], e["eval_reward"]) for e in log if "eval_reward" in e] == [
        (score["step"], score["reward"]) for score in scores
    ]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4]
    events = EventAccumulator(str(validated / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("eval/reward")] == [0, 3, 4]


def test_the_best_adapter_is_kept_whole_with_its_step(options, tmp_path, monkeypatch):
    """Rewards that rise, fall, and reach the same height again: the first of the best is kept."""
    heights = iter([0.2, 0.4, 0.7, 0.3, 0.7])
    monkeypatch.setattr(
        "perpo.train.watching.validation.Validation._answered", lambda self: [(next(heights), True, False)]
    )
    output = train(TrainArguments(**options | {"eval_steps": 1}, output_dir=str(tmp_path / "run")))
    record, best = read_record(output), read_record(output / "best")
    assert record["validation"]["best"] == {
        "step": 2,
        "reward": 0.7,
        "acc_50": None,
        "unreadable": 0.0,
        "truncated": 0.0,
    }
    assert (best["steps"], best["validation"]["scores"][-1]["reward"]) == (2, 0.7)
    kept, then = (load_file(output / name / "adapter_model.safetensors") for name in ("best", "checkpoint-2"))
    assert all(torch.equal(kept[name], value) for name, value in then.items())
    assert load_model(options["model"], str(output / "best")).adapter_sha256 == best["adapter_sha256"]
    assert not list(output.glob(".best*"))


def test_validation_changes_no_weight(validated, options, tmp_path):
    without = {name: value for name, value in options.items() if "eval" not in name}
    plain = train(TrainArguments(**without, probe_lists=0, output_dir=str(tmp_path / "run")))
    one, other = (load_file(path / "adapter_model.safetensors") for path in (plain, validated))
    assert all(torch.equal(other[name], value) for name, value in one.items())


def test_a_resumed_run_has_the_scores_of_an_uninterrupted_one(validated, options, tmp_path):
    cut = tmp_path / "run"
    shutil.copytree(validated / "checkpoint-2", cut / "checkpoint-2")
    shutil.copytree(validated / "best", cut / ".best.old")  # a crash between the two renames
    (cut / "training.json").write_text(json.dumps(read_record(validated) | {"status": "running"}))
    train(TrainArguments(**options, output_dir=str(cut), resume_from_checkpoint="last"))
    assert read_record(cut)["validation"] == read_record(validated)["validation"]
    assert read_record(cut / "best")["steps"] == read_record(validated / "best")["steps"]
    assert {path.name for path in cut.glob(".best*")} == set()


def test_a_run_does_not_go_on_with_other_held_out_questions(validated, options, data, tmp_path):
    """Else scores on one file and on another would choose the best adapter together."""
    held_out, cut = tmp_path / "held-out.jsonl", tmp_path / "run"
    shutil.copytree(validated / "checkpoint-2", cut / "checkpoint-2")
    changed = options | {"eval_data": str(held_out), "eval_image_root": str(data), "resume_from_checkpoint": "last"}
    record = read_record(validated) | {"status": "running"}
    record["arguments"] |= {"eval_data": str(held_out), "eval_image_root": str(data)}
    (cut / "training.json").write_text(json.dumps(record))
    questions = (data / "held-out.jsonl").read_text().splitlines(keepends=True)
    held_out.write_text("".join(questions[1:]))
    with pytest.raises(PerpoError, match="the questions of --eval_data have changed since the training in"):
        train(TrainArguments(**changed, output_dir=str(cut)))
    held_out.write_text("".join(questions))
    train(TrainArguments(**changed, output_dir=str(cut)))
    assert read_record(cut)["validation"]["scores"] == read_record(validated)["validation"]["scores"]


def test_boxes_have_an_accuracy(options, data, tmp_path, monkeypatch):
    """A box on the truth, one beside it, one away from it, and an answer that holds none."""
    said = iter(["[0.2, 0.2, 0.6, 0.6]", "[0.4, 0.2, 0.8, 0.6]", "[0.7, 0.7, 0.9, 0.9]", "no box"])

    def answers(self, queries, decoding):
        return [[Answer(next(said), False, None)] for _ in queries]

    monkeypatch.setattr(HfEngine, "answers", answers)
    rows = [{"image_path": f"{n}.png", "question": "where?", "answer": "[0.2, 0.2, 0.6, 0.6]"} for n in range(4)]
    held_out = lines(data / "boxes.jsonl", rows)
    changes = {"eval_data": held_out, "eval_reward": "iou", "eval_truth_frame": "original", "max_steps": 1}
    monkeypatch.setattr("perpo.train.watching.validation.Validation.on_step_end", lambda *args, **kwargs: None)
    output = train(TrainArguments(**options | changes, output_dir=str(tmp_path / "run")))
    (score,) = read_record(output)["validation"]["scores"]
    assert score["acc_50"] == 0.25
    assert score["unreadable"] == 0.25
    # The truth is x 8 to 24, y 4.8 to 14.4 of 40 x 24 pixels. The answers are in the padded square of 40 pixels,
    # which begins 8 pixels above the image: x 8 to 24 and x 16 to 32, y 0 to 16.
    first, second = 16 * 9.6 / 16**2, 8 * 9.6 / (16 * 9.6 + 16**2 - 8 * 9.6)
    assert score["reward"] == pytest.approx((first + second) / 4)


def test_boxes_are_read_as_declared_or_as_the_training_data_say(options, data):
    """Of 40 x 24 pixels the truth is the left half; the answer says so as thousandths and with a width."""
    rows = [{"image_path": "0.png", "question": "where?", "answer": "[0, 0, 50, 100]"}]
    changes = {"eval_data": lines(data / "half.jsonl", rows), "eval_reward": "iou", "eval_truth_scale": "percent"}
    changes |= {"eval_truth_order": "xyxy", "eval_truth_frame": "original"}
    flags = {"eval_box_scale": "0-1000", "eval_box_order": "xywh", "eval_box_frame": "original"}
    recorded = {name.removeprefix("eval_"): value for name, value in flags.items()}
    said = PreferenceRecord(image_path="0.png", question="?", answer="x", image_id=0, answers_gen=["a"], rewards=[1.0],
                            reward_name="iou", **recorded)  # fmt: skip
    for more, records in ((flags, []), ({}, [said, said])):
        held_out = read_held_out(TrainArguments(**options | changes | more, output_dir="run"), records)
        assert held_out.reward("[0, 0, 500, 1000]", rows[0]["answer"], held_out.asked[0].sample) == 1.0
    held_out = read_held_out(TrainArguments(**options | changes, output_dir="run"), [])
    assert held_out.reward("[0, 0, 500, 1000]", rows[0]["answer"], held_out.asked[0].sample) < 0.01


def test_pixels_of_pictures_of_another_size_are_not_trained_on(options, data, tmp_path):
    resize = {"factor": 28, "min_pixels": 3136, "max_pixels": 12845056}
    rows = [json.loads(line) | {"box_resize": resize} for line in Path(options["data"]).read_text().splitlines()]
    changes = {"data": lines(data / "pixels.jsonl", rows), "image_root": str(data)}
    with pytest.raises(PerpoError, match="record 1 counts pixels of pictures with 3136 to 12845056 pixels"):
        train(TrainArguments(**options | changes, output_dir=str(tmp_path / "run")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_data": "none.jsonl"}, "none.jsonl"),
        ({"eval_reward": "iuo"}, "there is no reward 'iuo'"),
        ({"eval_reward": "iou"}, "question 1: its truth 'abc' holds no box"),
        ({"eval_max_new_tokens": 1000}, "exceed the model's context"),
        ({"eval_steps": 0}, "--eval_steps must be at least 1"),
        (
            {"eval_reward": "edit", "eval_truth_frame": "padded"},
            "--eval_truth_frame has no effect with --eval_reward edit",
        ),
        ({"eval_reward": "edit", "eval_box_scale": "0-1"}, "--eval_box_scale has no effect with --eval_reward edit"),
    ],
)
def test_bad_questions_are_refused_before_training(options, tmp_path, capsys, changes, message):
    words = [f"--{name}={value}" for name, value in (options | changes).items()]
    assert main([*words, f"--output_dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "\nhint: " in error
    assert not (tmp_path / "run" / "checkpoint-1").exists()


def test_a_reward_that_the_data_do_not_name_has_to_be_given(options, data, tmp_path):
    rows = [json.loads(line) | {"reward_name": "mine"} for line in Path(options["data"]).read_text().splitlines()]
    changes = {"data": lines(data / "mine.jsonl", rows), "image_root": str(data)}
    with pytest.raises(PerpoError, match="do not say what reward") as caught:
        train(TrainArguments(**options | changes, output_dir=str(tmp_path / "run")))
    assert "--eval_reward" in caught.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "eval_image_root",
        "eval_steps",
        "eval_reward",
        "eval_truth_frame",
        "per_device_eval_batch_size",
    ],
)
def test_what_belongs_to_validation_is_refused_without_it(options, name):
    texts = {"eval_image_root": "x", "eval_reward": "iou", "eval_truth_frame": "padded"}
    value = texts.get(name, 7)
    plain = {key: kept for key, kept in options.items() if "eval" not in key}
    with pytest.raises(PerpoError, match=f"--{name} has no effect without --eval_data"):
        TrainArguments(**plain, output_dir="run", **{name: value})
