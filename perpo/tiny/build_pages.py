"""Build the embedded OCR checkpoint: `python -m perpo.tiny.build_pages --out DIR`.

It starts from the other embedded checkpoint, enlarged to 144 x 144 pixels, and learns to read dense pages in periods:
the vision tower alone learns letters; then the whole model learns to read plain pages, then pages of all kinds, from
the sloppy annotator's transcripts. Boxes and objects of scenes are taught beside it. What helps it learn: heads that
say what each patch holds, and a loss on two of the model's own attention heads, which are told to look where the
next token stands. The heads are not in the saved model.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoProcessor, LlavaForConditionalGeneration
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from perpo.benchmarks.prompts import OCR
from perpo.common.arguments import parse_arguments
from perpo.common.files import make_folder
from perpo.common.numbers import AboveZero, Count, Seed32, check_numbers
from perpo.common.program import run_program
from perpo.models.checkpoints import checkpoint_dir
from perpo.tiny.build import POINTER_LAYER, Helpers, corpus, greedy_answers, validate_boxes
from perpo.tiny.lessons import TOPICS, make_lessons
from perpo.tiny.model import TINY_OCR, letter_pieces, new_model, new_processor, save_checkpoint
from perpo.tiny.page_lessons import LOOSE, NOTHING, PAGE_GRID, PageBatches, Period
from perpo.tiny.world.dense import COLUMNS, ROWS, SLOPPY, SPOKEN
from perpo.tiny.world.dense_rows import dense_rows

PERIODS = (
    Period("letters", 260, 1.5e-3, pages=12, boxes=2, yes_no=0, tower_only=True),
    Period("pages", 700, 1.2e-3, pages=8, boxes=1, yes_no=1, sloppy=SLOPPY),
    Period("more pages", 700, 1.2e-3, pages=8, boxes=1, yes_no=1, sloppy=SLOPPY, cells=True),
    Period("pages of all kinds", 900, 1.2e-3, pages=8, boxes=1, yes_no=1, sloppy=SLOPPY, cells=True, plain=False),
    Period("all kinds again", 500, 1.0e-3, pages=8, boxes=1, yes_no=1, sloppy=SLOPPY, cells=True, plain=False),
)
PROCESSES = 2
"""Each learns from its own half of a batch, with one thread: on a busy machine, threads mostly wait for each other."""

POINTING_HEADS = 2
"""Attention heads of layer `POINTER_LAYER` that are told where to look."""

WEIGHTS = {
    "box": 0.5, "yes_no": 0.25, "text": 1.0,
    "pointer": 1.0, "cells": 0.5, "regression": 2.0, "dense": 0.3, "letters": 1.0,
}  # fmt: skip
"""How much each loss counts; those of the second line are the helpers'."""

_LETTER_TOKENS = 240


@dataclass
class PagesBuildArguments:
    """Settings of a build; the defaults made the shipped checkpoint."""

    out: str = field(metadata={"help": "folder to write the checkpoint to"})
    pace: AboveZero = field(default=1.0, metadata={"help": "multiplies the steps of every period"})
    seed: Seed32 = field(default=0, metadata={"help": "seed of new weights and of what is drawn"})
    after: str | None = field(default=None, metadata={"help": "go on behind this period, kept beside --out"})
    check_every: Count = field(default=350, metadata={"help": "steps between checks on the validation split"})


class PageHelpers(Helpers):
    """The auxiliary heads; they exist only while the model is built."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.halves = nn.Linear(width, 2 * (NOTHING + 1))
        self.cell = nn.Linear(width, ROWS + COLUMNS)

    def letter_loss(self, image_tokens: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return cross entropy over (B, 144, width) image tokens against the (B, 144, 2) letters of the halves."""
        logits = self.halves(image_tokens).float().unflatten(-1, (2, NOTHING + 1))
        weights = torch.ones(NOTHING + 1)
        weights[NOTHING] = 0.1  # most halves are empty
        return F.cross_entropy(logits.flatten(0, 2), target.flatten(), weights)

    def cell_loss(self, pointing: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Return cross entropy of (C, width) against the (C, 2) rows and columns where the next tokens stand."""
        row, column = self.cell(pointing).float().split((ROWS, COLUMNS), dim=-1)
        return F.cross_entropy(row, cells[:, 0]) + F.cross_entropy(column, cells[:, 1])


def enlarge(model: Any, processor: Any) -> None:
    """Give a new `TINY_OCR` model the weights of the other embedded checkpoint, for the positions and tokens it has."""
    directory = checkpoint_dir()
    old: Any = LlavaForConditionalGeneration.from_pretrained(directory)
    known = AutoProcessor.from_pretrained(directory).tokenizer.get_vocab()
    weights, mine = old.state_dict(), model.state_dict()
    with torch.no_grad():
        for name, value in mine.items():
            if name in weights and weights[name].shape == value.shape:
                value.copy_(weights[name])
        positions = old.model.vision_tower.embeddings.position_embedding.weight
        side = math.isqrt(len(positions) - 1)
        grid = positions[1:].T.reshape(1, -1, side, side)
        grid = F.interpolate(grid, (PAGE_GRID, PAGE_GRID), mode="bilinear", align_corners=False)
        new = model.model.vision_tower.embeddings.position_embedding.weight
        new.copy_(torch.cat([positions[:1], grid[0].flatten(1).T]))
        table, theirs = model.get_input_embeddings().weight, old.get_input_embeddings().weight
        for token, row in processor.tokenizer.get_vocab().items():
            if token in known:
                table[row] = theirs[known[token]]


def page_losses(
    model: Any, helpers: PageHelpers, image_at: int, batch: dict[str, Any], tower_only: bool
) -> dict[str, torch.Tensor]:
    """Return the losses of a batch of `PageBatches`: a next-token loss for each topic, and the helpers'."""
    inner, scenes = model.model, len(batch["scene_patches"])
    seen = inner.vision_tower(batch["pixel_values"], output_hidden_states=True).hidden_states[-1][:, 1:]
    image_tokens = inner.multi_modal_projector(seen)
    parts: dict[str, Any] = {
        "dense": helpers.dense_loss(image_tokens[:scenes], batch["scene_patches"]),
        "letters": helpers.letter_loss(image_tokens[scenes:], batch["page_patches"]),
    }
    if tower_only:
        return parts
    embedded = model.get_input_embeddings()(batch["input_ids"])
    last = image_at + PAGE_GRID**2
    embedded = torch.cat([embedded[:, :image_at], image_tokens.to(embedded.dtype), embedded[:, last:]], dim=1)
    out = inner.language_model(
        inputs_embeds=embedded,
        attention_mask=batch["mask"],
        position_ids=batch["position_ids"],
        output_hidden_states=True,
        use_cache=False,
    )
    rows, columns = batch["answer"].T
    logits = model.lm_head(out.last_hidden_state[rows, columns]).float()
    per_token = F.cross_entropy(logits, batch["labels"], reduction="none")
    parts |= {topic: per_token[batch["topic"] == number].mean() for number, topic in enumerate(TOPICS)}
    middle = out.hidden_states[POINTER_LAYER]
    parts["pointer"] = attention_loss(inner.language_model, middle, batch, image_at)
    rows, columns = batch["pointing"][-len(batch["cells"]) :].T
    parts["cells"] = helpers.cell_loss(middle[rows, columns], batch["cells"])
    rows, columns = batch["asked"].T
    parts["regression"] = helpers.box_loss(out.last_hidden_state[rows, columns], batch["box"])
    return parts


def attention_loss(language_model: Any, hidden: torch.Tensor, batch: dict[str, Any], image_at: int) -> torch.Tensor:
    """Return cross entropy of the attention of `POINTER_LAYER`'s first heads against the places of the next tokens.

    Args:
        language_model: The Llama model.
        hidden: (B, L, width) what goes into that layer.
        batch: Of `Packer.batch`: position_ids, mask, pointing, patches.
        image_at: Column of the first image token.
    """
    layer = language_model.layers[POINTER_LAYER]
    attention, normed = layer.self_attn, layer.input_layernorm(hidden)
    heads = [
        project(normed).unflatten(-1, (-1, attention.head_dim))[:, :, :POINTING_HEADS].transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj)
    ]
    query, key = apply_rotary_pos_emb(*heads, *language_model.rotary_emb(normed, batch["position_ids"]))
    rows, columns = batch["pointing"].T
    scores = (query @ key.transpose(-1, -2) * attention.scaling).transpose(1, 2)[rows, columns].float()
    scores = scores + batch["mask"][rows, 0, columns][:, None]
    looked = scores.log_softmax(-1)[..., image_at : image_at + PAGE_GRID**2]
    return -(batch["patches"][:, None] * looked).sum(-1).mean()


def validate_pages(model: Any, processor: Any, pages: int = 60, images: int = 15) -> dict[str, float]:
    """Greedy answers on the validation splits: boxes (Acc@0.5, mean IoU), objects (accuracy), pages (edit distance)."""
    from rapidfuzz.distance import Levenshtein

    from perpo.benchmarks.prompts import YES_NO
    from perpo.tiny.world.objects import object_rows

    scores = validate_boxes(model, processor, images)
    rows = list(object_rows("random", "val", images=images))
    said = greedy_answers(model, processor, rows, [YES_NO.format(question=row["question"]) for row in rows], 4)
    right = [text.lower() == row["answer"] for text, row in zip(said, rows, strict=True)]
    rows = list(dense_rows("val", pages=pages))
    read = greedy_answers(model, processor, rows, [OCR] * len(rows), _LETTER_TOKENS)
    distances = [Levenshtein.normalized_distance(text, row["answer"]) for text, row in zip(read, rows, strict=True)]
    return scores | {"objects": float(np.mean(right)), "edit_distance": float(np.mean(distances))}


def build_pages(args: PagesBuildArguments) -> Path:
    """Teach the periods one after the other and save; the log goes to `<out>/build_log.jsonl` as it is made.

    Returns:
        The folder of the checkpoint.
    """
    check_numbers(args)
    make_folder(Path(args.out))
    if args.after is None:
        (Path(args.out) / "build_log.jsonl").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as meeting:
        torch.multiprocessing.spawn(_build, (args, f"file://{meeting}/place"), nprocs=PROCESSES)
    return Path(args.out)


def _build(rank: int, args: PagesBuildArguments, meeting: str) -> None:
    """What each process does; the first one writes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=PROCESSES)
    out = Path(args.out)
    torch.manual_seed(args.seed)
    lessons, _ = make_lessons(1000, 0, LOOSE, 2)
    processor = new_processor(TINY_OCR, [*corpus(lessons), OCR], letter_pieces(SPOKEN))
    model = new_model(TINY_OCR, processor, seed=args.seed)
    model.set_attn_implementation("eager")  # a tenth faster here than PyTorch's own
    enlarge(model, processor)
    helpers = PageHelpers(TINY_OCR.text_width)
    first = 0
    if args.after is not None:
        first = [period.name for period in PERIODS].index(args.after) + 1
        kept = torch.load(_kept(out, args.after), weights_only=True)
        model.load_state_dict(kept["model"])
        helpers.load_state_dict(kept["helpers"])
    for number, period in enumerate(PERIODS[first:], start=first):
        paced = replace(period, steps=max(2, round(period.steps * args.pace)))
        for line in teach(model, helpers, processor, paced, (args.seed, number, rank)):
            at_end = line["step"] == paced.steps
            if rank == 0:
                if not period.tower_only and (line["step"] % args.check_every == 0 or at_end):
                    line |= {name: round(value, 4) for name, value in validate_pages(model, processor).items()}
                    save_checkpoint(out, model, processor)
                with (out / "build_log.jsonl").open("a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
                print(line, flush=True)
        if rank == 0:
            torch.save({"model": model.state_dict(), "helpers": helpers.state_dict()}, _kept(out, period.name))


def _kept(out: Path, period: str) -> Path:
    return out.with_name(f"{out.name}-after-{period.replace(' ', '-')}.pt")


def teach(
    model: Any, helpers: PageHelpers, processor: Any, period: Period, seed: tuple[int, int, int]
) -> Iterator[dict[str, Any]]:
    """Teach one period, each process on its own batches; yields a line of the log now and then."""
    began, batches = time.monotonic(), PageBatches(processor, period, seed)
    parameters = [*model.parameters(), *helpers.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=period.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
    warm = max(1, period.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda k: min(1.0, (k + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, k / period.steps)))),
    )
    for step in range(1, period.steps + 1):
        batch = batches[step - 1]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            parts = page_losses(model, helpers, batches.packer.image_at, batch, period.tower_only)
        if not period.cells:
            parts.pop("cells", None)
        total = sum((WEIGHTS[name] * value for name, value in parts.items()), torch.zeros(()))
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        _share_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 25 == 0 or step in (1, period.steps):
            line: dict[str, Any] = {"period": period.name, "step": step, "seconds": round(time.monotonic() - began, 1)}
            yield line | {name: round(float(value.detach()), 4) for name, value in parts.items()}


def _share_gradients(parameters: list[nn.Parameter]) -> None:
    """Give every process the mean of the processes' gradients, in one message."""
    learnt = [value for value in parameters if value.grad is not None]
    flat = torch.cat([value.grad.flatten() for value in learnt if value.grad is not None])
    torch.distributed.all_reduce(flat)
    for value, part in zip(learnt, (flat / PROCESSES).split([value.numel() for value in learnt]), strict=True):
        value.grad = part.view_as(value)


def main(argv: list[str] | None = None) -> int:
    """Return entry point of the program; returns its exit code."""
    return run_program(_main, argv, interrupted="run the same command again: it begins anew")


def _main(argv: list[str]) -> None:
    build_pages(
        parse_arguments(PagesBuildArguments, argv, prog="python -m perpo.tiny.build_pages", description=__doc__ or "")
    )


if __name__ == "__main__":
    raise SystemExit(main())
