"""A random checkpoint with the tokens of the paper's OCR models: LLaVA-NeXT with SigLIP and Qwen2, any resolution.

Pictures, tiles and image tokens are those of the real sizes (384 pixels, 27 x 27 patches, grids up to 3 tiles); the
widths are small. The hub has no such checkpoint; its llava-hf/llava-v1.6 family sets the layout.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from perpo.tiny.model import new_tokenizer

TILE, PATCH = 384, 14
SIDE = TILE // PATCH
"""Image tokens along a side of a tile: 27."""

GRID = [[TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE], [3 * TILE, TILE], [TILE, 3 * TILE]]
CONTEXT = 8192
_WIDTH = 32
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_ocr_checkpoint(folder: Path) -> Path:
    """Write it to a folder, and return that."""
    words = PreTrainedTokenizerFast(
        tokenizer_object=new_tokenizer(["OCR this image: the text of a page"] * 2)._tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        additional_special_tokens=["<image>", "<|im_start|>", "<|im_end|>"],
    )
    pictures = LlavaNextImageProcessor(
        size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE}, image_grid_pinpoints=GRID
    )
    processor = LlavaNextProcessor(pictures, words, PATCH, "full", chat_template=CHATML)
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlavaNextConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=_WIDTH, intermediate_size=_WIDTH, image_size=TILE, patch_size=PATCH, **heads
        ),
        text_config=Qwen2Config(
            hidden_size=_WIDTH,
            intermediate_size=_WIDTH,
            num_key_value_heads=1,
            max_position_embeddings=CONTEXT,
            vocab_size=len(words),
            **heads,
        ),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=GRID,
        image_token_index=processor.image_token_id,
        image_seq_length=SIDE**2,
    )
    torch.manual_seed(0)
    model = LlavaNextForConditionalGeneration(config)
    model.generation_config.eos_token_id = words.eos_token_id
    model.generation_config.pad_token_id = words.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def image_tokens(width: int, height: int) -> int:
    """Return how many tokens a picture has, by LLaVA-NeXT's rules (arXiv 2310.03744, and its release notes).

    The grid is the one in which the scaled picture keeps the most pixels, and of these the one that wastes fewest. The
    features of the tiles are put together, and rows or columns of the padding are cut off. Each row ends in a token for
    a new line; the whole picture in one tile comes first.
    """

    def fit(grid: list[int]) -> tuple[int, int]:
        scale = min(grid[1] / width, grid[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - grid[0] * grid[1]

    rows, columns = max(GRID, key=fit)
    down, across = rows // TILE * SIDE, columns // TILE * SIDE
    if width / height > across / down:
        seen = int(round(height * (across / width), 7))
        down -= 2 * ((down - seen) // 2)
    else:
        seen = int(round(width * (down / height), 7))
        across -= 2 * ((across - seen) // 2)
    return SIDE**2 + down * (across + 1)
