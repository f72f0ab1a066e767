"""Build the embedded checkpoint from nothing: `python -m perpo.tiny.build --out DIR`.

A small LLaVA learns by next-token prediction to point in the tiny world on *loose* boxes (a declared
share of its labels is inflated), to say whether an object is there, and to read short pages. Three
auxiliary losses help, and are dropped when it is saved: dense heads that say for each patch what is drawn
or written there, a pointer at a middle layer to the patches that the next token is about, and a regression
of the box from the last layer. Without them the next-token loss on boxes stays on its plateau for most of
an hour on two cores.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from perpo.benchmarks.prompts import GROUNDING, LMMS_EVAL_GROUNDING, OCR, YES_NO
from perpo.common.arguments import parse_arguments
from perpo.common.files import make_folder
from perpo.common.numbers import AboveZero, Count, Seed32, Share, check_numbers
from perpo.common.program import run_program
from perpo.models.families import FAMILIES
from perpo.models.loaded import LoadedModel
from perpo.tiny.lessons import DENSE_CLASSES, GRID, NO_LETTER, PROMPT_TAIL, TOPICS, Lesson, Packer, Topic, make_lessons
from perpo.tiny.model import TINY, new_model, new_processor, save_checkpoint

POINTER_LAYER = 2


@dataclass
class BuildArguments:
    """Settings of a build; the defaults made the shipped checkpoint."""

    out: str = field(metadata={"help": "folder to write the checkpoint to"})
    steps: Count = field(default=2200, metadata={"help": "optimiser steps"})
    scenes: Count = field(default=30_000, metadata={"help": "training scenes"})
    pages: Count = field(default=20_000, metadata={"help": "training pages"})
    box_batch: Count = field(default=40, metadata={"help": "scenes a step that are asked about boxes"})
    yes_no_batch: Count = field(default=8, metadata={"help": "scenes a step that are asked about objects"})
    text_batch: Count = field(default=12, metadata={"help": "pages a step"})
    questions: Count = field(default=8, metadata={"help": "questions a scene"})
    learning_rate: AboveZero = field(default=1.5e-3, metadata={"help": "peak of the cosine"})
    loose: Share = field(default=0.6, metadata={"help": "share of the labels that are loose boxes"})
    easy_until: Share = field(default=0.15, metadata={"help": "share of the steps that ask by appearance only"})
    seed: Seed32 = field(default=0, metadata={"help": "seed of weights and order"})
    processes: Count = field(default=2, metadata={"help": "processes that draw the scenes"})
    check_every: Count = field(default=200, metadata={"help": "steps between checks on the validation split"})


class Helpers(nn.Module):
    """The auxiliary heads; they exist only while the model is built."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, sum(DENSE_CLASSES))
        self.letter = nn.Linear(width, NO_LETTER + 1)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.box = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4))

    def dense_loss(self, image_tokens: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss over (B, 64, width) image tokens against the (B, 64, 10) drawing (exact boxes)."""
        there, colour, kind, size, striped, box = self.dense(image_tokens).float().split(DENSE_CLASSES, dim=-1)
        loss = F.binary_cross_entropy_with_logits(there[..., 0], target[..., 0])
        on = target[..., 0] > 0
        for logits, column in ((colour, 1), (kind, 2), (size, 3)):
            loss = loss + F.cross_entropy(logits[on], target[..., column][on].long())
        loss = loss + F.binary_cross_entropy_with_logits(striped[on][:, 0], target[..., 4][on])
        return loss + 5 * F.l1_loss(box[on].sigmoid(), target[..., 5:9][on])

    def letter_loss(self, image_tokens: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return cross entropy over (B, 64, width) image tokens of pages against the (B, 64) letters."""
        return F.cross_entropy(self.letter(image_tokens).float().flatten(0, 1), target.flatten())

    def pointer_loss(self, pointing: torch.Tensor, image_tokens: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Return cross entropy of (P, width) against uniform (P, 64) over the patches of the target."""
        scores = torch.einsum("qd,qpd->qp", self.query(pointing), self.key(image_tokens)).float()
        return F.cross_entropy(scores / math.sqrt(pointing.shape[-1]), patches)

    def box_loss(self, asked: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
        """L1 between the box read off (Q, width) and the label (Q, 4)."""
        return F.l1_loss(self.box(asked).float().sigmoid(), box)


def initialise(model: Any, processor: Any) -> None:
    """Give the positions of the patches and the numbers of the coordinates a geometry from the start."""
    width = model.config.vision_config.hidden_size
    embeddings = model.model.vision_tower.embeddings
    grid = torch.arange(GRID) / GRID
    rows, columns = torch.meshgrid(grid, grid, indexing="ij")
    half = [_fourier(axis.reshape(-1), width // 2) for axis in (rows, columns)]
    with torch.no_grad():
        embeddings.position_embedding.weight[1:] = 0.3 * torch.cat(half, dim=-1)
        table = model.get_input_embeddings().weight
        ids = processor.tokenizer.convert_tokens_to_ids([f"{step / 100:.2f}" for step in range(101)])
        table[ids] += 0.03 * _fourier(torch.arange(101) / 100, table.shape[1])


def _fourier(values: torch.Tensor, width: int) -> torch.Tensor:
    """(n,) in [0, 1] to (n, width) sines and cosines of growing frequency."""
    frequencies = 2 * math.pi * 2.0 ** torch.linspace(-2, 4, width // 2)
    angles = values[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def losses(model: Any, helpers: Helpers, packer: Packer, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the losses of a packed batch (see `Packer.batch`): a next-token loss for each topic, and the helpers'."""
    inner = model.model
    image_tokens = inner.multi_modal_projector(
        inner.vision_tower(batch["pixel_values"], output_hidden_states=True).hidden_states[-1][:, 1:]
    )
    embedded = model.get_input_embeddings()(batch["input_ids"])
    first, last = packer.image_at, packer.image_at + GRID * GRID
    embedded = torch.cat([embedded[:, :first], image_tokens.to(embedded.dtype), embedded[:, last:]], dim=1)
    out = inner.language_model(
        inputs_embeds=embedded,
        attention_mask=batch["mask"],
        position_ids=batch["position_ids"],
        output_hidden_states=True,
        use_cache=False,
    )
    middle, last_hidden = out.hidden_states[POINTER_LAYER], out.last_hidden_state
    rows, columns = batch["answer"].T
    per_token = F.cross_entropy(model.lm_head(last_hidden[rows, columns]).float(), batch["labels"], reduction="none")
    parts: dict[str, Any] = {topic: per_token[batch["topic"] == number].mean() for number, topic in enumerate(TOPICS)}
    rows, columns = batch["pointing"].T
    parts["pointer"] = helpers.pointer_loss(middle[rows, columns], middle[rows, first:last], batch["patches"])
    rows, columns = batch["asked"].T
    parts["regression"] = helpers.box_loss(last_hidden[rows, columns], batch["box"])
    scenes = len(batch["scene_patches"])
    parts["dense"] = helpers.dense_loss(image_tokens[:scenes], batch["scene_patches"])
    parts["letters"] = helpers.letter_loss(image_tokens[scenes:], batch["page_patches"])
    return parts


def weights_at(progress: float) -> dict[str, float]:
    """Return weights of the losses when `progress` (0 to 1) of the steps are done: the helpers fade out."""
    return {
        "box": 1.0,
        "yes_no": 0.5,
        "text": 0.5,
        "pointer": 0.5 * max(0.0, 1 - progress / 0.9),
        "regression": 5.0 * max(0.0, 1 - progress / 0.9),
        "dense": 1.0 * max(0.0, 1 - progress / 0.6),
        "letters": 0.5 * max(0.0, 1 - progress / 0.6),
    }


def validate(model: Any, processor: Any, images: int = 120) -> dict[str, float]:
    """Greedy answers on the validation splits: boxes (Acc@0.5, mean IoU), objects (F1), pages (edit distance)."""
    from rapidfuzz.distance import Levenshtein

    from perpo.tiny.world.objects import object_rows
    from perpo.tiny.world.pages import page_rows

    scores = validate_boxes(model, processor, images)
    rows = list(object_rows("random", "val", images=images // 2))
    replies = greedy_answers(model, processor, rows, [YES_NO.format(question=row["question"]) for row in rows], 4)
    yes = [text.lower().startswith("yes") for text in replies]
    right = sum(y and row["answer"] == "yes" for y, row in zip(yes, rows, strict=True))
    scores["objects_f1"] = 2 * right / (sum(yes) + len(rows) / 2)
    rows = list(page_rows("val", pages=images // 2))
    read = greedy_answers(model, processor, rows, [OCR] * len(rows), 40)
    distances = [Levenshtein.normalized_distance(text, row["answer"]) for text, row in zip(read, rows, strict=True)]
    return scores | {"edit_distance": float(np.mean(distances))}


def greedy_answers(
    model: Any, processor: Any, rows: list[dict[str, Any]], questions: list[str], longest: int
) -> list[str]:
    """Return greedy answers to one question about each row's image, cut at `longest` tokens."""
    loaded = LoadedModel(model, processor, FAMILIES["llava"], "tiny", "")
    texts: list[str] = []
    for start in range(0, len(rows), 60):
        part = slice(start, start + 60)
        prompts = [f"USER: <image>\n{question}{PROMPT_TAIL}" for question in questions[part]]
        pictures = [row["image"] for row in rows[part]]
        inputs = processor(images=pictures, text=prompts, return_tensors="pt", padding=True)
        made = model.generate(**inputs, max_new_tokens=longest, do_sample=False)
        texts += map(loaded.answer_text, made[:, inputs["input_ids"].shape[1] :].tolist())
    return [text.strip() for text in texts]


def validate_boxes(model: Any, processor: Any, images: int) -> dict[str, float]:
    """Return Acc@0.5 and mean IoU of greedy answers on the validation splits."""
    from perpo.boxes import BoxFormat, iou, parse_box
    from perpo.tiny.world import BENCHMARKS, benchmark_rows

    rows = [row for benchmark in BENCHMARKS for row in benchmark_rows(benchmark, "val", images=images)]
    questions = [GROUNDING.format(expression=row["answer"][0]) for row in rows]
    form = BoxFormat(scale="0-1")
    scores = []
    for row, text in zip(rows, greedy_answers(model, processor, rows, questions, 16), strict=True):
        box = parse_box(text, form, row["image"].size)
        x, y, w, h = row["bbox"]
        scores.append(0.0 if box is None else float(iou(box, np.array([x, y, x + w, y + h]))))
    return {"accuracy": float(np.mean(np.array(scores) >= 0.5)), "mean_iou": float(np.mean(scores))}


def corpus(lessons: list[Lesson]) -> list[str]:
    """Return the texts that the tokenizer is trained on."""
    questions = [question for lesson in lessons[:1000] for question in lesson.questions]
    heads = {
        "box": (GROUNDING.format(expression=""), LMMS_EVAL_GROUNDING.format(expression="")),
        "yes_no": ("Is there",),
    }
    asked = {f"{head.rstrip()}{q.text}" for q in questions for head in heads[q.topic]}
    replies = {q.reply for q in questions}
    texts = [f"USER: \n{text}{PROMPT_TAIL}" for text in sorted(asked)]
    return [*texts, *(f"{OCR}{YES_NO.format(question='')} {reply}" for reply in sorted(replies))]


def build(args: BuildArguments) -> Path:
    """Draw the lessons, train, save; the log goes to `<out>/build_log.jsonl` as it is made.

    Returns:
        The folder of the checkpoint.
    """
    check_numbers(args)
    out, began = Path(args.out), time.monotonic()
    make_folder(out)
    lessons, pages = make_lessons(args.scenes, args.pages, args.loose, args.processes)
    torch.manual_seed(args.seed)
    processor = new_processor(TINY, corpus(lessons))
    model = new_model(TINY, processor, seed=args.seed)
    initialise(model, processor)
    helpers, packer = Helpers(TINY.text_width), Packer(processor)
    rng = np.random.default_rng(args.seed)
    parameters = [*model.parameters(), *helpers.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=args.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
    warm = max(1, args.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda k: min(1.0, (k + 1) / warm) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, k / args.steps)))),
    )
    with (out / "build_log.jsonl").open("w", encoding="utf-8") as log:
        for step in range(args.steps):
            topics: list[Topic] = [*["box"] * args.box_batch, *["yes_no"] * args.yes_no_batch]  # type: ignore[list-item]
            scenes = [(lessons[rng.integers(len(lessons))], topic) for topic in topics]
            chosen = [pages[k] for k in rng.integers(len(pages), size=args.text_batch)]
            batch = packer.batch(scenes, chosen, rng, args.questions, easy=step < args.easy_until * args.steps)
            weights = weights_at(step / args.steps)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                parts = losses(model, helpers, packer, batch)
            total = sum((weights[name] * value for name, value in parts.items()), torch.zeros(()))
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            if (step + 1) % 25 == 0 or step + 1 in (1, args.steps):
                line: dict[str, float] = {"step": step + 1, "seconds": round(time.monotonic() - began, 1)}
                line |= {name: round(float(value.detach()), 4) for name, value in parts.items()}
                if (step + 1) % args.check_every == 0 or step + 1 == args.steps:
                    line |= {name: round(value, 4) for name, value in validate(model, processor).items()}
                    save_checkpoint(out, model, processor)
                log.write(json.dumps(line) + "\n")
                log.flush()
                print(line, flush=True)
    return out


def main(argv: list[str] | None = None) -> int:
    """Return entry point of the program; returns its exit code."""
    return run_program(_main, argv, interrupted="run the same command again: it begins anew")


def _main(argv: list[str]) -> None:
    build(parse_arguments(BuildArguments, argv, prog="python -m perpo.tiny.build", description=__doc__ or ""))


if __name__ == "__main__":
    raise SystemExit(main())
