"""Time and peak memory of N candidates from one prefill, beside generate(num_return_sequences=N).

Both sample the same number of tokens from the same model (LLaVA-1.5's token geometry, small widths,
random weights) in one process. Run: python benchmarks/prefill_once.py
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from perpo.common.program import quiet_libraries

quiet_libraries()  # before torch is imported: its threads' way of waiting is set then

import torch
from measure import Cost, cost
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from perpo.engines.decoding import question_uniforms, sample_candidates
from perpo.tiny.model import LLAVA15_GEOMETRY, save_random_model

QUESTION = (
    "Please provide the bounding box coordinate of the region this sentence describes: "
    "the small red circle left of the large blue square"
)


def main() -> None:
    """Print one line for each way, best of `--repeats`, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=20, help="tokens of every answer")
    parser.add_argument("--width", type=int, default=256, help="hidden size of the language model")
    parser.add_argument("--layers", type=int, default=4, help="layers of the language model")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as directory:
        shape = replace(LLAVA15_GEOMETRY, text_width=args.width, text_layers=args.layers)
        save_random_model(Path(directory), shape)
        model = AutoModelForImageTextToText.from_pretrained(directory).eval()
        processor = AutoProcessor.from_pretrained(directory)
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=[Image.new("RGB", (640, 480), "teal")], text=[prompt], return_tensors="pt")
    uniforms = torch.from_numpy(question_uniforms(0, 0, args.candidates, args.tokens))[None]

    def prefill_once() -> None:
        sample_candidates(model, inputs, uniforms, temperature=1.0, top_p=1.0, end_ids=())

    def generate() -> None:
        model.generate(
            **inputs,
            do_sample=True,
            num_return_sequences=args.candidates,
            min_new_tokens=args.tokens,
            max_new_tokens=args.tokens,
        )

    print(
        f"{inputs['input_ids'].shape[1]} prompt and image tokens, {args.candidates} candidates of "
        f"{args.tokens} tokens, {torch.get_num_threads()} threads"
    )
    prefill_once()  # Warm-up: the first call also loads kernels.
    ours = _report("one prefill", [cost(prefill_once) for _ in range(args.repeats)])
    theirs = _report("generate()", [cost(generate) for _ in range(args.repeats)])
    print(f"{'ratio':<12} {theirs.seconds / ours.seconds:8.1f} x {theirs.peak_mib / ours.peak_mib:10.1f} x")


def _report(label: str, costs: list[Cost]) -> Cost:
    best = Cost(min(c.seconds for c in costs), max(c.peak_mib for c in costs))
    print(f"{label:<12} {best.seconds:8.3f} s {best.peak_mib:8.0f} MiB")
    return best


if __name__ == "__main__":
    main()
