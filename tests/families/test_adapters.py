"""An adapter fits its base in every weight, or is refused; names of earlier versions of transformers are known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from perpo.errors import PerpoError
from perpo.models.loading import load_model
from perpo.models.lora import add_lora
from perpo.train.outputs.saving import load_checkpoint, save_checkpoint

PREFIX = "base_model.model."
NOW = f"{PREFIX}model.language_model."
# Names of modules before transformers 4.52, as adapters of that time on the hub have them.
LLAVA_THEN = {NOW: f"{PREFIX}language_model.model.", f"{PREFIX}model.multi_modal": f"{PREFIX}multi_modal"}
QWEN_THEN = {NOW: f"{PREFIX}model.", f"{PREFIX}model.visual.": f"{PREFIX}visual."}
THEN = {
    "llava": LLAVA_THEN,
    "llava_next": LLAVA_THEN,
    "llava_onevision": LLAVA_THEN,
    "paligemma": LLAVA_THEN,
    "qwen2_5_vl": QWEN_THEN,
}


@pytest.fixture(scope="session")
def adapters(checkpoints, tmp_path_factory):
    """The adapter of a family, with its projector and weights that say something; made when first asked for."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            loaded = load_model(str(checkpoints(name)), device="cpu")
            model = add_lora(loaded, r=2, alpha=4, dropout=0.0, train_projector=True)
            torch.manual_seed(1)
            for parameter in model.parameters():
                if parameter.requires_grad:
                    torch.nn.init.normal_(parameter, std=0.3)
            made[name] = tmp_path_factory.mktemp(f"{name}-adapter")
            save_checkpoint(model, loaded.processor, made[name])
        return made[name]

    return get


def changed(adapter, folder, rename=lambda key: key, keep=lambda key: True, **config):
    """A copy of an adapter with other names, without some weights, or with other settings."""
    shutil.copytree(adapter, folder)
    weights = load_file(adapter / "adapter_model.safetensors")
    kept = {rename(key): value for key, value in weights.items() if keep(key)}
    save_file(kept, folder / "adapter_model.safetensors", {"format": "pt"})
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def replaced(names):
    def rename(key):
        begins = next((now for now in names if key.startswith(now)), "")
        return names.get(begins, "") + key.removeprefix(begins)

    return rename


def weights_of(model):
    return {name: value for name, value in model.state_dict().items() if ".lora_" in name or "modules_to_save" in name}


def assert_same(one, other):
    one, other = weights_of(one), weights_of(other)
    assert one.keys() == other.keys()
    assert one
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", THEN)
def test_names_of_earlier_versions_are_mapped(checkpoints, adapters, name, tmp_path, capsys):
    base, adapter = str(checkpoints(name)), adapters(name)
    then = changed(adapter, tmp_path / "then", replaced(THEN[name]))
    before, after = (load_file(path / "adapter_model.safetensors") for path in (adapter, then))
    assert not before.keys() & after.keys()
    today = load_model(base, str(adapter), device="cpu").model
    assert "adapter" not in capsys.readouterr().err
    assert_same(load_model(base, str(then), device="cpu").model, today)
    assert f"note: {len(after)} weights of the adapter {then} have names from an older" in capsys.readouterr().err


def test_settings_that_name_modules_by_their_old_paths_are_mapped(checkpoints, adapters, tmp_path):
    """A pattern that no longer found its module would leave it at the other modules' scale, silently."""
    base, adapter = str(checkpoints("llava")), adapters("llava")
    now, then = "model.language_model.layers.0.mlp.up_proj", "language_model.model.layers.0.mlp.up_proj"
    modules = {key.split(".lora_")[0].removeprefix(PREFIX) for key in load_file(adapter / "adapter_model.safetensors")}
    modules = [each for each in modules if "language_model" in each]
    old = [each.replace("model.language_model.", "language_model.model.") for each in modules]
    settings = {"modules_to_save": ["multi_modal_projector"], "use_rslora": True}
    today = changed(adapter, tmp_path / "today", target_modules=modules, alpha_pattern={now: 32}, **settings)
    moved = changed(
        adapter, tmp_path / "moved", replaced(LLAVA_THEN), target_modules=old, alpha_pattern={then: 32}, **settings
    )
    one, other = (load_model(base, str(path), device="cpu").model for path in (today, moved))
    assert_same(one, other)
    for model in (one, other):
        layer = model.base_model.model.get_submodule(now)
        assert layer.scaling["default"] == pytest.approx(32 / 2**0.5)  # rsLoRA: alpha / sqrt(r)
    wrong = changed(adapter, tmp_path / "wrong", alpha_pattern={"language_model.decoder.0": 32})
    with pytest.raises(PerpoError, match=r"the model has no module called .*decoder\.0"):
        load_model(base, str(wrong), device="cpu")


LAYER = "layers.0.self_attn.q_proj"
REFUSED = {
    "text trainer": ("llava", {"rename": replaced({NOW: f"{PREFIX}model."})}, "trained on a language model alone"),
    "text trainer, no old names": ("qwen3_vl", {"rename": replaced({NOW: f"{PREFIX}model."})}, "language model alone"),
    "no prefix": ("llava", {"rename": lambda key: key.removeprefix(PREFIX)}, "saved without PEFT"),
    "wrapped twice": ("llava", {"rename": lambda key: PREFIX + key}, "inside a wrapper"),
    "DDP": ("llava", {"rename": lambda key: f"module.{key}"}, "inside a wrapper"),
    "another version": ("llava", {"rename": replaced({NOW: f"{PREFIX}model.text_model."})}, "version of transformers"),
    "a part": ("llava", {"keep": lambda key: LAYER not in key}, "some of its weights are not in its file"),
    "no projector": ("llava", {"keep": lambda key: "projector" not in key}, "some of its weights are not in its file"),
    "another rank": ("llava", {"r": 3}, "another size"),
    "nothing": ("llava", {"keep": lambda key: False}, "some of its weights are not in its file"),
    "no such targets": ("llava", {"target_modules": ["wq", "wk"]}, "the model that the adapter was trained on"),
    "more targets": ("llava", {"target_modules": ["q_proj", "fc1"]}, ""),
    "fewer targets": ("llava", {"target_modules": ["q_proj"]}, ""),
}


@pytest.mark.parametrize("what", REFUSED)
def test_one_that_does_not_fit_in_every_weight_is_refused(checkpoints, adapters, what, tmp_path):
    name, change, hint = REFUSED[what]
    broken = changed(adapters(name), tmp_path / "broken", **change)
    with pytest.raises(PerpoError, match="does not fit the model") as caught:
        load_model(str(checkpoints(name)), str(broken), device="cpu")
    assert caught.value.exit_code == 2
    assert str(broken) in caught.value.message
    assert hint in caught.value.hint


def test_counts_and_three_names_are_said(checkpoints, adapters, tmp_path):
    broken = changed(adapters("llava"), tmp_path / "broken", keep=lambda key: ".lora_A." not in key)
    with pytest.raises(PerpoError) as caught:
        load_model(str(checkpoints("llava")), str(broken), device="cpu")
    count = len(load_file(adapters("llava") / "adapter_model.safetensors"))  # 7 modules, and the projector's 4
    assert count == 2 * 7 + 4
    assert f"7 of {count} weights that its adapter_config.json names are missing: " in caught.value.message
    assert caught.value.message.count("lora_A") == 3


def test_a_checkpoint_that_training_goes_on_from_is_checked_too(checkpoints, adapters, tmp_path):
    model = load_model(str(checkpoints("llava")), str(adapters("llava")), device="cpu", trainable_adapter=True).model
    load_checkpoint(model, adapters("llava"))
    part = changed(adapters("llava"), tmp_path / "part", keep=lambda key: "projector" not in key)
    with pytest.raises(PerpoError, match="4 of 18 weights"):
        load_checkpoint(model, part)


def test_what_others_write_fits_and_what_is_doubtful_is_said(checkpoints, tmp_path, capsys):
    """DoRA, a part of the layers, embeddings of the base beside it; another base's name; a setting of a later PEFT."""
    base = load_model(str(checkpoints("llava")), device="cpu")
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], use_dora=True, modules_to_save=["lm_head"])
    model = get_peft_model(base.model, config)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    load_model(str(checkpoints("llava")), str(tmp_path / "adapter"), device="cpu")
    assert "adapter" not in capsys.readouterr().err
    told = {"base_model_name_or_path": "me/other-7b", "use_something_new": True, "not_used": None}
    load_model(str(checkpoints("llava")), str(changed(tmp_path / "adapter", tmp_path / "told", **told)), device="cpu")
    said = capsys.readouterr().err
    assert "warning: the adapter" in said
    assert "settings that this PEFT does not know: use_something_new\n" in said
    assert f"trained on other-7b, but it is used with {checkpoints('llava').name}" in said
    embeddings = f"{PREFIX}model.language_model.embed_tokens.weight"
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert embeddings in weights
    weights[embeddings] += 1
    save_file(weights, tmp_path / "adapter" / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(PerpoError, match=r"1 of .* weights in it do not belong to any module"):
        load_model(str(checkpoints("llava")), str(tmp_path / "adapter"), device="cpu")
