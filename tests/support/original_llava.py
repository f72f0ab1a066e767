"""Random checkpoints as LLaVA's own code writes them, and transformers' models made of the same tensors.

Names are spelled out here a second time, so that the table of `perpo.models.original_weights` is held against them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

TEXT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: ASSISTANT: Where is the small red circle? What is on the left "
    "of the blue square? [INST] [/INST] You are a helpful assistant. [0.10, 0.20, 0.30, 0.40] system user"
)
HIDDEN, INNER, LAYERS, HEADS = 32, 48, 2, 4
SIDE, PATCH, WIDTH, TOWER_LAYERS = 28, 14, 16, 3


@dataclass(frozen=True)
class Kind:
    """One kind of checkpoint: its architecture, its tower, what is done with pictures, and transformers' class."""

    architecture: str
    tower: str
    ratio: str
    kv_heads: int
    hugging_face: str
    model_type: str = "llava"


KINDS = {
    "v1.5": Kind("LlavaLlamaForCausalLM", "clip", "pad", 4, "LlavaForConditionalGeneration"),
    "v1.6-vicuna": Kind("LlavaLlamaForCausalLM", "clip", "anyres", 4, "LlavaNextForConditionalGeneration"),
    "v1.6-mistral": Kind(
        "LlavaMistralForCausalLM", "clip", "anyres", 2, "LlavaNextForConditionalGeneration", "llava_mistral"
    ),
    "next-qwen": Kind("LlavaQwenForCausalLM", "siglip", "anyres", 2, "LlavaNextForConditionalGeneration", "llava_qwen"),
    "onevision": Kind(
        "LlavaQwenForCausalLM", "siglip", "anyres_max_4", 2, "LlavaOnevisionForConditionalGeneration", "llava"
    ),
}
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]


def write_original(
    folder: Path,
    kind: str,
    *,
    tied: bool = False,
    ending: str = "safetensors",
    with_tower: bool = True,
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> Path:
    """Write a random checkpoint, and its tower beside it (`<folder>-tower`); returns the folder."""
    row = KINDS[kind]
    tower = folder.with_name(f"{folder.name}-tower")
    write_tower(tower, row.tower)
    folder.mkdir(parents=True)
    rows = _write_tokenizer(folder, row)
    config: dict[str, Any] = {
        "architectures": [row.architecture],
        "model_type": row.model_type,
        **{"hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS},
        **{"num_attention_heads": HEADS, "num_key_value_heads": row.kv_heads, "vocab_size": rows},
        **{"max_position_embeddings": 512, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 5000.0},
        **{"bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": tied, "sliding_window": None},
        **{"mm_vision_tower": str(tower), "mm_projector_type": "mlp2x_gelu", "mm_hidden_size": WIDTH},
        **{"mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", "image_aspect_ratio": row.ratio},
        **{"mm_use_im_start_end": False, "mm_use_im_patch_token": False, "use_mm_proj": True},
    }
    if row.ratio != "pad":
        config |= {"image_grid_pinpoints": PINPOINTS, "mm_patch_merge_type": "spatial_unpad"}
    if row.architecture == "LlavaQwenForCausalLM":
        config |= {"use_sliding_window": False}
    (folder / "config.json").write_text(json.dumps(config | settings, indent=2))
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: (torch.randn(shape, generator=generator) * 0.1).to(dtype)
        for name, shape in original_shapes(row, rows, tied=tied, with_tower=with_tower).items()
    }
    save_weights(folder, weights, ending)
    return folder


def save_weights(folder: Path, weights: dict[str, Tensor], ending: str) -> None:
    """Write weights in two shards with an index, as safetensors or as PyTorch's .bin."""
    stem, index = {
        "safetensors": ("model", "model.safetensors.index.json"),
        "bin": ("pytorch_model", "pytorch_model.bin.index.json"),
    }[ending]
    names = list(weights)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    places = {}
    for number, half in enumerate(halves, 1):
        file = f"{stem}-{number:05}-of-00002.{ending}"
        part = {name: weights[name].clone() for name in half}
        if ending == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(half, file)
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def original_shapes(row: Kind, rows: int, *, tied: bool, with_tower: bool) -> dict[str, tuple[int, ...]]:
    """Return shapes by the names of LLaVA's files."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (rows, HIDDEN), "model.norm.weight": (HIDDEN,)}
    kv = HIDDEN // HEADS * row.kv_heads
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for name, out in (("q", HIDDEN), ("k", kv), ("v", kv)):
            shapes[f"{at}self_attn.{name}_proj.weight"] = (out, HIDDEN)
            if "Qwen" in row.architecture:
                shapes[f"{at}self_attn.{name}_proj.bias"] = (out,)
        shapes[f"{at}self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        shapes |= {f"{at}mlp.{name}_proj.weight": (INNER, HIDDEN) for name in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.weight"] = (HIDDEN, INNER)
        shapes |= {f"{at}{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    if row.ratio != "pad":
        shapes["model.image_newline"] = (HIDDEN,)
    if with_tower:
        last = TOWER_LAYERS - (row.tower == "siglip")  # LLaVA's code takes SigLIP's last layer and its head off
        shapes |= {f"model.vision_tower.vision_tower.{n}": s for n, s in tower_shapes(row.tower, last).items()}
    shapes |= {"model.mm_projector.0.weight": (HIDDEN, WIDTH), "model.mm_projector.0.bias": (HIDDEN,)}
    shapes |= {"model.mm_projector.2.weight": (HIDDEN, HIDDEN), "model.mm_projector.2.bias": (HIDDEN,)}
    return shapes if tied else shapes | {"lm_head.weight": (rows, HIDDEN)}


def tower_shapes(kind: str, layers: int = TOWER_LAYERS) -> dict[str, tuple[int, ...]]:
    """Return shapes of a vision tower by the names of its own files."""
    at, places = "vision_model.", (SIDE // PATCH) ** 2 + (kind == "clip")
    shapes: dict[str, tuple[int, ...]] = {
        f"{at}embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        f"{at}embeddings.position_embedding.weight": (places, WIDTH),
    }
    norms = ["post_layernorm"]
    if kind == "clip":
        shapes[f"{at}embeddings.class_embedding"] = (WIDTH,)
        norms.append("pre_layrnorm")
    else:
        shapes[f"{at}embeddings.patch_embedding.bias"] = (WIDTH,)
    for layer in range(layers):
        inner = f"encoder.layers.{layer}."
        norms += [f"{inner}layer_norm1", f"{inner}layer_norm2"]
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{at}{inner}self_attn.{name}.weight"] = (WIDTH, WIDTH)
            shapes[f"{at}{inner}self_attn.{name}.bias"] = (WIDTH,)
        shapes |= {f"{at}{inner}mlp.fc1.weight": (24, WIDTH), f"{at}{inner}mlp.fc1.bias": (24,)}
        shapes |= {f"{at}{inner}mlp.fc2.weight": (WIDTH, 24), f"{at}{inner}mlp.fc2.bias": (WIDTH,)}
    return shapes | {f"{at}{norm}.{part}": (WIDTH,) for norm in norms for part in ("weight", "bias")}


def write_tower(folder: Path, kind: str) -> None:
    """Write a random vision tower as its own repository has it, with what LLaVA does not read."""
    folder.mkdir(parents=True)
    vision = {
        **{"hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": TOWER_LAYERS},
        **{"num_attention_heads": 2, "patch_size": PATCH, "image_size": SIDE},
    }
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "vision_config": vision}))
    generator = torch.Generator().manual_seed(2)
    shapes = tower_shapes(kind) | {"text_model.final_layer_norm.weight": (4,), "logit_scale": (1,)}
    shapes |= {"vision_model.head.probe": (1, 1, WIDTH)} if kind == "siglip" else {"visual_projection.weight": (4, 4)}
    torch.save(
        {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()},
        folder / "pytorch_model.bin",
    )


@cache
def _sentencepiece() -> bytes:
    """A small tokenizer of Llama's kind."""
    import io

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.split(". ") * 20), model_writer=model, vocab_size=360, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def spell(text: str) -> list[int]:
    """Return what SentencePiece itself makes of a text, as LLaVA's slow tokenizer does."""
    return sentencepiece.SentencePieceProcessor(model_proto=_sentencepiece()).encode(text)


def _write_tokenizer(folder: Path, row: Kind) -> int:
    """Write the tokenizer; returns how many rows the vocabulary has."""
    if row.architecture != "LlavaQwenForCausalLM":
        (folder / "tokenizer.model").write_bytes(_sentencepiece())
        settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"legacy": False}))
        return sentencepiece.SentencePieceProcessor(model_proto=_sentencepiece()).vocab_size()
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.train_from_iterator(
        [TEXT] * 5,
        trainers.BpeTrainer(
            vocab_size=330,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|endoftext|>", pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    tokenizer.chat_template = "{{ 'a template of Qwen2 that knows no pictures' }}"
    tokenizer.save_pretrained(folder)
    return len(tokenizer) + 7  # Qwen2's matrices have rows that no token uses


def hugging_face_name(name: str) -> str:
    """Return the name in memory, by replacing parts in turn as transformers' conversion scripts do."""
    for old, new in (
        (r"^model\.vision_tower\.vision_tower\.vision_model\.", "vision_tower."),
        (r"^model\.mm_projector\.0", "multi_modal_projector.linear_1"),
        (r"^model\.mm_projector\.2", "multi_modal_projector.linear_2"),
        (r"^model\.image_newline", "image_newline"),
        (r"^model\.", "language_model."),
    ):
        name, changed = re.subn(old, new, name)
        if changed:
            return f"model.{name}"
    return name
