"""LLaVA's own checkpoint directories: what is read from them is what LLaVA's code reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.image_processing_utils import select_best_resolution

from perpo.cli.sample import main
from perpo.errors import PerpoError
from perpo.models.checkpoints import model_config
from perpo.models.loaded import render_prompt
from perpo.models.loading import load_model, load_processor
from perpo.models.original import _TOWERS, TOWER_VARIABLE, _grids, with_hugging_face_type
from perpo.models.original_files import read_file, weight_files
from perpo.models.original_weights import original_weights
from tests.support.original_llava import KINDS, hugging_face_name, spell, write_original, write_tower

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


def test_numbers_of_config_json_reach_the_model(tmp_path):
    folder = write_original(tmp_path / "llava", "v1.6-mistral", rope_theta=1e6, max_position_embeddings=300)
    config = load_model(str(folder)).model.config
    text, said = config.text_config, json.loads((folder / "config.json").read_text())
    assert (config.model_type, text.model_type, config.vision_config.model_type) == (
        "llava_next",
        "mistral",
        "clip_vision_model",
    )
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps"):
        assert getattr(text, name) == said[name]
    assert (text.num_key_value_heads, text.vocab_size, text.sliding_window) == (2, said["vocab_size"], None)
    assert (text.rope_parameters["rope_theta"], text.max_position_embeddings) == (1e6, 300)
    assert (config.vision_feature_layer, config.vision_feature_select_strategy) == (-2, "default")
    assert config.image_grid_pinpoints == [[56, 28], [28, 56], [56, 56], [28, 84], [84, 28]]


def test_towers_that_are_known_by_name_are_those_of_the_papers():
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14}
    siglip = {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "patch_size": 14}
    for name, numbers, positions in (
        ("clip-vit-large-patch14-336", large, 577),
        ("clip-vit-large-patch14", large, 257),
        ("siglip-so400m-patch14-384", siglip, 729),
    ):
        tower = _TOWERS[name]
        assert numbers.items() <= tower.items()
        assert (tower["image_size"] // 14) ** 2 + ("clip" in name) == positions


@pytest.mark.parametrize(
    "pinpoints",
    [
        [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        "[(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]",
        "(1x1),...,(6x6)",
    ],
)
def test_the_grid_of_tiles_is_the_one_that_llavas_code_chooses(pinpoints):
    widths_first = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]
    if "6x6" in pinpoints:
        widths_first = [(336 * x, 336 * y) for x in range(1, 7) for y in range(1, 7)]
    ours = _grids(pinpoints, 336)
    draw = np.random.default_rng(0)
    for width, height in [(300, 300), (336, 336), (10, 10), *draw.integers(5, 3000, (2000, 2)).tolist()]:
        best, most, least = None, 0, float("inf")
        for w, h in widths_first:  # select_best_resolution of mm_utils.py
            scale = min(w / width, h / height)
            effective = min(int(width * scale) * int(height * scale), width * height)
            wasted = w * h - effective
            if effective > most or (effective == most and wasted < least):
                best, most, least = (w, h), effective, wasted
        chosen = select_best_resolution((height, width), ours)
        assert (chosen[1], chosen[0]) == best


def without(name):
    def damage(folder: Path) -> None:
        shard = next(path for path in weight_files(folder) if name in read_file(path))
        kept = {key: tensor.clone() for key, tensor in read_file(shard).items() if key != name}
        save_file(kept, shard, metadata={"format": "pt"})

    return damage


def with_shape(name, *shape):
    def damage(folder: Path) -> None:
        shard = next(path for path in weight_files(folder) if name in read_file(path))
        kept = {key: tensor.clone() for key, tensor in read_file(shard).items()}
        save_file(kept | {name: torch.zeros(shape)}, shard, metadata={"format": "pt"})

    return damage


def said(**changes):
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))

    return damage


def torn(folder: Path) -> None:
    shard = weight_files(folder)[0]
    shard.write_bytes(shard.read_bytes()[:500])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: weight_files(folder)[0].unlink(), "lacks 1 of the 2 weight files"),
        (torn, "cannot be loaded"),
        (without("model.mm_projector.2.weight"), "lacks 1 weights that its config.json names"),
        (with_shape("model.mm_projector.2.weight", 32, 31), "lacks 1 weights that its config.json names"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{"), "is no index of weight files"),
        (lambda folder: (folder / "tokenizer.model").unlink(), "has no tokenizer"),
        (said(mm_projector_type="mlp3x_gelu"), "mm_projector_type is mlp3x_gelu"),
        (said(mm_projector_type=...), "mm_projector_type is linear"),
        (said(mm_use_im_start_end=True), "mm_use_im_start_end is True"),
        (said(mm_resampler_type="qformer"), "mm_resampler_type is qformer"),
        (said(s2=True), "s2 is True"),
        (said(mm_vision_tower="google/siglip-s2"), "looks at several scales"),
        (said(mm_vision_select_feature="slicefour_patch"), "mm_vision_select_feature is slicefour_patch"),
        (said(image_aspect_ratio="square"), "image_aspect_ratio is square"),
        (said(image_aspect_ratio="anyres"), "mm_patch_merge_type is flat"),
        (said(architectures=["LlavaMptForCausalLM"]), "has the architecture LlavaMptForCausalLM"),
        (said(rms_norm_eps=...), "lacks rms_norm_eps"),
        (said(mm_hidden_size=24), "was trained on a vision tower of width 24"),
        (said(mm_vision_tower="./nowhere"), "there is no folder of the vision tower"),
        (said(vocab_size=20), "tokens, and the model's vocabulary 20"),
    ],
)
def test_what_is_damaged_or_not_known_is_refused_in_a_sentence(tmp_path, damage, message):
    folder = write_original(tmp_path / "llava", "v1.5")
    damage(folder)
    with pytest.raises(PerpoError, match=message) as caught:
        load_model(str(folder))
    assert caught.value.hint
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_torn_bin_file_and_one_that_holds_code_are_refused(tmp_path):
    folder = write_original(tmp_path / "llava", "v1.5", ending="bin")
    shard = weight_files(folder)[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PerpoError, match="cannot be loaded"):
        load_model(str(folder))
    shard.unlink()
    torch.save({"model.norm.weight": Path}, shard)
    with pytest.raises(PerpoError, match="cannot be loaded"):
        load_model(str(folder))


def test_a_tower_that_was_trained_along_is_not_taken_from_elsewhere(tmp_path):
    for number, said_so in enumerate(({"unfreeze_mm_vision_tower": True}, {"mm_tunable_parts": "mm_vision_tower"})):
        folder = write_original(tmp_path / str(number), "v1.5", with_tower=False, **said_so)
        with pytest.raises(PerpoError, match="lacks the weights of its vision tower, which was trained along"):
            load_model(str(folder))


def test_the_tower_is_part_of_the_digest_and_the_users_goes_first(tmp_path, monkeypatch):
    folder = write_original(tmp_path / "llava", "v1.5", with_tower=False, mm_vision_tower="nobody/knows/it")
    with pytest.raises(PerpoError, match="there is no folder of the vision tower nobody/knows/it") as caught:
        load_model(str(folder))
    assert "--vision_tower" in caught.value.hint
    towers = [folder.with_name("llava-tower"), tmp_path / "other"]
    write_tower(towers[1], "clip")
    weights = torch.load(towers[1] / "pytorch_model.bin")
    weights["vision_model.post_layernorm.bias"] += 1
    (towers[1] / "pytorch_model.bin").unlink()
    torch.save(weights, towers[1] / "pytorch_model.bin")
    digests = []
    for tower in towers:
        monkeypatch.setenv(TOWER_VARIABLE, str(tower))
        digests.append(load_model(str(folder)).weights_sha256)
    assert len(set(digests)) == 2


def test_the_model_is_never_chosen_by_its_model_type(tmp_path, monkeypatch):
    def chosen(*args, **kwargs):
        raise AssertionError("an Auto class was asked")

    for kind in (AutoConfig, AutoModelForImageTextToText, AutoProcessor):
        monkeypatch.setattr(kind, "from_pretrained", chosen)
    folder = write_original(tmp_path / "llava", "v1.5")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llava"
    assert load_model(str(folder)).model.config.text_config.hidden_size == 32
    assert load_processor(str(folder)).context_length == 512
    assert model_config(str(folder))["model_type"] == "llava"


def test_other_conversations_are_not_taken_for_vicunas(tmp_path):
    folder = write_original(tmp_path / "llava", "v1.5")
    config = json.loads((folder / "config.json").read_text())
    tokens = {"<|im_start|>": config["vocab_size"]}
    (folder / "added_tokens.json").write_text(json.dumps(tokens))
    said(vocab_size=config["vocab_size"] + 1)(folder)
    with pytest.raises(PerpoError, match=r"the conversation of .* is not known") as caught:
        load_processor(str(folder))
    assert "chat_template.jinja" in caught.value.hint
    (folder / "chat_template.jinja").write_text("<|im_start|>user\n<image>{{ messages[0]['content'][1]['text'] }}")
    assert render_prompt(load_processor(str(folder)), "Where?") == "<|im_start|>user\n<image>Where?"


@pytest.mark.parametrize("kind", KINDS)
def test_a_type_is_told_without_the_tower_and_not_by_what_config_json_says(tmp_path, kind):
    folder = write_original(tmp_path / "llava", kind)
    told = with_hugging_face_type(json.loads((folder / "config.json").read_text()))
    assert told["model_type"] == model_config(str(folder))["model_type"] == load_model(str(folder)).family.model_type
    unknown = with_hugging_face_type({"model_type": "llava", "mm_vision_tower": "clip", "image_aspect_ratio": "square"})
    assert unknown["model_type"] == ""
    assert with_hugging_face_type({"model_type": "llava"}) == {"model_type": "llava"}


def test_llama_2_is_not_taken_for_vicuna(tmp_path):
    folder = write_original(tmp_path / "llava-llama-2-7b-chat", "v1.5")
    with pytest.raises(PerpoError, match="it is of Llama 2 by its name"):
        load_processor(str(folder))


def test_answers_are_sampled_from_one_with_its_tower_named_in_the_environment(tmp_path, monkeypatch):
    folder = write_original(tmp_path / "llava", "v1.5", with_tower=False, ending="bin", mm_vision_tower="nobody/knows")
    monkeypatch.setenv(TOWER_VARIABLE, str(folder.with_name("llava-tower")))
    Image.new("RGB", (40, 30), "blue").save(tmp_path / "0.png")
    question = {"image_path": "0.png", "question": "Where is it?", "answer": "[0.10, 0.20, 0.30, 0.40]"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question) + "\n")
    output = tmp_path / "preferences.jsonl"
    words = {"model": folder, "questions": tmp_path / "questions.jsonl", "output": output, "num_candidates": 3}
    words |= {"max_new_tokens": 4, "min_margin": 0}
    assert main([f"--{name}={value}" for name, value in words.items()]) == 0
    (record,) = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(record["answers_gen"]) == 3
    assert record["sampling"]["weights_sha256"] == load_model(str(folder)).weights_sha256
