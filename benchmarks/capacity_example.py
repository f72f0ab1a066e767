"""A folder to try --estimate on, without a download: LLaVA-1.5 7B's config.json, 50,000 questions, their candidates.

The sizes of the model are those of llava-hf/llava-1.5-7b-hf, and so are a picture's 576 tokens. The tokenizer is a
small one in place of Vicuna's, for which a box with two decimals is fewer tokens; so boxes have six here. There are no
weights. Run: python benchmarks/capacity_example.py FOLDER, then the commands of docs/capacity.md.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from perpo.tiny.model import LLAVA15_GEOMETRY, new_processor

QUESTIONS, CANDIDATES = 50_000, 20
ASKED = "Please provide the bounding box coordinate of the region this sentence describes: "


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True)
    _write_model(folder / "llava-1.5-7b")
    Image.new("RGB", (640, 480)).save(folder / "picture.png")
    draw = random.Random(0)
    with (folder / "questions.jsonl").open("w") as questions, (folder / "pairs.jsonl").open("w") as pairs:
        for number in range(QUESTIONS):
            boxes = [_box(draw) for _ in range(CANDIDATES)]
            row = {"image_path": "picture.png", "question": f"{ASKED}the man on the left {number}", "answer": boxes[0]}
            rewards = [round(place / CANDIDATES, 2) for place in range(CANDIDATES)]
            questions.write(json.dumps(row) + "\n")
            record = row | {"answers_gen": boxes, "rewards": rewards, "reward_name": "iou"}
            pairs.write(json.dumps(record) + "\n")


def _box(draw: random.Random) -> str:
    """A box with six decimals, which the small tokenizer writes in 26 tokens, as Vicuna's writes one with two."""
    left, top = draw.uniform(0, 0.5), draw.uniform(0, 0.5)
    return f"[{left:.6f}, {top:.6f}, {left + 0.3:.6f}, {top + 0.4:.6f}]"


def _write_model(folder: Path) -> None:
    processor = new_processor(LLAVA15_GEOMETRY, [ASKED, LLAVA15_GEOMETRY.system, "USER: ASSISTANT:"])
    tokenizer = processor.tokenizer
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    text = LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        vocab_size=32064,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=image, image_seq_length=576)
    config.architectures = ["LlavaForConditionalGeneration"]
    config.save_pretrained(folder)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    main()
