"""What the embedded checkpoint is taught from: scenes with tokenised questions, packed by picture.

All questions of a picture share its image tokens and the words that every prompt begins with; each
question and its answer is a segment that sees that prefix and itself, with positions that restart
after the prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from perpo.prefix import attention_mask
from perpo.tiny.expressions import FLAVOURS, expressions
from perpo.tiny.scenes import COLOURS, KINDS, SIDE, draw, make_scene, scene_rng
from perpo.tiny.world import PROMPT, answer_text, loose_box

PATCH = 12
GRID = SIDE // PATCH
QUESTIONS_PER_SCENE = 24
PROMPT_TAIL = " ASSISTANT:"
DENSE_CLASSES = (1, len(COLOURS), len(KINDS), 2, 1, 4)
"""Outputs of the dense head per patch: object?, colour, kind, size, striped?, box."""


@dataclass
class Lesson:
    """One scene: pixels (96, 96, 3) uint8; questions as (flavour, shape, text); label boxes; dense targets."""

    pixels: np.ndarray
    questions: list[tuple[int, int, str]]
    boxes: np.ndarray
    dense: np.ndarray


def make_lesson(index: int, loose: float) -> Lesson:
    """Scene `index` of the train split with up to `QUESTIONS_PER_SCENE` questions, boxes in shares of the side."""
    scene = make_scene("train", index)
    rng = scene_rng("train", index, 4)
    asked = [
        (flavour, number, text)
        for number, shape in enumerate(scene.shapes)
        for flavour, name in enumerate(FLAVOURS)
        for text in _some(expressions(scene, shape, name), rng, 3)
    ]
    asked = [asked[k] for k in rng.permutation(len(asked))[:QUESTIONS_PER_SCENE]]
    boxes = np.array([loose_box(scene, number, loose) for number in range(len(scene.shapes))], dtype=np.float32)
    dense = np.full((GRID * GRID, 10), -1, dtype=np.float32)
    dense[:, 0] = 0
    y, x = np.divmod(np.arange(GRID * GRID), GRID)
    for number, shape in enumerate(scene.shapes):
        x1, y1, x2, y2 = (value / PATCH for value in shape.box)
        covered = np.clip(np.minimum(x + 1, x2) - np.maximum(x, x1), 0, 1) * np.clip(
            np.minimum(y + 1, y2) - np.maximum(y, y1), 0, 1
        )
        mine = (covered > 0.25) | ((x == int(shape.centre[0] // PATCH)) & (y == int(shape.centre[1] // PATCH)))
        labels = (list(COLOURS).index(shape.colour), KINDS.index(shape.kind), int(shape.size == "large"), shape.striped)
        dense[mine] = (1, *labels, *(value / SIDE for value in shape.box), number)
    return Lesson(np.asarray(draw(scene)), asked, boxes / SIDE, dense)


def _some(texts: list[str], rng: np.random.Generator, most: int) -> list[str]:
    return [texts[k] for k in rng.permutation(len(texts))[:most]]


def make_lessons(count: int, loose: float, processes: int) -> list[Lesson]:
    """The first `count` lessons, made by several processes."""
    with get_context("spawn").Pool(processes) as pool:
        return pool.starmap(make_lesson, ((index, loose) for index in range(count)), chunksize=200)


class Packer:
    """Packs lessons into batches for one tokenizer (its pieces never cross the joints used here)."""

    def __init__(self, processor: Any) -> None:
        tokenizer = processor.tokenizer
        image = "<image>" * (GRID * GRID)
        head = PROMPT.format(expression="").rstrip()
        self.prefix: list[int] = tokenizer.encode(f"USER: {image}\n{head}", add_special_tokens=False)
        self.image_at = self.prefix.index(tokenizer.convert_tokens_to_ids("<image>"))
        self.tail: list[int] = tokenizer.encode(PROMPT_TAIL, add_special_tokens=False)
        self.pad: int = tokenizer.pad_token_id
        self._encode, self._eos = tokenizer.encode, tokenizer.eos_token_id
        self._cache: dict[str, list[int]] = {}
        image_processor = processor.image_processor
        self.mean = torch.tensor(image_processor.image_mean).view(1, 3, 1, 1)
        self.std = torch.tensor(image_processor.image_std).view(1, 3, 1, 1)

    def ids(self, text: str) -> list[int]:
        """Token ids of a piece of text, remembered."""
        if text not in self._cache:
            self._cache[text] = self._encode(text, add_special_tokens=False)
        return self._cache[text]

    def pixels(self, lessons: list[Lesson]) -> torch.Tensor:
        """Normalised pixel values (B, 3, 96, 96), as the image processor makes them (no resize is needed)."""
        stacked = torch.from_numpy(np.stack([lesson.pixels for lesson in lessons])).permute(0, 3, 1, 2)
        return (stacked.float() / 255 - self.mean) / self.std

    def batch(self, lessons: list[Lesson], rng: np.random.Generator, questions: int, easy: bool) -> dict[str, Any]:
        """Tensors of a batch; `easy` asks by appearance alone.

        Returns:
            pixel_values (B, 3, 96, 96), input_ids and position_ids (B, L), mask (B, 1, L, L) additive,
            asked (Q, 2): row and column of the last prompt token, answer (A, 2): row and column of the
            tokens that predict an answer token, labels (A,), box (Q, 4), patches (Q, 64) uniform over
            the target's patches, dense (B, 64, 10).
        """
        rows, segments, positions, answer, labels, asked, boxes, patches = [], [], [], [], [], [], [], []
        for row, lesson in enumerate(lessons):
            pool = [q for q in lesson.questions if not easy or q[0] == 1] or lesson.questions
            ids, segment, position = list(self.prefix), [0] * len(self.prefix), list(range(len(self.prefix)))
            for number, k in enumerate(rng.permutation(len(pool))[:questions], start=1):
                _, shape, text = pool[k]
                box = lesson.boxes[shape]
                prompt = self.ids(" " + text) + self.tail
                reply = [*self.ids(" " + answer_text(tuple(box * SIDE))), self._eos]
                last = len(ids) + len(prompt) - 1
                asked.append((row, last))
                boxes.append(box)
                patches.append(lesson.dense[:, 9] == shape)
                answer += [(row, last + offset) for offset in range(len(reply))]
                labels += reply
                length = len(prompt) + len(reply)
                ids += prompt + reply
                segment += [number] * length
                position += range(len(self.prefix), len(self.prefix) + length)
            rows.append(ids)
            segments.append(segment)
            positions.append(position)
        target = torch.from_numpy(np.stack(patches)).float()
        return {
            "pixel_values": self.pixels(lessons),
            "input_ids": _padded(rows, self.pad),
            "position_ids": _padded(positions, 0),
            "mask": attention_mask(_padded(segments, -1), torch.float32),
            "asked": torch.tensor(asked),
            "answer": torch.tensor(answer),
            "labels": torch.tensor(labels),
            "box": torch.from_numpy(np.stack(boxes)),
            "patches": target / target.sum(1, keepdim=True).clamp(min=1),
            "dense": torch.from_numpy(np.stack([lesson.dense for lesson in lessons])),
        }


def _padded(rows: list[list[int]], fill: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])
