"""Small LLaVA checkpoints with random weights: the architecture and the processor are the real ones.

Three shapes: `TINY` and `TINY_OCR` are what the embedded checkpoints are built from; `LLAVA15_GEOMETRY` has the token
geometry of LLaVA-1.5 (CLIP 336/14, so 576 image tokens, and Vicuna's template) with small widths,
for tests and benchmarks of everything that depends on lengths.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]

_VICUNA_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. "
)
_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% elif message['role'] == 'assistant' %} ASSISTANT: {{ message['content'][0]['text'] }}{{ '</s>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)

# A coordinate with two decimals is one piece, and so are the separators of a box and a word; of what is
# written in capitals, as on the tiny world's pages, each letter is one.
_PIECES = r"[01]\.\d\d|, | ?\[|\]|USER| ?ASSISTANT| ?[A-Z]?[a-z]+|[A-Z]|\s|[^\sA-Za-z]"


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a small LLaVA.

    Attributes:
        image_size: Side of the square input, in pixels.
        patch_size: Side of one patch, in pixels; there are (image_size / patch_size)^2 image tokens.
        vision_width: Hidden size of the CLIP tower.
        vision_layers: Layers of the CLIP tower.
        vision_feature_layer: Which hidden state feeds the projector (-2 in LLaVA-1.5).
        text_width: Hidden size of the language model; its MLP is four times as wide.
        text_layers: Layers of the language model.
        max_positions: Longest sequence, image tokens included.
        system: Text before the first turn.
    """

    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_feature_layer: int
    text_width: int
    text_layers: int
    max_positions: int
    system: str = ""


TINY = ModelShape(96, 12, 128, 4, -1, 128, 4, 512)
TINY_OCR = ModelShape(144, 12, 128, 4, -1, 128, 4, 512)
LLAVA15_GEOMETRY = ModelShape(336, 14, 64, 2, -2, 128, 2, 4096, _VICUNA_SYSTEM)


def letter_pieces(words: Iterable[str]) -> str:
    """Return the pieces of a tokenizer in which every letter is one, but for `words`, with or without a capital."""
    known = sorted({form for word in words for form in (word, word.capitalize())})
    return rf"[01]\.\d\d|, | ?\[|\]|USER| ?ASSISTANT| ?(?<![A-Za-z])(?:{'|'.join(known)})(?![A-Za-z])|\s|[^\s]"


def coordinate_strings() -> list[str]:
    """Return the 101 coordinates with two decimals, "0.00" to "1.00"."""
    return [f"{step / 100:.2f}" for step in range(101)]


def new_tokenizer(corpus: list[str], pieces: str = _PIECES) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on `corpus` in which every two-decimal coordinate is one token.

    No token crosses the joints of `pieces`, a regular expression. Any text can be encoded (all 256 bytes are in the
    vocabulary). Deterministic.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=2,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    boxes = [f" [{c}, {c}]" for c in coordinate_strings()] * 4
    tokenizer.train_from_iterator([*corpus, *corpus, *boxes], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def new_processor(shape: ModelShape, corpus: list[str], pieces: str = _PIECES) -> LlavaProcessor:
    """Return the LLaVA processor (image processor, tokenizer, chat template) of a small model; see `new_tokenizer`."""
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": shape.image_size},
        crop_size={"height": shape.image_size, "width": shape.image_size},
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=new_tokenizer(corpus, pieces),
        patch_size=shape.patch_size,
        vision_feature_select_strategy="default",
        chat_template=shape.system + _TEMPLATE,
        num_additional_image_tokens=1,
    )


def new_model(shape: ModelShape, processor: LlavaProcessor, *, seed: int = 0) -> LlavaForConditionalGeneration:
    """Return a LLaVA of the given shape with random weights (float32, on the CPU), in eval mode."""
    tokenizer = processor.tokenizer
    vision = CLIPVisionConfig(
        hidden_size=shape.vision_width,
        intermediate_size=shape.vision_width * 4,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=4,
        image_size=shape.image_size,
        patch_size=shape.patch_size,
    )
    text = LlamaConfig(
        hidden_size=shape.text_width,
        intermediate_size=shape.text_width * 4,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=len(tokenizer),
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=shape.vision_feature_layer,
        vision_feature_select_strategy="default",
        image_seq_length=(shape.image_size // shape.patch_size) ** 2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    return model.eval()


def save_checkpoint(directory: Path, model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> Path:
    """Write a checkpoint as the hub's LLaVA checkpoints are written; returns `directory`.

    The keys of a CLIP tower stand below `vision_tower.vision_model` there, which vLLM and older versions of
    transformers ask for. transformers 5.23 leaves that out where a tower was made from nothing, reads both, and keeps
    what it read when it writes again.
    """
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    file = directory / "model.safetensors"
    weights = load_file(file)
    plain, tower = "vision_tower.", "vision_tower.vision_model."
    renamed = {
        key.replace(plain, tower, 1) if key.startswith(plain) and not key.startswith(tower) else key: value
        for key, value in weights.items()
    }
    save_file(renamed, file, metadata={"format": "pt"})
    return directory


def save_random_model(directory: Path, shape: ModelShape, *, seed: int = 0) -> Path:
    """Write a checkpoint with random weights in the Hugging Face layout; returns `directory`."""
    corpus = [
        "Please provide the bounding box coordinate of the region this sentence describes: "
        "the small red circle left of the large blue square",
        shape.system,
        "USER: ASSISTANT:",
    ]
    processor = new_processor(shape, corpus)
    return save_checkpoint(directory, new_model(shape, processor, seed=seed), processor)
