"""Every family through the trainer: what changes, that the tower runs once, and what was saved."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from perpo.data import read_preferences
from perpo.engines.shared_image import answer
from perpo.models.loaded import render_prompt
from perpo.models.loading import load_model
from perpo.models.logps import candidate_logps
from perpo.train.arguments import TrainArguments
from perpo.train.lists import Collator, ListDataset, choose, tokenize
from perpo.train.outputs.merge import MergeArguments, merge
from perpo.train.policy import load_policy
from perpo.train.run import train

GREEDY = {"max_new_tokens": 8, "do_sample": False}


@pytest.fixture(scope="session")
def records(tmp_path_factory, pictures, questions):
    """Preference records about pictures of unequal sizes, with lists of unequal lengths."""
    folder, generator = tmp_path_factory.mktemp("records"), random.Random(0)
    rows = []
    for number, (picture, question) in enumerate(zip(pictures, questions, strict=True)):
        picture.save(folder / f"{number}.png")
        answers = [f"[{generator.random():.2f}, {generator.random():.2f}]" for _ in range(4 - number % 2)]
        row = {"image_path": f"{number}.png", "question": question, "answer": answers[0], "answers_gen": answers}
        rows.append(row | {"rewards": [round(generator.random(), 3) for _ in answers], "reward_name": "iou"})
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "records.jsonl"


@pytest.fixture(scope="session")
def options(name, checkpoint, records, tmp_path_factory):
    sizes = {"lora_r": 4, "lora_alpha": 8, "learning_rate": 0.1, "mm_projector_lr": 0.1}
    places = {"model": str(checkpoint), "data": str(records), "output_dir": str(tmp_path_factory.mktemp(name) / "run")}
    return places | sizes | {"per_device_train_batch_size": 4, "max_steps": 1, "save_steps": 0, "probe_lists": 0}


@pytest.fixture(scope="session")
def trained(options):
    """A run of one step: its policy, the weights before and after, how often the first vision block ran."""
    seen = SimpleNamespace(policy=None, before={}, calls=[], output=None)

    def load(args):
        policy = load_policy(args)
        blocks = [
            part for name, part in policy._vision_tower.named_modules() if re.search(r"(layers?|blocks)\.0$", name)
        ]
        run = blocks[0].forward
        blocks[0].forward = lambda *args, **kwargs: seen.calls.append(1) or run(*args, **kwargs)
        seen.policy = policy
        seen.before = {name: value.clone() for name, value in policy.model.state_dict().items()}
        return policy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perpo.train.run.load_policy", load)
        seen.output = train(TrainArguments(**options))
    return seen


def last_log(output):
    return json.loads((output / "training.json").read_text())["last_log"]


def test_one_step_changes_only_the_adapter_and_its_projector(trained):
    after = trained.policy.model.state_dict()
    changed = {name for name, value in trained.before.items() if not torch.equal(after[name], value)}
    family = trained.policy.loaded.family
    language = {name for name in changed if ".lora_B.default." in name}
    projector = {name for name in changed if ".modules_to_save.default." in name}
    assert changed == language | projector
    assert language == {name for name in after if ".lora_B.default." in name}
    assert all(re.fullmatch(rf".*{family.lora_targets}\.lora_B\.default\.weight", name) for name in language)
    assert projector
    assert all(re.search(rf"\.{family.projector}\.modules_to_save", name) for name in projector)


def test_the_vision_tower_runs_once_for_policy_and_reference(trained):
    """Qwen's projectors are parts of it, so that there its blocks do."""
    assert len(trained.calls) == 1


def test_what_is_kept_of_the_tower_changes_no_gradient(trained, options):
    """The reference runs first, so that the policy is handed what was kept, its trained projector included."""
    policy = trained.policy
    args = TrainArguments(**options)
    choices, _ = choose(args, read_preferences(args.data))
    dataset = ListDataset(tokenize(policy.loaded, choices, Path(args.data).parent), policy.loaded)
    batch = Collator(3)([dataset[place] for place in range(len(dataset))])

    def gradients():
        policy.model.zero_grad()
        with torch.no_grad(), policy.as_reference():
            reference = candidate_logps(policy.model, batch["packed"], batch["images"], candidates=4)
        policy_logps = candidate_logps(policy.model, batch["packed"], batch["images"], candidates=4)
        (policy_logps * torch.arange(1.0, 5.0)).sum().backward()
        trained_ones = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
        return {"reference": reference, "policy": policy_logps.detach()} | trained_ones

    plain = gradients()
    with policy.encode_images_once():
        kept = gradients()
    assert any("modules_to_save" in name for name in plain)
    assert (plain["reference"] - plain["policy"]).abs().max() > 1e-3
    assert plain.keys() == kept.keys()
    for name, value in plain.items():
        torch.testing.assert_close(kept[name], value, msg=name)


def test_a_whole_model_trains_but_for_its_tower(options, checkpoint, tmp_path):
    """What the tower holds of the projector does train. It computes in bfloat16, with weights in float32."""
    changes = {"lora_enable": False, "bf16": True, "learning_rate": 1e-2, "mm_projector_lr": 1e-2}
    names = ("lora_r", "lora_alpha", "output_dir")
    given = {name: value for name, value in options.items() if name not in names}
    run = train(TrainArguments(**given | changes | {"output_dir": str(tmp_path / "whole")}))
    before, after = (load_model(str(path), device="cpu") for path in (checkpoint, run))
    family, old = before.family, before.model.state_dict()
    changed = {name for name, value in after.model.state_dict().items() if not torch.equal(value, old[name].to(value))}
    in_tower = {name for name in changed if re.match(rf"(model\.)?{family.vision_tower}\.", name)}
    in_projector = {name for name in changed if re.match(rf"(model\.)?{family.projector}\.", name)}
    assert in_projector
    assert in_tower <= in_projector
    assert any(f"{family.language_model}.layers.0." in name for name in changed)


@pytest.mark.parametrize("bf16", [False, True])
def test_checkpointing_and_half_precision(options, trained, tmp_path, bf16):
    """Recomputing activations changes no gradient; in bfloat16 a step is made, too."""
    run = train(TrainArguments(**options | {"output_dir": str(tmp_path), "bf16": bf16, "gradient_checkpointing": True}))
    one, other = last_log(trained.output), last_log(run)
    assert one["grad_norm"] > 0
    assert other["loss"] == pytest.approx(one["loss"], rel=0.02 if bf16 else 1e-5)
    assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=0.3 if bf16 else 1e-3)


def test_what_was_merged_answers_as_the_adapter_does(trained, checkpoint, pictures, questions, tmp_path):
    loaded = load_model(str(checkpoint), str(trained.output), device="cpu")
    prompts = [render_prompt(loaded, question) for question in questions]
    work = (prompts, pictures, list(range(len(prompts))), GREEDY)
    said = answer(loaded, *work)
    assert said != answer(load_model(str(checkpoint), device="cpu"), *work)
    merged = merge(MergeArguments(model=str(checkpoint), adapter=str(trained.output), output=str(tmp_path / "merged")))
    assert answer(load_model(str(merged), device="cpu"), *work) == said
