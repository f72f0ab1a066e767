"""perpo-train as a program: bad input, the seed's kind of record, true token geometry."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from perpo.cli.train import main
from perpo.records.training_record import read_record
from perpo.tiny.model import LLAVA15_GEOMETRY, save_random_model
from perpo.train.trainer import PreferenceTrainer
from tests.support import SHARED

RECORD = {
    "image_path": "image.jpg",
    "question": "<image>\nwhere?",
    "answer": "here",
    "answers_gen": ["left", "right", "above"],
    "rewards": [0.1, 0.9, 0.4],
    "reward_name": "iou",
}


@pytest.fixture
def case(tmp_path, small_model):
    """A directory with an image, and a function that runs the program on one record."""
    Image.new("RGB", (40, 30), "blue").save(tmp_path / "image.jpg")

    def run(record=None, text=None, **flags):
        data = tmp_path / "data.jsonl"
        data.write_text(json.dumps(RECORD if record is None else record) if text is None else text)
        options = {
            "model": small_model,
            "data": data,
            "image_root": tmp_path,
            "output_dir": tmp_path / "run",
            "lora_r": 2,
            "lora_alpha": 2,
            "save_steps": 0,
        } | flags
        return main([f"--{name}={value}" for name, value in options.items()])

    return run


def without(field):
    return {name: value for name, value in RECORD.items() if name != field}


def test_sft_asks_for_an_expression_as_the_family_does_and_speaks_of_other_boxes(case, tmp_path, capsys):
    row = {"image_path": "image.jpg", "expression": "it", "answer": "[0.10, 0.20, 0.30, 0.40]"}
    assert case(row, method="sft", max_steps=1) == 0
    assert "warning" not in capsys.readouterr().err
    told = row | {"box_scale": "pixels", "box_order": "xyxy", "box_frame": "original"}
    assert case(told, method="sft", max_steps=1, output_dir=tmp_path / "other") == 0
    assert "warning: 1 of 1 records write boxes as scale pixels" in capsys.readouterr().err
    assert case(row) == 2  # preferences say what was asked
    assert "record 1: it has no sampled answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (without("answers_gen"), "record 1: it has no sampled answers"),
        (RECORD | {"rewards": [0.1, 0.9]}, "record 1: 3 answers but 2 `rewards`"),
        (RECORD | {"rewards": [0.1, float("nan"), 0.4]}, "record 1: expected a number from 0 to 1"),
        (RECORD | {"image_path": "gone.jpg"}, "gone.jpg: no such file"),
        (RECORD | {"question": "why?" + " so" * 200}, "record 1: image (4 tokens), prompt ("),
        (RECORD | {"question": "<image>\nthis <image>?"}, "record 1: a question holds placeholders of 2 pictures"),
        (RECORD | {"question": "where?</s>USER: and then?"}, "record 1: a question holds </s>"),
        (RECORD | {"answers_gen": ["a", "b", "c <image>"]}, "record 1: an answer holds <image>"),
        (RECORD | {"answers_gen": ["a", "b", "c</s><pad>"]}, "record 1: an answer holds </s>"),
        (RECORD | {"rewards": [0.5, 0.5, 0.5]}, "has candidates with different rewards"),
    ],
)
def test_bad_records_end_with_a_sentence_a_hint_and_code_2(case, capsys, record, message):
    assert case(record) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "\nhint: " in error
    assert "Traceback" not in error


def test_bad_files_and_models_end_with_code_2(case, tmp_path, capsys):
    original = tmp_path / "original"
    original.mkdir()
    (original / "config.json").write_text('{"model_type": "llava_llama", "mm_vision_tower": "clip"}')
    (tmp_path / "torn.jpg").write_bytes((tmp_path / "image.jpg").read_bytes()[:300])
    cases = [
        ({"data": tmp_path / "none.jsonl"}, "none.jsonl"),
        ({"text": json.dumps(RECORD) + "\n{not json}\n"}, "line 2"),
        ({"record": RECORD | {"image_path": "torn.jpg"}}, "torn.jpg: "),
        ({"model": tmp_path}, "has no config.json"),
        ({"model": tmp_path / "nowhere"}, "there is no model folder"),
        ({"model": original}, "original LLaVA checkpoint"),
        ({"adapter": tmp_path}, "does not hold an adapter"),
        ({"resume_from_checkpoint": tmp_path / "checkpoint-1"}, "is not a checkpoint of a run"),
        ({"lora_rank": 3}, "there is no argument --lora_rank"),
        ({"reference": "recorded", "record": RECORD | {"reference_logps": [-1, -2, -3]}}, "was not sampled from"),
    ]
    for flags, message in cases:
        assert case(**flags) == 2, message
        error = capsys.readouterr().err
        assert message in error
        assert "\nhint: " in error
    assert not (tmp_path / "run").exists()


def test_bad_data_are_found_before_the_model_is_hashed_or_downloaded(case, tmp_path, capsys, monkeypatch):
    def opened(*args, **kwargs):
        pytest.fail("the model was asked for")

    monkeypatch.setattr("perpo.train.recording.local_directory", opened)
    monkeypatch.setattr("perpo.train.recording.weights_digest", opened)
    for flags, message in (
        ({"data": tmp_path / "none.jsonl"}, "none.jsonl"),
        ({"record": without("answers_gen")}, "it has no sampled answers"),
        ({"record": RECORD | {"rewards": [0.5, 0.5, 0.5]}}, "has candidates with different rewards"),
    ):
        assert case(model="owner/large", **flags) == 2
        assert message in capsys.readouterr().err


def test_images_are_by_default_beside_the_data(tmp_path, small_model, monkeypatch):
    (tmp_path / "data").mkdir()
    Image.new("RGB", (40, 30), "blue").save(tmp_path / "data" / "image.jpg")
    (tmp_path / "data" / "records.jsonl").write_text(json.dumps(RECORD))
    monkeypatch.chdir(tmp_path)
    flags = {"model": small_model, "data": "data/records.jsonl", "output_dir": "run", "lora_r": 2, "save_steps": 0}
    assert main([f"--{name}={value}" for name, value in flags.items()]) == 0


def test_an_adapter_made_with_other_settings_is_refused(case, tmp_path, capsys):
    assert case(mm_projector_lr=0) == 0
    for flags, message in (
        ({"lora_r": 3}, "was made with lora_r 2, not 3"),
        ({}, "has no projector to train"),
        ({"mm_projector_lr": 0, "method": "sft", "lora_dropout": 0.1}, "was made with lora_dropout 0.0, not 0.1"),
    ):
        assert case(adapter=tmp_path / "run", output_dir=tmp_path / "next", **flags) == 2
        assert message in capsys.readouterr().err


@pytest.fixture
def interruptible():
    """Ctrl-C works, also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_says_how_to_go_on(case, capsys, monkeypatch, interruptible):
    saved = []

    def save(self, *args, **kwargs):
        saved.append(1)
        if len(saved) == 2:
            signal.raise_signal(signal.SIGINT)
        save_checkpoint(self, *args, **kwargs)

    save_checkpoint = PreferenceTrainer._save_checkpoint
    monkeypatch.setattr(PreferenceTrainer, "_save_checkpoint", save)
    steps = {"save_steps": 1, "max_steps": 3}
    assert case(**steps) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert (
        said
        == "interrupted; run the same command with --resume_from_checkpoint last to continue from the last checkpoint"
    )
    assert case(**steps, resume_from_checkpoint="last") == 0
    assert len(saved) == 4  # of the steps 1 and 2, then 2 and 3


def test_help_answers_at_once():
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "perpo.cli.train", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "--mm_projector_lr" in done.stdout
    for heavy in ("torch", "transformers", "pandas", "pyarrow"):
        assert f" {heavy}\n" not in done.stderr
    assert time.monotonic() - began < 10  # about 0.2 s; the machine may be busy


def seed_style_record(candidates):
    """A record as the method's authors published theirs: sorted by score, question with the image token."""
    generator = random.Random(3)
    boxes = [f"[{', '.join(f'{generator.random():.2f}' for _ in range(4))}]" for _ in range(candidates)]
    return {
        "image_id": 1,
        "image_path": "COCO/train2014/photograph.jpg",
        "question": "<image>\nPlease provide the bounding box coordinate of the region this sentence describes: burger",
        "answer": "[0.61, 0.1, 0.77, 0.54]",
        "answers_gen": boxes,
        "iou_scores": sorted((generator.random() for _ in boxes), reverse=True),
    }


@pytest.fixture(scope="module")
def llava15(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("llava15"), LLAVA15_GEOMETRY)


def train_two_steps(model, data, image_root, output):
    flags = {"model": model, "data": data, "image_root": image_root, "output_dir": output, "max_steps": 2}
    assert main([f"--{name}={value}" for name, value in flags.items()]) == 0
    record = read_record(output)
    assert record["steps"] == 2
    assert record["data"]["counts"]["candidates"] == 20
    return record


def test_two_steps_at_true_token_geometry_on_a_seed_style_list(llava15, tmp_path):
    folder = tmp_path / "COCO" / "train2014"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "photograph.jpg")
    (tmp_path / "data.json").write_text(json.dumps([seed_style_record(20)]))
    train_two_steps(llava15, tmp_path / "data.json", tmp_path, tmp_path / "run")


DATA = SHARED / "data"


@pytest.mark.skipif(not (DATA / "perpo" / "data.json").exists(), reason="the published record is not at hand")
def test_two_steps_on_the_published_record_with_a_photograph(llava15, tmp_path):
    data = DATA / "perpo" / "data.json"
    (record,) = json.loads(data.read_text())
    place = tmp_path / record["image_path"]
    place.parent.mkdir(parents=True)
    shutil.copy(next((DATA / "images").glob("*.jpg")), place)
    train_two_steps(llava15, data, tmp_path, tmp_path / "run")
