"""Time and peak memory of one PerPO step on one list, beside other ways to the same gradient.

    ours      PreferenceTrainer's step: image and prompt once, the reference is the same model without its adapter
    repeated  the published code's way: image and prompt once more for every candidate, a second model as the
              reference, logits of every position and a log-softmax over them
    TRL       DPOTrainer's step on every pair of the candidates, timed on a few pairs and multiplied; its loss
              weighs no pairs

Token counts are true; widths are small and weights random, in fp32, with one layer in which the linear parts cost
more than attention, as in a real model. An image of 2,880 tokens is five tiles of 576. All ways run in one process,
by turns, on the same tokens; ours and repeated have to find the same loss. Where others use the machine too, seconds
of CPU tell more than those on the clock. With --attention, ours is measured
with a dense mask in place of the rest. TRL is no dependency: put it on PYTHONPATH.

Run: python benchmarks/train_step.py [--shapes llava15 next ocr5 ocr20]
On a GPU: python benchmarks/train_step.py --size 7b, which measures ours alone, in bfloat16.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import itertools
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from perpo.common.program import quiet_libraries

quiet_libraries()  # before torch is imported: its threads' way of waiting is set then

import torch
from datasets import Dataset
from measure import cost
from peft import LoraConfig
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from perpo.losses import perpo_loss
from perpo.models.attention import attention_of, set_attention
from perpo.models.families import FAMILIES
from perpo.models.loaded import LoadedModel
from perpo.models.lora import add_lora
from perpo.models.prefix import base_model, pack
from perpo.tiny.model import LLAVA15_GEOMETRY, new_processor
from perpo.train.arguments import TrainArguments
from perpo.train.lists import ListDataset
from perpo.train.optimizing import training_arguments
from perpo.train.policy import Policy, switch_dropout_off
from perpo.train.trainer import PreferenceTrainer

PAD = 3
TILE = 576  # image tokens of 336 x 336 pixels


class ListSize(NamedTuple):
    """Token counts of a list; `pairs` are those that TRL is timed on."""

    tiles: int
    prompt: int
    candidates: int
    answer: int
    pairs: int

    @property
    def prefix(self) -> int:
        return self.tiles * TILE + self.prompt


SHAPES = {
    "llava15": ListSize(1, 60, 20, 20, 10),
    "next": ListSize(5, 60, 20, 20, 4),
    "ocr5": ListSize(5, 60, 5, 1000, 2),
    "ocr20": ListSize(5, 60, 20, 1000, 2),
}


class Size(NamedTuple):
    """Sizes of a model: width, layers, width of the MLP, heads and words; width, layers and heads of its vision."""

    width: int
    layers: int
    mlp: int
    heads: int
    words: int
    vision_width: int
    vision_layers: int
    vision_heads: int


SIZES = {
    "small": Size(1024, 1, 2752, 8, 512, 128, 2, 4),
    "7b": Size(4096, 32, 11008, 32, 32064, 1024, 24, 16),  # LLaVA-1.5-7B
}
# Dense bfloat16 multiplications and additions per second by NVIDIA's data sheets.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}


def main() -> None:
    """Print a line for each way and shape, and the ratios to ours."""
    args = _arguments()
    if args.size == "7b":
        _measure_on_gpu(args)
        return
    print(f"{torch.get_num_threads()} threads, width {SIZES['small'].width}, fp32, seconds and MiB of one step")
    for name in args.shapes:
        _report(name, SHAPES[name], _ways(SHAPES[name], args.attention), args.repeats)
    if importlib.util.find_spec("trl") is None and not args.attention:
        print("trl is not installed: left out")


def _ways(shape: ListSize, attention: bool) -> dict[str, Callable[[], float]]:
    """Steps to compare, each of which returns its loss."""
    loaded = _load(SIZES["small"])
    reference = copy.deepcopy(loaded.model)
    tokens = _tokens(loaded, shape)
    trl = {}
    if importlib.util.find_spec("trl") is not None and not attention:
        trl = {"TRL": _trl_step(loaded, tokens, shape)}  # on a copy of the model, which gets its adapter below
    trainer = _trainer(loaded)
    batch = _batch(tokens, "cpu")
    ours = {"ours": partial(_step, trainer, batch)}
    if attention:
        return ours | {"dense": partial(_with_dense_mask, trainer, batch)}
    return ours | {"repeated": partial(_repeated_step, trainer, reference, tokens)} | trl


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--repeats", type=int, default=1, help="times that each way is run, by turns; the best counts")
    parser.add_argument("--attention", action="store_true", help="compare attention with that of a dense mask")
    parser.add_argument("--gradient_checkpointing", action="store_true", help="with --size 7b")
    return parser.parse_args()


def _load(size: Size, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LoadedModel:
    processor = new_processor(LLAVA15_GEOMETRY, ["USER: ASSISTANT:"])
    vision = CLIPVisionConfig(
        hidden_size=size.vision_width,
        intermediate_size=4 * size.vision_width,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.vision_heads,
        image_size=336,
        patch_size=14,
    )
    text = LlamaConfig(
        hidden_size=size.width,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        vocab_size=max(size.words, len(processor.tokenizer)),
        max_position_embeddings=4096,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=processor.image_token_id, image_seq_length=TILE
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = LlavaForConditionalGeneration(config)
    return LoadedModel(model.to(dtype), processor, FAMILIES["llava"], "random", "")


class Tokens(NamedTuple):
    """One list: prefix, candidates, pixels of its tiles, rewards."""

    prefix: list[int]
    answers: list[list[int]]
    pixels: Tensor
    rewards: Tensor


def _tokens(loaded: LoadedModel, shape: ListSize) -> Tokens:
    generator = torch.Generator().manual_seed(0)

    def text(length: int) -> list[int]:
        return torch.randint(10, 300, (length,), generator=generator).tolist()

    prefix = [loaded.processor.image_token_id] * (shape.tiles * TILE) + text(shape.prompt)
    answers = [text(shape.answer) for _ in range(shape.candidates)]
    pixels = torch.randn(shape.tiles, 3, 336, 336, generator=generator)
    return Tokens(prefix, answers, pixels, torch.linspace(0, 1, shape.candidates)[None])


def _batch(tokens: Tokens, device: str) -> dict[str, Any]:
    return {
        "numbers": [1],
        "packed": {name: part.to(device) for name, part in pack([tokens.prefix], [tokens.answers], PAD).items()},
        "images": [{"pixel_values": tokens.pixels.to(device)}],
        "rewards": tokens.rewards.to(device),
        "mask": torch.ones_like(tokens.rewards, dtype=torch.bool, device=device),
        "token_counts": torch.tensor([[float(len(ids)) for ids in tokens.answers]], device=device),
    }


def _trainer(loaded: LoadedModel, **options: Any) -> PreferenceTrainer:
    args = TrainArguments(data="", output_dir=tempfile.mkdtemp(), lora_r=16, lora_alpha=32, **options)
    model = add_lora(loaded, r=args.lora_r, alpha=args.lora_alpha, dropout=0.0, train_projector=True)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, which would make the reference the policy
            torch.nn.init.normal_(parameter, std=0.02)
    policy = Policy(loaded, model, trains_projector=True)
    policy.set_trainable()
    switch_dropout_off(model)
    set_attention(base_model(model))
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    trainer = PreferenceTrainer(args, training_arguments(args), policy, ListDataset([], loaded), [])
    trainer.accelerator.prepare(trainer.model)  # as training does it, for the precision
    return trainer


def _step(trainer: PreferenceTrainer, batch: dict[str, Any]) -> float:
    trainer.model.zero_grad()
    return float(trainer.training_step(trainer.model, batch, torch.tensor(1.0)))


def _with_dense_mask(trainer: PreferenceTrainer, batch: dict[str, Any]) -> float:
    base = base_model(trainer.model)
    base.set_attn_implementation("sdpa")
    try:
        return _step(trainer, batch)
    finally:
        set_attention(base)


def _repeated_step(trainer: PreferenceTrainer, reference: Any, tokens: Tokens) -> float:
    trainer.model.zero_grad()
    trainer.model.train()
    with torch.no_grad():
        before = _all_logps(reference, tokens)
    loss = perpo_loss(_all_logps(trainer.model, tokens), before, tokens.rewards).sum()
    loss.backward()
    return float(loss)


def _all_logps(model: Any, tokens: Tokens) -> Tensor:
    ids = torch.tensor([[*tokens.prefix, *answer] for answer in tokens.answers])
    pixels = tokens.pixels.repeat(len(ids), 1, 1, 1)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, use_cache=False).logits
    words = logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
    return words[:, len(tokens.prefix) - 1 :].sum(1)[None]


def _trl_step(loaded: LoadedModel, tokens: Tokens, shape: ListSize) -> Callable[[], float]:
    """DPOTrainer's step on the first pairs, given the tensors that its own collator would make."""
    from trl import DPOConfig, DPOTrainer

    lora = LoraConfig(r=16, lora_alpha=32, target_modules=loaded.family.lora_targets)
    settings = DPOConfig(output_dir=tempfile.mkdtemp(), use_cpu=True, report_to="none", bf16=False, max_length=None)
    row = {"images": [Image.new("RGB", (8, 8))], "prompt": "<image>", "chosen": "a", "rejected": "b"}
    trainer = DPOTrainer(
        copy.deepcopy(loaded.model),
        args=settings,
        train_dataset=Dataset.from_list([row]),
        processing_class=loaded.processor,
        peft_config=lora,
    )
    trainer.current_gradient_accumulation_steps = 1  # which training sets
    pairs = list(itertools.combinations(tokens.answers, 2))[: shape.pairs]
    answers = [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]
    ids = torch.tensor([[*tokens.prefix, *answer] for answer in answers])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "completion_mask": (torch.arange(ids.shape[1]) >= len(tokens.prefix)).long().expand_as(ids),
        "pixel_values": tokens.pixels.repeat(len(ids), 1, 1, 1),
    }

    def step() -> float:
        trainer.model.zero_grad()
        return float(trainer.training_step(trainer.model, dict(inputs), torch.tensor(1)))

    return step


def _report(name: str, shape: ListSize, ways: dict[str, Callable[[], float]], repeats: int) -> None:
    runs: dict[str, list[StepCost]] = {way: [] for way in ways}
    ways["ours"]()  # the first call also loads kernels
    for _ in range(repeats):
        for way, step in ways.items():
            runs[way].append(_run(step))
    pairs = shape.candidates * (shape.candidates - 1) // 2
    print(f"{name}: {shape.prefix} + {shape.candidates} x {shape.answer} tokens")
    ours = _best(runs["ours"])
    for way, each in runs.items():
        its_best = _best(each)
        if way != "TRL" and abs(its_best.loss - ours.loss) > 1e-3:
            raise SystemExit(f"the losses differ: {way} {its_best.loss}, ours {ours.loss}")
        times = pairs / shape.pairs if way == "TRL" else 1.0
        wall, cpu = its_best.seconds * times, its_best.cpu_seconds * times
        print(f"{way:<10}{wall:9.2f} s {wall / ours.seconds:7.1f} x", end="")
        print(f"{cpu:9.2f} s of CPU {cpu / ours.cpu_seconds:7.1f} x", end="")
        print(f"{its_best.peak_mib:8.0f} MiB {its_best.peak_mib / ours.peak_mib:6.1f} x", end="")
        print(f"  ({shape.pairs} of {pairs} pairs took {its_best.seconds:.2f} s)" if way == "TRL" else "", flush=True)


class StepCost(NamedTuple):
    """Seconds on the clock and of all processors together, most memory in MiB, and the loss of one step."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    loss: float


def _run(step: Callable[[], float]) -> StepCost:
    losses: list[float] = []
    before = time.process_time()
    seconds, peak = cost(lambda: losses.append(step()))
    return StepCost(seconds, time.process_time() - before, peak, losses[0])


def _best(runs: list[StepCost]) -> StepCost:
    """The shortest times and the highest peak."""
    seconds, cpu_seconds, peak, losses = zip(*runs, strict=True)
    return StepCost(min(seconds), min(cpu_seconds), max(peak), losses[0])


def _measure_on_gpu(args: argparse.Namespace) -> None:
    """Our step at full size; policy and reference forward, and backward without gradients of frozen weights."""
    if not torch.cuda.is_available():
        raise SystemExit("--size 7b needs a GPU: not run")
    device = torch.cuda.get_device_name()
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in device), None)
    loaded = _load(SIZES["7b"], "cuda", torch.bfloat16)
    trainer = _trainer(loaded, bf16=True, gradient_checkpointing=args.gradient_checkpointing)
    weights = sum(p.numel() for p in loaded.model.model.language_model.parameters())
    print(
        f"{device}, bfloat16, {weights / 1e9:.2f} B text weights, {attention_of(base_model(trainer.model))} attention"
    )
    for name in args.shapes:
        shape = SHAPES[name]
        batch = _batch(_tokens(loaded, shape), "cuda")
        for _ in range(2):  # compiles for these lengths
            _step(trainer, batch)
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(args.repeats):
            _step(trainer, batch)
        torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / args.repeats
        tokens = shape.prefix + shape.candidates * shape.answer
        used = 2 * weights * tokens * 3 / seconds  # two forward passes, one backward
        share = "unknown" if peak is None else f"{used / peak:.1%}"
        gib = torch.cuda.max_memory_allocated() / 2**30
        print(f"{name:<10}{seconds:8.3f} s {tokens / seconds:9.0f} tokens/s  MFU {share:>7}  peak {gib:6.1f} GiB")


if __name__ == "__main__":
    main()
