"""LLaVA's own checkpoint directories: what is read from them is what LLaVA's code reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from perpo.models.loaded import render_prompt
from perpo.models.loading import load_model
from perpo.models.original_files import read_file, weight_files
from perpo.models.original_weights import original_weights
from tests.support.original_llava import KINDS, hugging_face_name, spell, write_original

V1 = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: <image>\n{} ASSISTANT:"
)
PROMPTS = {
    "v1.5": V1,
    "v1.6-vicuna": V1,
    "v1.6-mistral": "[INST] <image>\n{} [/INST]",
    **dict.fromkeys(
        ("next-qwen", "onevision"),
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\n{}<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in weight_files(folder) for name, tensor in read_file(path).items()}


def reference(folder: Path, kind: str, loaded) -> object:
    """Transformers' model of the same tensors, put in by names that the conversion scripts would give."""
    weights = {hugging_face_name(name): tensor for name, tensor in tensors(folder).items()}
    tower = folder.with_name(f"{folder.name}-tower")
    if not any(name.startswith("model.vision_tower.") for name in weights):
        for name, tensor in torch.load(tower / "pytorch_model.bin").items():
            if name.startswith("vision_model."):
                weights[name.replace("vision_model.", "model.vision_tower.", 1)] = tensor
    model = getattr(transformers, KINDS[kind].hugging_face)(loaded.model.config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    return model


@pytest.mark.parametrize("with_tower", [True, False])
@pytest.mark.parametrize(("ending", "tied"), [("bin", False), ("safetensors", True)])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_same_tensors(tmp_path, kind, ending, tied, with_tower):
    folder = write_original(tmp_path / "llava", kind, ending=ending, tied=tied, with_tower=with_tower)
    loaded = load_model(str(folder))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 71, 3), dtype=np.uint8))
    inputs = loaded.encode([render_prompt(loaded, "Where is it?")], [image])
    expected = reference(folder, kind, loaded)
    place, features = (
        loaded.processor.image_token_id,
        expected.get_image_features(
            **{key: inputs[key] for key in ("pixel_values", "image_sizes", "batch_num_images") if key in inputs}
        ).pooler_output,
    )
    embedded = expected.get_input_embeddings()(inputs.input_ids.masked_fill(inputs.input_ids == place, 0))
    embedded[inputs.input_ids == place] = torch.cat(list(features))
    with torch.no_grad():
        ours = loaded.model(**inputs).logits
        theirs = expected(inputs_embeds=embedded, attention_mask=inputs.attention_mask).logits
    assert ours.shape[-1] == json.loads((folder / "config.json").read_text())["vocab_size"]
    torch.testing.assert_close(ours, theirs)
    written = dict(original_weights(loaded.model, tower=with_tower))
    given = tensors(folder)
    assert written.keys() == given.keys()
    assert all(torch.equal(written[name], given[name]) for name in given)


@pytest.mark.parametrize("kind", KINDS)
def test_the_prompt_is_the_conversation_of_its_kind(tmp_path, kind):
    loaded = load_model(str(write_original(tmp_path / "llava", kind)))
    prompt = render_prompt(loaded, "Where is it?")
    assert prompt == PROMPTS[kind].format("Where is it?")
    before, after = prompt.split("<image>")
    ids = loaded.encode([prompt], [Image.new("RGB", (20, 20))]).input_ids[0].tolist()
    image = loaded.processor.image_token_id
    first, last = ids.index(image), len(ids) - ids[::-1].index(image)
    assert set(ids[first:last]) == {image}
    if KINDS[kind].architecture == "LlavaQwenForCausalLM":
        assert loaded.tokenizer.decode(ids[:first]) == before
        assert loaded.tokenizer.decode(ids[last:]) == after
        assert loaded.end_id == loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    else:
        assert ids[:first] == [1, *spell(before)]
        assert ids[last:] == spell(after)
        assert image == loaded.model.get_input_embeddings().num_embeddings
        assert loaded.end_id == 2
