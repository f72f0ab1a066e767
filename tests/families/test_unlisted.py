"""Model types that are not in the table: taken if they read a shared prefix as their own forward does, else refused."""

from __future__ import annotations

import json

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from perpo.errors import PerpoError
from perpo.models import families
from perpo.models.loading import load_model
from perpo.models.lora import add_lora
from perpo.models.unlisted import REFUSED
from perpo.records.store import read_run
from perpo.sample.arguments import SampleArguments
from perpo.sample.run import run_sampling
from perpo.train.arguments import TrainArguments
from perpo.train.run import train
from perpo_eval.arguments import EvalArguments
from perpo_eval.evaluate.run import check, evaluate
from tests.support import ROOT


@pytest.fixture
def unlisted(checkpoints):
    """The checkpoint of an architecture whose row is taken out of the table."""
    rows = dict(families.FAMILIES)

    def take_out(kind):
        families.FAMILIES.pop(kind, None)
        return str(checkpoints(kind))

    yield take_out
    families.FAMILIES.clear()  # they come back in their order
    families.FAMILIES.update(rows)


@pytest.mark.parametrize("kind", ["llava_onevision", "internvl", "smolvlm"])
def test_a_causal_model_is_taken(kind, unlisted):
    known = families.FAMILIES[kind]
    path = unlisted(kind)
    loaded = load_model(path, device="cpu")
    assert loaded.family.boxes is None
    assert loaded.family.vision_tower == known.vision_tower
    model = add_lora(loaded, r=2, alpha=4, dropout=0.0, train_projector=False)
    trained = {name.partition(".lora_")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 7
    assert all(f".{known.language_model}.layers.0." in name for name in trained)
    with pytest.raises(PerpoError, match="not known which module of the model type") as caught:
        add_lora(load_model(path, device="cpu"), r=2, alpha=4, dropout=0.0, train_projector=True)
    assert caught.value.hint == "give --mm_projector_lr 0"


def test_it_is_trained_without_its_projector(unlisted, pictures, tmp_path):
    pictures[0].save(tmp_path / "0.png")
    row = {"image_path": "0.png", "question": "Where?", "answer": "a", "answers_gen": ["a", "b"], "rewards": [1.0, 0.0]}
    (tmp_path / "records.jsonl").write_text(json.dumps(row) + "\n")
    options = {"model": unlisted("internvl"), "data": str(tmp_path / "records.jsonl"), "lora_r": 4, "lora_alpha": 8}
    options |= {"output_dir": str(tmp_path / "run"), "max_steps": 2, "learning_rate": 0.1, "logging_steps": 1}
    with pytest.raises(PerpoError, match="not known which module of the model type"):
        train(TrainArguments(**options))
    run = train(TrainArguments(**options | {"mm_projector_lr": 0, "output_dir": str(tmp_path / "other")}))
    assert json.loads((run / "training.json").read_text())["last_log"]["loss"] < 0.69  # log 2 at first


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_a_model_whose_tokens_are_not_all_read_alike_is_refused(kind, unlisted):
    with pytest.raises(PerpoError, match="its processor gives mm_token_type_ids") as caught:
        load_model(unlisted(kind), device="cpu")
    assert str(caught.value).startswith(f"the model type '{kind}' is not in the table of families, and ")
    assert "these are known: llava, " in caught.value.hint


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_type_that_is_known_not_to_work_is_refused_with_its_reason(model_type, tmp_path):
    """Before its weights are read; there are none here. The page of families has the same reason."""
    assert model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    assert model_type not in families.FAMILIES
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(PerpoError) as caught:
        load_model(str(tmp_path), device="cpu")
    assert caught.value.message == f"the model type '{model_type}' is not supported: {REFUSED[model_type]}"
    assert f"| `{model_type}` | {REFUSED[model_type]} |" in (ROOT / "docs" / "families.md").read_text()


def test_a_model_that_counts_columns_is_refused(unlisted, monkeypatch):
    """Behind a shared prefix a candidate's tokens are not in the columns of their positions."""
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

    by_position = Qwen2RotaryEmbedding.forward

    def by_column(self, x, position_ids):
        return by_position(self, x, torch.arange(position_ids.shape[-1]).expand_as(position_ids))

    path = unlisted("internvl")
    load_model(path, device="cpu")
    monkeypatch.setattr(Qwen2RotaryEmbedding, "forward", by_column)
    with pytest.raises(PerpoError, match="answers after a shared prefix are not those of its own forward"):
        load_model(path, device="cpu")


def test_a_model_with_a_window_is_refused(unlisted, tmp_path):
    import shutil

    path = shutil.copytree(unlisted("internvl"), tmp_path / "windowed")
    config = json.loads((path / "config.json").read_text())
    config["text_config"] |= {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    config["text_config"]["layer_types"] = ["sliding_attention"]
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PerpoError, match="its attention is not causal over the whole sequence"):
        load_model(str(path), device="cpu")


def test_its_boxes_are_not_guessed(unlisted, tmp_path, pictures):
    path = unlisted("internvl")
    pictures[0].save(tmp_path / "0.png")
    row = {"image_path": "0.png", "question": "Where?", "answer": "[0.1, 0.2, 0.3, 0.4]"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(row) + "\n")
    options = {"model": path, "questions": str(tmp_path / "questions.jsonl"), "output": str(tmp_path / "out.jsonl")}
    options |= {"num_candidates": 2, "max_new_tokens": 4}
    with pytest.raises(PerpoError, match="the model type 'internvl' is not in the table"):
        run_sampling(SampleArguments(**options))
    run_sampling(SampleArguments(**options, reward="edit"))
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert len(record["rewards"]) == 2
    assert record.get("box_frame") is None

    evaluation = {"model": path, "output": str(tmp_path), "data": "tiny", "limit": 2}
    with pytest.raises(PerpoError, match="needs to know how this model writes boxes") as caught:
        check(EvalArguments(**evaluation))
    assert "--family" in caught.value.hint
    evaluate(EvalArguments(**evaluation, suite="pope"))
    assert evaluate(EvalArguments(**evaluation, family="smolvlm"))


def test_its_boxes_are_read_as_declared(unlisted, tmp_path, pictures):
    path = unlisted("internvl")
    pictures[0].save(tmp_path / "0.png")
    row = {"image_path": "0.png", "question": "Where?", "answer": "[10, 20, 30, 40]"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(row) + "\n")
    options = {"model": path, "questions": str(tmp_path / "questions.jsonl"), "output": str(tmp_path / "out.jsonl")}
    run_sampling(SampleArguments(**options, num_candidates=2, max_new_tokens=4, box_scale="percent"))
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert (record["box_scale"], record["box_order"], record["box_frame"]) == ("percent", "xyxy", "original")
    evaluation = {"model": path, "output": str(tmp_path), "data": "tiny", "tasks": ["refshapes_val"], "limit": 2}
    run = evaluate(EvalArguments(**evaluation, box_scale="pixels", box_order="xywh"))
    for stored in (run, evaluate(EvalArguments(rescore=run, output=str(tmp_path)))):
        (task,) = read_run(stored).record.tasks
        assert (task.box_scale, task.box_order, task.box_frame) == ("pixels", "xywh", "original")
