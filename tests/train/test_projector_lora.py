"""The projector trained by LoRA in place of a copy: what trains, at which rate; every way to load it agrees."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from perpo.cli.sample import _start
from perpo.errors import PerpoError
from perpo.models.estimate import Estimator
from perpo.models.loaded import render_prompt
from perpo.models.loading import load_model
from perpo.records.training_record import read_record
from perpo.sample.arguments import SampleArguments
from perpo.train.arguments import TrainArguments
from perpo.train.optimizing import adamw
from perpo.train.outputs.merge import MergeArguments, merge
from perpo.train.policy import load_policy
from perpo.train.run import train

ROWS = [
    {
        "question": "where?",
        "answer": "[0.1]",
        "answers_gen": ["[0.1]", f"[0.{number}5]", "[0.9]"],
        "rewards": [1.0, 0.4, 0.0],
    }
    for number in range(4)
]


@pytest.fixture(scope="module")
def options(tmp_path_factory, write_records, small_run):
    data = write_records(tmp_path_factory.mktemp("data"), ROWS)
    return small_run | {"data": data, "projector_lora": True, "num_train_epochs": 2.0, "probe_lists": 0}


@pytest.fixture(scope="module")
def adapter(options, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "adapter"
    return train(TrainArguments(**options | {"output_dir": str(output), "save_steps": 2}))


def logits(model, loaded):
    batch = loaded.encode([render_prompt(loaded, "where?")], [Image.new("RGB", (32, 32), "teal")])
    with torch.no_grad():
        return model(**batch).logits


def test_just_lora_trains_and_the_projectors_at_its_own_rate(options, tmp_path):
    args = TrainArguments(**options | {"output_dir": str(tmp_path), "mm_projector_lr": 0.5, "learning_rate": 0.25})
    policy = load_policy(args)
    trained = {name: each for name, each in policy.model.named_parameters() if each.requires_grad}
    assert all(".lora_" in name for name in trained)
    assert not any("modules_to_save" in name for name, _ in policy.model.named_parameters())
    projector = {name for name in trained if policy.in_projector(name)}
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in projector} == {"linear_1", "linear_2"}
    rates = {id(each): group["lr"] for group in adamw(args, policy).param_groups for each in group["params"]}
    assert {rates[id(trained[name])] for name in projector} == {0.5}
    assert {rates[id(trained[name])] for name in trained.keys() - projector} == {0.25}
    with policy.as_reference():
        pass  # which switches gradients off and on
    assert {name for name, each in policy.model.named_parameters() if each.requires_grad} == trained.keys()
    plan_parameters = Estimator(args.model)._trained
    from perpo.cli.estimates import training_plan

    assert plan_parameters(training_plan(args)) == sum(each.numel() for each in trained.values())


def test_the_projector_alone(options, tmp_path):
    policy = load_policy(TrainArguments(**options | {"output_dir": str(tmp_path), "projector_only": True}))
    trained = [name for name, each in policy.model.named_parameters() if each.requires_grad]
    assert trained
    assert all(policy.in_projector(name) and ".lora_" in name for name in trained)


def test_it_is_learnt_written_and_told(adapter):
    tensors = load_file(adapter / "adapter_model.safetensors")
    assert all(".lora_" in name for name in tensors)
    learnt = [name for name, tensor in tensors.items() if "projector" in name and "lora_B" in name and tensor.any()]
    assert len(learnt) == 2
    assert read_record(adapter)["arguments"]["projector_lora"] is True
    assert "- projector_lora: True" in (adapter / "README.md").read_text()


def test_loaded_and_merged_it_gives_the_same(options, adapter, tmp_path):
    base, adapted = load_model(options["model"]), load_model(options["model"], str(adapter))
    said = logits(adapted.model, adapted)
    assert not torch.allclose(said, logits(base.model, base), atol=1e-3)
    merge(MergeArguments(model=options["model"], adapter=str(adapter), output=str(tmp_path / "merged")))
    merged = load_model(str(tmp_path / "merged"))
    torch.testing.assert_close(logits(merged.model, merged), said, atol=1e-5, rtol=1e-5)


def test_an_interrupted_run_ends_with_the_same_weights(options, adapter, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(adapter / "checkpoint-2", cut / "checkpoint-2")
    (cut / "training.json").write_text(json.dumps(read_record(adapter) | {"status": "running"}))
    more = {"output_dir": str(cut), "save_steps": 2, "resume_from_checkpoint": "last"}
    train(TrainArguments(**options | more))
    whole, again = (load_file(each / "adapter_model.safetensors") for each in (adapter, cut))
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def test_training_goes_on_from_it_as_it_was_made(options, adapter, tmp_path):
    more = {"adapter": str(adapter), "output_dir": str(tmp_path / "next"), "allow_other_sampler": True}
    policy = load_policy(TrainArguments(**options | more))
    reference, start = load_model(options["model"], str(adapter)), policy.loaded
    with policy.as_reference():
        torch.testing.assert_close(logits(policy.model, start), logits(reference.model, reference))
    with pytest.raises(PerpoError, match="has LoRA on the projector") as caught:
        load_policy(TrainArguments(**options | more | {"projector_lora": False}))
    assert caught.value.hint == "give --projector_lora True"
    frozen = load_policy(TrainArguments(**options | more | {"projector_lora": False, "mm_projector_lr": 0.0}))
    trained = [name for name, each in frozen.model.named_parameters() if each.requires_grad]
    assert not any(frozen.in_projector(name) for name in trained)
    sampled = SampleArguments(model=options["model"], adapter=str(adapter), output="x")
    assert _start(sampled) == {"lora_r": 4, "lora_alpha": 8, "projector_lora": True}


def test_an_adapter_with_a_whole_projector_stays_one(options, tmp_path):
    whole = train(TrainArguments(**options | {"projector_lora": False, "output_dir": str(tmp_path / "whole")}))
    with pytest.raises(PerpoError, match="has no LoRA on the projector") as caught:
        load_policy(TrainArguments(**options | {"adapter": str(whole), "output_dir": str(tmp_path / "next")}))
    assert caught.value.hint == "leave --projector_lora out"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_projector_lr": 0.0}, "no effect with --mm_projector_lr 0"),
        ({"lora_enable": False, "lora_r": 128, "lora_alpha": 256}, "--projector_lora has no effect with --lora_enable"),
        ({"bits": 4}, "--projector_lora was not tried on a base in 4 bits"),
    ],
)
def test_what_contradicts_it_is_refused(options, changes, message):
    with pytest.raises(PerpoError, match=message):
        TrainArguments(**options | {"output_dir": "x"} | changes)


def test_a_projector_without_linear_layers_is_refused(options, tmp_path, monkeypatch):
    monkeypatch.setattr("perpo.models.lora.projector_modules", lambda model, family: ["model.vision_tower.embeddings"])
    with pytest.raises(PerpoError, match="has no linear layer") as caught:
        load_policy(TrainArguments(**options | {"output_dir": str(tmp_path)}))
    assert caught.value.hint == "leave --projector_lora out"
