"""Build the embedded checkpoint from nothing: `python -m perpo.tiny.build --out DIR`.

A small LLaVA learns to point in the tiny world by next-token prediction on *loose* boxes (a declared
share of its labels is inflated), helped by three auxiliary losses that are dropped when it is saved:
a dense head that says for each patch what is drawn there, a pointer from the end of the prompt to the
target's patches at a middle layer, and a regression of the box from the last layer. Without them the
next-token loss stays on its plateau for most of an hour on two cores.
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

from perpo.tiny.lessons import DENSE_CLASSES, GRID, PROMPT_TAIL, Lesson, Packer, make_lessons
from perpo.tiny.model import TINY, new_model, new_processor
from perpo.tiny.scenes import SIDE
from perpo.tiny.world import PROMPT, answer_text

POINTER_LAYER = 2


@dataclass
class BuildArguments:
    """Settings of a build; the defaults made the shipped checkpoint."""

    out: str = field(metadata={"help": "folder to write the checkpoint to"})
    steps: int = field(default=1800, metadata={"help": "optimiser steps"})
    scenes: int = field(default=30_000, metadata={"help": "training scenes"})
    batch: int = field(default=48, metadata={"help": "pictures a step"})
    questions: int = field(default=8, metadata={"help": "questions a picture"})
    learning_rate: float = field(default=1.5e-3, metadata={"help": "peak of the cosine"})
    loose: float = field(default=0.6, metadata={"help": "share of the labels that are loose boxes"})
    easy_until: float = field(default=0.15, metadata={"help": "share of the steps that ask by appearance only"})
    seed: int = field(default=0, metadata={"help": "seed of weights and order"})
    processes: int = field(default=2, metadata={"help": "processes that draw the scenes"})
    check_every: int = field(default=200, metadata={"help": "steps between checks on the validation split"})


class Helpers(nn.Module):
    """The auxiliary heads; they exist only while the model is built."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, sum(DENSE_CLASSES))
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

    def pointer_loss(self, asked: torch.Tensor, image_tokens: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Cross entropy of (Q, width) against uniform (Q, 64) over the patches of the target."""
        scores = torch.einsum("qd,qpd->qp", self.query(asked), self.key(image_tokens)).float()
        return F.cross_entropy(scores / math.sqrt(asked.shape[-1]), patches)

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
    """The four losses of a packed batch (see `Packer.batch`)."""
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
    rows, columns = batch["asked"].T
    middle = out.hidden_states[POINTER_LAYER]
    answered = out.last_hidden_state[batch["answer"][:, 0], batch["answer"][:, 1]]
    return {
        "language": F.cross_entropy(model.lm_head(answered).float(), batch["labels"]),
        "pointer": helpers.pointer_loss(middle[rows, columns], middle[rows, first:last], batch["patches"]),
        "box": helpers.box_loss(out.last_hidden_state[rows, columns], batch["box"]),
        "dense": helpers.dense_loss(image_tokens, batch["dense"]),
    }


def weights_at(progress: float) -> dict[str, float]:
    """Weights of the losses when `progress` (0 to 1) of the steps are done: the helpers fade out."""
    return {
        "language": 1.0,
        "pointer": 0.5 * max(0.0, 1 - progress / 0.9),
        "box": 5.0 * max(0.0, 1 - progress / 0.9),
        "dense": 1.0 * max(0.0, 1 - progress / 0.6),
    }


def validate(model: Any, processor: Any, images: int = 120) -> dict[str, float]:
    """Greedy answers on the validation split of the three benchmarks: accuracy at IoU 0.5 and mean IoU."""
    from perpo.boxes import BoxFormat, iou, parse_box
    from perpo.tiny.world import BENCHMARKS, benchmark_rows

    pictures, prompts, truths = [], [], []
    for benchmark in BENCHMARKS:
        for row in benchmark_rows(benchmark, "val", images=images):
            pictures.append(row["image"])
            prompts.append(f"USER: <image>\n{PROMPT.format(expression=row['answer'][0])}{PROMPT_TAIL}")
            x, y, w, h = row["bbox"]
            truths.append(np.array([x, y, x + w, y + h]))
    texts: list[str] = []
    for start in range(0, len(prompts), 60):
        part = slice(start, start + 60)
        inputs = processor(images=pictures[part], text=prompts[part], return_tensors="pt", padding=True)
        made = model.generate(**inputs, max_new_tokens=16, do_sample=False)
        texts += processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    form = BoxFormat(scale="0-1")
    found = [parse_box(text, form, pictures[0].size) for text in texts]
    scores = np.array(
        [0.0 if box is None else float(iou(box, truth)) for box, truth in zip(found, truths, strict=True)]
    )
    unread = sum(box is None for box in found) / len(found)
    return {"accuracy": float((scores >= 0.5).mean()), "mean_iou": float(scores.mean()), "unread": unread}


def corpus(lessons: list[Lesson]) -> list[str]:
    """Texts that the tokenizer is trained on."""
    asked = {text for lesson in lessons[:1000] for _, _, text in lesson.questions}
    boxes = {answer_text(tuple(box * SIDE)) for lesson in lessons[:500] for box in lesson.boxes}
    return [f"USER: \n{PROMPT.format(expression=text)}{PROMPT_TAIL}" for text in sorted(asked)] + sorted(boxes)


def build(args: BuildArguments) -> Path:
    """Draw the lessons, train, save; the log goes to `<out>/build_log.jsonl` as it is made.

    Returns:
        The folder of the checkpoint.
    """
    out, began = Path(args.out), time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    lessons = make_lessons(args.scenes, args.loose, args.processes)
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
            chosen = [lessons[k] for k in rng.integers(len(lessons), size=args.batch)]
            batch = packer.batch(chosen, rng, args.questions, easy=step < args.easy_until * args.steps)
            weights = weights_at(step / args.steps)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                parts = losses(model, helpers, packer, batch)
            total = sum((weights[name] * value for name, value in parts.items()), torch.zeros(()))
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            if (step + 1) % 25 == 0 or step == 0:
                line: dict[str, float] = {"step": step + 1, "seconds": round(time.monotonic() - began, 1)}
                line |= {name: round(float(value.detach()), 4) for name, value in parts.items()}
                if (step + 1) % args.check_every == 0 or step + 1 == args.steps:
                    line |= {name: round(value, 4) for name, value in validate(model, processor).items()}
                    _save(model, processor, out)
                log.write(json.dumps(line) + "\n")
                log.flush()
                print(line, flush=True)
    return out


def _save(model: Any, processor: Any, out: Path) -> None:
    model.save_pretrained(out)
    processor.save_pretrained(out)


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments and build."""
    from perpo.cli.common import parse_arguments

    build(parse_arguments(BuildArguments, argv, prog="python -m perpo.tiny.build", description=__doc__ or ""))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
