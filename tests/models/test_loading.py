"""Loading: what is refused and how it is said, prompts, answer tokens, digests, adapters."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from perpo.errors import PerpoError
from perpo.models import loading
from perpo.models.checkpoints import resolve_model
from perpo.models.loaded import answers_token_ids, render_prompt
from perpo.models.loading import chosen_dtype, default_dtype, load_model
from perpo.models.lora import add_lora
from perpo.tiny.model import LLAVA15_GEOMETRY, save_random_model
from perpo.train.outputs.saving import save_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("llava"), LLAVA15_GEOMETRY)


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_model(str(checkpoint), device="cpu")


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A checkpoint that may be damaged."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


def test_a_model_is_ready_to_run(loaded, checkpoint):
    assert not loaded.model.training
    assert loaded.family.model_type == "llava"
    assert loaded.tokenizer.padding_side == "left"
    assert loaded.context_length == LLAVA15_GEOMETRY.max_positions
    assert loaded.adapter_sha256 is None
    assert loaded.weights_sha256 == hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()


def test_the_digest_covers_all_shards_and_sees_changes(copy):
    tensors = load_file(copy / "model.safetensors")
    names = sorted(tensors)
    (copy / "model.safetensors").unlink()
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, copy / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    both = b"".join((copy / file).read_bytes() for file in sorted(parts))
    assert load_model(str(copy)).weights_sha256 == hashlib.sha256(both).hexdigest()


def test_bfloat16_is_the_default_on_cuda_alone(capsys, monkeypatch):
    kinds = ("cuda", "cuda:1", "cpu", "mps")
    assert [default_dtype(torch.device(kind)) for kind in kinds] == ["bfloat16", "bfloat16", "float32", "float32"]
    assert (chosen_dtype(None, "cpu"), capsys.readouterr().err) == ("float32", "")
    monkeypatch.setattr(loading, "_device", lambda name: torch.device("cuda"))
    assert chosen_dtype(None, None) == "bfloat16"
    assert capsys.readouterr().err == "note: computing in bfloat16, which is the default on a GPU\n"
    assert chosen_dtype("float32", None) == "float32"


def test_dtype(checkpoint):
    assert next(load_model(str(checkpoint), dtype="bfloat16").model.parameters()).dtype == torch.bfloat16


def test_the_prompt_is_the_template_s_without_the_image_token_of_the_data(loaded):
    prompt = render_prompt(loaded, "<image>\nWhat is it?")
    assert prompt == LLAVA15_GEOMETRY.system + "USER: <image>\nWhat is it? ASSISTANT:"
    assert render_prompt(loaded, "What is it?") == prompt
    assert render_prompt(loaded, "What is it?\n<image>") == prompt
    with pytest.raises(PerpoError, match="2 pictures"):
        render_prompt(loaded, "Compare <image> with <image>")


def test_answer_tokens_are_separator_answer_and_end(loaded):
    prompt = render_prompt(loaded, "Where?")
    tokenizer = loaded.tokenizer
    ids, ended_at_once = answers_token_ids(loaded, prompt, ["[0.61, 0.10]", ""])
    assert tokenizer.decode(ids) == " [0.61, 0.10]</s>"
    assert tokenizer(prompt).input_ids + ids == tokenizer(prompt + " [0.61, 0.10]</s>").input_ids
    assert ended_at_once == [tokenizer.eos_token_id]
    assert answers_token_ids(loaded, prompt, ["[0.61, 0.10]", ""], end=False) == [ids[:-1], []]


def test_a_token_over_the_boundary_is_an_error(loaded):
    """Without a separator 0.6 and 1 make the one token 0.61."""
    glued = replace(loaded, family=replace(loaded.family, answer_separator=""))
    with pytest.raises(PerpoError, match="joins the end of the prompt"):
        answers_token_ids(glued, "ASSISTANT: 0.6", ["1"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "config.json").unlink(), "has no config.json"),
        (lambda path: (path / "config.json").write_text("{"), "is not JSON"),
        (lambda path: (path / "model.safetensors").unlink(), "no weights in the safetensors format"),
        (lambda path: (path / "model.safetensors").write_bytes(b"x" * 100), "cannot be loaded"),
        (lambda path: (path / "tokenizer.json").write_text("{}"), "cannot be loaded"),
        (lambda path: (path / "chat_template.jinja").unlink(), "has no chat template"),
        (lambda path: edit_config(path, model_type="lava"), "model type 'lava' is not supported"),
        (lambda path: edit_config(path, mm_vision_tower="openai/clip"), "is an original LLaVA checkpoint"),
        (lambda path: edit_weights(path, drop="model.multi_modal_projector.linear_1.weight"), "lacks 1 weights"),
    ],
)
def test_what_is_no_model_is_refused(copy, damage, message):
    damage(copy)
    with pytest.raises(PerpoError, match=message) as caught:
        load_model(str(copy))
    assert caught.value.hint
    assert caught.value.exit_code == 2


def edit_config(path, **changes):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


def edit_weights(path, drop):
    tensors = load_file(path / "model.safetensors")
    (found,) = [name for name in tensors if name.endswith(drop.removeprefix("model."))]
    del tensors[found]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def test_names_that_lead_nowhere(tmp_path, monkeypatch):
    with pytest.raises(PerpoError, match="there is no model folder"):
        resolve_model(str(tmp_path / "nowhere"))
    assert resolve_model("owner/name") == "owner/name"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PerpoError, match="is not a folder, and it could not be fetched from the hub"):
        load_model("owner/no-such-model")


def test_an_adapter_survives_saving_and_other_bases_are_refused(loaded, checkpoint, copy, tmp_path):
    model = add_lora(load_model(str(checkpoint)), r=2, alpha=4, dropout=0.0, train_projector=True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    save_checkpoint(model, loaded.processor, tmp_path / "adapter")
    assert not any(str(tmp_path.parent) in path.read_text("latin-1") for path in (tmp_path / "adapter").iterdir())
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == checkpoint.name
    found = load_model(str(checkpoint), str(tmp_path / "adapter"))
    assert isinstance(found.model, PeftModel)
    assert not any(parameter.requires_grad for parameter in found.model.parameters())
    digest = hashlib.sha256((tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert found.adapter_sha256 == digest
    ids = loaded.tokenizer(" describes the blue square", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        assert torch.equal(found.model(input_ids=ids).logits, expected)
        plain = AutoModelForImageTextToText.from_pretrained(checkpoint)(input_ids=ids).logits
    assert not torch.allclose(plain, expected, atol=1e-3)

    narrow = save_random_model(tmp_path / "narrow", type(LLAVA15_GEOMETRY)(28, 14, 64, 2, -2, 64, 2, 128))
    with pytest.raises(PerpoError, match="does not fit the model"):
        load_model(str(narrow), str(tmp_path / "adapter"))
    with pytest.raises(PerpoError, match="is an adapter, not a model"):
        load_model(str(tmp_path / "adapter"))
    with pytest.raises(PerpoError, match="does not hold an adapter"):
        load_model(str(checkpoint), str(copy))


def test_an_adapter_of_another_model_of_the_same_shape_is_refused(loaded, checkpoint, copy, tmp_path):
    """Its training.json says which weights it was trained on; without one nothing is known, and it is taken."""
    model = add_lora(load_model(str(checkpoint)), r=2, alpha=4, dropout=0.0, train_projector=False)
    save_checkpoint(model, loaded.processor, tmp_path / "adapter")
    tensors = load_file(copy / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, copy / "model.safetensors", {"format": "pt"})
    load_model(str(copy), str(tmp_path / "adapter"))
    record = {"schema_version": 1, "status": "complete", "arguments": {}, "data": {"sha256": "0"}}
    record["model"] = {"name": "the-first", "weights_sha256": loaded.weights_sha256}
    (tmp_path / "adapter" / "training.json").write_text(json.dumps(record))
    load_model(str(checkpoint), str(tmp_path / "adapter"))
    with pytest.raises(PerpoError, match="was trained on another model: the-first") as caught:
        load_model(str(copy), str(tmp_path / "adapter"))
    assert caught.value.hint == "give the model that the adapter was trained on"


def test_lora_is_on_the_linear_layers_of_the_language_model_alone(checkpoint):
    model = add_lora(load_model(str(checkpoint)), r=2, alpha=4, dropout=0.0, train_projector=False)
    names = {name.partition(".lora_")[0] for name, p in model.named_parameters() if p.requires_grad}
    layers = LLAVA15_GEOMETRY.text_layers
    assert len(names) == 7 * layers
    assert all("language_model" in name and "vision" not in name for name in names)


def test_a_model_with_an_adapter_beside_it_is_refused(copy):
    """Transformers would put it on the model as far as it fits, and say so in a warning."""
    (copy / "adapter_config.json").write_text("{}")
    with pytest.raises(PerpoError, match="holds both a model and an adapter"):
        load_model(str(copy))


def test_weights_that_no_module_takes_are_said(copy, capsys):
    tensors = load_file(copy / "model.safetensors")
    save_file(tensors | {"model.later.weight": torch.zeros(1)}, copy / "model.safetensors", {"format": "pt"})
    load_model(str(copy))
    said = f"warning: {copy} has 1 weights that its config.json does not name, such as model.later.weight\n"
    assert said in capsys.readouterr().err
