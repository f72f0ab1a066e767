"""A base whose weights are kept: what one user does to its model never reaches the next."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from typing import Any

import pytest
import torch

from perpo.models import keeping
from perpo.models.attention import set_attention
from perpo.models.keeping import keeping_base
from perpo.models.loaded import LoadedModel, render_prompt
from perpo.models.loading import load_model
from perpo.models.lora import add_lora
from perpo.models.prefix import base_model


def load(checkpoint: Any, **how: Any) -> LoadedModel:
    return load_model(str(checkpoint), **({"device": "cpu", "frozen": True} | how))


def logits(loaded: LoadedModel, pictures: list[Any]) -> torch.Tensor:
    inputs = loaded.encode([render_prompt(loaded, "where is the red cup?")], pictures[:1])
    with torch.no_grad():
        return loaded.model(**inputs.to(loaded.model.dtype)).logits


def train_a_step(loaded: LoadedModel, pictures: list[Any]) -> None:
    """All that a training does to a model, and worse."""
    model = add_lora(loaded, r=2, alpha=4, dropout=0.5, train_projector=True)
    if loaded.family.prefix != "both_ways":
        set_attention(base_model(model))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    loaded.model.config.get_text_config().use_cache = False
    loaded.model.generation_config.max_length = 3
    model.get_input_embeddings().register_forward_hook(lambda module, given, output: output * 2)
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1.0)
    inputs = loaded.encode([render_prompt(loaded, "find it")], pictures[:1])
    with torch.enable_grad():
        model(**inputs).logits.square().mean().backward()
    optimizer.step()


def test_who_loads_it_again_has_it_as_it_was_read(checkpoint, pictures):
    plain = load(checkpoint)
    with keeping_base():
        first = load(checkpoint)
        at = {name: each.data_ptr() for name, each in first.model.named_parameters()}
        flags = {name: each.requires_grad for name, each in first.model.named_parameters()}
        base, adapted = first.model, first
        assert torch.equal(logits(first, pictures), logits(plain, pictures))
        train_a_step(adapted, pictures)
        again = load(checkpoint)
    assert again.model is not base
    assert {name: each.data_ptr() for name, each in again.model.named_parameters()} == at  # no second copy
    assert {name: each.requires_grad for name, each in again.model.named_parameters()} == flags
    assert all(each.grad is None for each in again.model.parameters())
    assert again.model.config.to_dict() == plain.model.config.to_dict()
    assert again.model.generation_config.to_dict() == plain.model.generation_config.to_dict()
    states = again.model.state_dict(), plain.model.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(each, states[1][name]) for name, each in states[0].items())
    assert not again.model.training
    assert torch.equal(logits(again, pictures), logits(plain, pictures))


def pointers(loaded: LoadedModel) -> set[int]:
    return {each.data_ptr() for each in loaded.model.parameters()}


def test_one_base_is_kept_and_only_for_who_leaves_it_as_it_is(checkpoints, capsys):
    checkpoint = checkpoints("llava")
    assert not pointers(load(checkpoint)) & pointers(load(checkpoint))  # nobody asked for it
    with keeping_base():
        first = load(checkpoint)
        assert not pointers(first) & pointers(load(checkpoint, frozen=False))
        assert keeping._shelves[-1].model is None  # whoever trains all of it has the memory for that
        first = load(checkpoint)
        kept = weakref.ref(keeping._shelves[-1].model)
        other = load(checkpoint, dtype="bfloat16")
        gc.collect()
        assert kept() is None
        assert other.model.dtype == torch.bfloat16
        assert not pointers(first) & pointers(load(checkpoint))
    assert keeping._shelves == []
    assert "warning" not in capsys.readouterr().err


def test_weights_that_were_changed_after_all_are_read_again(checkpoints, capsys):
    checkpoint = checkpoints("llava")
    plain = load(checkpoint).model.state_dict()
    with keeping_base():
        first = load(checkpoint)
        next(first.model.parameters()).data.view(-1)[0] += 1  # as merging an adapter would, which leaves no other trace
        again = load(checkpoint).model.state_dict()
    assert all(torch.equal(each, plain[name]) for name, each in again.items())
    assert "the weights that were kept have changed" in capsys.readouterr().err


def test_what_cannot_be_copied_is_loaded_each_time(checkpoints, monkeypatch):
    def refuse(*_: Any) -> Any:
        raise TypeError("cannot pickle")

    monkeypatch.setattr(keeping, "_on_same_memory", refuse)
    with keeping_base():
        assert not pointers(load(checkpoints("llava"))) & pointers(load(checkpoints("llava")))


@pytest.mark.parametrize("change", ["config.json", "model.safetensors"])
def test_a_folder_that_changed_is_read_again(change, checkpoints, tmp_path):

    folder = shutil.copytree(checkpoints("llava"), tmp_path / "model")
    with keeping_base():
        first = load(folder)
        if change == "config.json":
            config = json.loads((folder / change).read_text())
            config["text_config"]["rms_norm_eps"] = 0.5
            (folder / change).write_text(json.dumps(config))
        else:
            load_model(str(checkpoints("llava"))).model.half().float().save_pretrained(folder)
        assert not pointers(first) & pointers(load(folder))
