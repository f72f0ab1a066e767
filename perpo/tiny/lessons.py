"""Lessons for the embedded checkpoint: pictures with tokenised questions, packed by picture.

Three topics: boxes of expressions, yes/no questions about objects (both about scenes), and the text of
pages. In a batch all questions of a picture share its image tokens and the words that their prompts begin
with; each question and its answer is a segment that sees that prefix and itself, with positions that
restart after the prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from perpo.benchmarks.prompts import GROUNDING, LMMS_EVAL_GROUNDING, OCR, YES_NO
from perpo.models.prefix import attention_mask
from perpo.tiny.world import answer_text, loose_box
from perpo.tiny.world.expressions import FLAVOURS, expressions
from perpo.tiny.world.objects import OBJECTS, object_question, objects_of
from perpo.tiny.world.pages import LETTERS, draw_page, glyph_boxes, make_page
from perpo.tiny.world.scenes import COLOURS, KINDS, SIDE, Scene, draw, make_scene, scene_rng

PATCH = 12
GRID = SIDE // PATCH
BOXES_PER_SCENE = 24
OBJECTS_PER_SCENE = 12
PROMPT_TAIL = " ASSISTANT:"
DENSE_CLASSES = (1, len(COLOURS), len(KINDS), 2, 1, 4)
"""Outputs of the dense head per patch of a scene: object?, colour, kind, size, striped?, box."""

NO_LETTER = len(LETTERS)
"""Class of a page's patch with no letter in it."""

Topic = Literal["box", "yes_no", "text"]


@dataclass
class LessonQuestion:
    """One question and its answer.

    Attributes:
        topic: What it asks for.
        text: What follows the common words of the topic's prompts.
        reply: The answer, without the separator before it.
        box: (4,) the label in shares of the side; None where no box is asked for.
        look: For each token of the reply that has a place in the picture, its number and a (64,) mask of
            the patches of that place.
        by_looks: Whether it names the target by its appearance alone.
    """

    topic: Topic
    text: str
    reply: str
    box: np.ndarray | None
    look: list[tuple[int, np.ndarray]]
    by_looks: bool = False


@dataclass
class Lesson:
    """One picture: pixels (96, 96, 3) uint8, questions, and what each patch holds.

    `patches` is (64, 10) for a scene: `DENSE_CLASSES`' targets and the shape's number; (64,) for a page: the
    letter.
    """

    pixels: np.ndarray
    questions: list[LessonQuestion]
    patches: np.ndarray


def scene_lesson(index: int, loose: float, grid: int = GRID) -> Lesson:
    """Scene `index` of the train split, with up to 24 expressions and 12 objects asked about.

    For a model with `grid` x `grid` patches it is enlarged to their size, as that model's processor does it.
    """
    scene = make_scene("train", index)
    rng = scene_rng("train", index, 4)
    patches = _scene_patches(scene, grid)
    asked = [
        _box_question(scene, number, text, name == "refshapes+", loose, patches)
        for number, shape in enumerate(scene.shapes)
        for name in FLAVOURS
        for text in _some(expressions(scene, shape, name), rng, 3)
    ]
    asked = [asked[k] for k in rng.permutation(len(asked))[:BOXES_PER_SCENE]]
    picture = draw(scene)
    if grid != GRID:
        picture = picture.resize((grid * PATCH, grid * PATCH), Image.Resampling.BICUBIC)
    return Lesson(np.asarray(picture), asked + _object_questions(scene, rng, patches), patches)


def _scene_patches(scene: Scene, grid: int) -> np.ndarray:
    patches = np.full((grid * grid, 10), -1, dtype=np.float32)
    patches[:, 0] = 0
    for number, shape in enumerate(scene.shapes):
        labels = (list(COLOURS).index(shape.colour), KINDS.index(shape.kind), int(shape.size == "large"), shape.striped)
        patches[under(shape.box, grid, SIDE / grid)] = (1, *labels, *(value / SIDE for value in shape.box), number)
    return patches


def under(box: tuple[float, float, float, float], grid: int = GRID, patch: float = PATCH) -> np.ndarray:
    """Return (grid * grid,) the patches, `patch` pixels wide, that a box covers by a quarter, and its middle's."""
    x1, y1, x2, y2 = (value / patch for value in box)
    y, x = np.divmod(np.arange(grid * grid), grid)
    wide = np.clip(np.minimum(x + 1, x2) - np.maximum(x, x1), 0, 1)
    high = np.clip(np.minimum(y + 1, y2) - np.maximum(y, y1), 0, 1)
    middle = (x == int((x1 + x2) / 2)) & (y == int((y1 + y2) / 2))
    return (wide * high > 0.25) | middle


def _box_question(
    scene: Scene, number: int, text: str, by_looks: bool, loose: float, patches: np.ndarray
) -> LessonQuestion:
    label = loose_box(scene, number, loose)
    box = np.array(label, dtype=np.float32) / SIDE
    return LessonQuestion("box", " " + text, answer_text(label), box, [(0, patches[:, 9] == number)], by_looks)


def _object_questions(scene: Scene, rng: np.random.Generator, patches: np.ndarray) -> list[LessonQuestion]:
    """Half about objects that are there, half not; of these, half share a colour or a kind with one that is."""
    there = objects_of(scene)
    missing = [OBJECTS[k] for k in rng.permutation(len(OBJECTS)) if OBJECTS[k] not in there]
    words = {word for name in there for word in name.split()}
    near = [name for name in missing if words & set(name.split())]
    half = OBJECTS_PER_SCENE // 2
    asked = [(there[k % len(there)], "Yes") for k in rng.permutation(half)]
    asked += [(name, "No") for name in (near[: half // 2] + missing)[:half]]
    of_shape = [f"{shape.colour} {shape.kind}" for shape in scene.shapes]
    questions = []
    for name, reply in asked:
        mine = np.isin(patches[:, 9], [n for n, other in enumerate(of_shape) if other == name])
        text = object_question(name).removeprefix("Is there")
        questions.append(LessonQuestion("yes_no", text, reply, None, [(0, mine)] if reply == "Yes" else []))
    return questions


def page_lesson(index: int) -> Lesson:
    """Page `index` of the train split, with its one question."""
    page = make_page("train", index)
    boxes = glyph_boxes(page)
    patches = np.full(GRID * GRID, NO_LETTER, dtype=np.int64)
    look = []
    # The first token of the reply is the separator before it.
    for token, (letter, box) in enumerate(zip(page.text, boxes, strict=True), start=1):
        if box is not None:
            look.append((token, under(box)))
            if letter in LETTERS:
                patches[under(box)] = LETTERS.index(letter)
    return Lesson(np.asarray(draw_page(page)), [LessonQuestion("text", "", page.text, None, look)], patches)


def _some(texts: list[str], rng: np.random.Generator, most: int) -> list[str]:
    return [texts[k] for k in rng.permutation(len(texts))[:most]]


def make_lessons(scenes: int, pages: int, loose: float, processes: int) -> tuple[list[Lesson], list[Lesson]]:
    """Return the lessons on the first scenes and the first pages, made by several processes."""
    with get_context("spawn").Pool(processes) as pool:
        about_scenes = pool.starmap_async(scene_lesson, [(index, loose) for index in range(scenes)], chunksize=200)
        about_pages = pool.map_async(page_lesson, range(pages), chunksize=200)
        return about_scenes.get(), about_pages.get()


class Packer:
    """Packs lessons into batches for one tokenizer (its pieces never cross the joints used here)."""

    def __init__(self, processor: Any, grid: int = GRID) -> None:
        tokenizer = processor.tokenizer
        self._encode, self._eos = tokenizer.encode, tokenizer.eos_token_id
        self._cache: dict[str, list[int]] = {}
        self._opening = f"USER: {'<image>' * (grid * grid)}\n"
        self.image_at = self.ids(self._opening).index(tokenizer.convert_tokens_to_ids("<image>"))
        self.pad: int = tokenizer.pad_token_id
        image_processor = processor.image_processor
        self.mean = torch.tensor(image_processor.image_mean).view(1, 3, 1, 1)
        self.std = torch.tensor(image_processor.image_std).view(1, 3, 1, 1)

    def ids(self, text: str) -> list[int]:
        """Return token ids of a piece of text, remembered."""
        if text not in self._cache:
            self._cache[text] = self._encode(text, add_special_tokens=False)
        return self._cache[text]

    def pixels(self, lessons: list[Lesson]) -> torch.Tensor:
        """Normalised pixel values (B, 3, 96, 96), as the image processor makes them (no resize is needed)."""
        stacked = torch.from_numpy(np.stack([lesson.pixels for lesson in lessons])).permute(0, 3, 1, 2)
        return (stacked.float() / 255 - self.mean) / self.std

    def _frame(self, topic: Topic, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """The shared beginning of a topic's prompts and what ends each; now and then in other words."""
        usual = rng.random() < 0.85
        if topic == "box":
            head, tail = (GROUNDING if usual else LMMS_EVAL_GROUNDING).format(expression="").rstrip(), ""
        elif topic == "yes_no":
            head, tail = "Is there", YES_NO.format(question="") if usual else ""
        else:
            head, tail = OCR, ""
        return self.ids(self._opening + head), self.ids(tail + PROMPT_TAIL)

    def batch(
        self,
        scenes: list[tuple[Lesson, Topic]],
        pages: list[Lesson],
        rng: np.random.Generator,
        questions: int,
        easy: bool,
    ) -> dict[str, Any]:
        """Return the tensors of a batch: the scenes' rows first; `easy` asks for boxes by appearance alone.

        Returns:
            pixel_values (B, 3, 96, 96), input_ids and position_ids (B, L), mask (B, 1, L, L) additive,
            answer (A, 2): row and column of the tokens that predict an answer token, labels (A,),
            topic (A,): 0 box, 1 yes/no, 2 text; pointing (P, 2): row and column of the tokens that
            predict something with a place, patches (P, 64) uniform over it; asked (Q, 2): the last
            prompt token of the box questions, box (Q, 4); scene_patches (S, 64, 10),
            page_patches (B - S, 64).
        """
        growing = _GrowingBatch()
        for lesson, topic in [*scenes, *((page, "text") for page in pages)]:
            pool = [q for q in lesson.questions if q.topic == topic and (q.by_looks or not easy or topic != "box")]
            pool = pool or [q for q in lesson.questions if q.topic == topic]
            head, tail = self._frame(topic, rng)
            growing.begin(head)
            for k in rng.permutation(len(pool))[:questions]:
                question = pool[k]
                reply = [*self.ids(" " + question.reply), self._eos]
                growing.add(self.ids(question.text) + tail, reply, question)
        lessons = [lesson for lesson, _ in scenes] + pages
        target = torch.from_numpy(np.stack(growing.patches)).float()
        return {
            "pixel_values": self.pixels(lessons),
            "input_ids": _padded(growing.rows, self.pad),
            "position_ids": _padded(growing.positions, 0),
            "mask": attention_mask(_padded(growing.segments, -1), torch.float32),
            "answer": torch.tensor(growing.answer),
            "labels": torch.tensor(growing.labels),
            "topic": torch.tensor(growing.topics),
            "pointing": torch.tensor(growing.pointing),
            "patches": target / target.sum(1, keepdim=True).clamp(min=1),
            "asked": torch.tensor(growing.asked),
            "box": torch.from_numpy(np.stack(growing.boxes)),
            "scene_patches": torch.from_numpy(np.stack([lesson.patches for lesson, _ in scenes])),
            "page_patches": torch.from_numpy(np.stack([page.patches for page in pages])),
        }


TOPICS: tuple[Topic, ...] = ("box", "yes_no", "text")


class _GrowingBatch:
    """The rows of a batch as they grow."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.segments: list[list[int]] = []
        self.positions: list[list[int]] = []
        self.answer: list[tuple[int, int]] = []
        self.labels: list[int] = []
        self.topics: list[int] = []
        self.pointing: list[tuple[int, int]] = []
        self.patches: list[np.ndarray] = []
        self.asked: list[tuple[int, int]] = []
        self.boxes: list[np.ndarray] = []

    def begin(self, prefix: list[int]) -> None:
        """Begin a new row."""
        self._prefix, self._segment = len(prefix), 0
        self.rows.append(list(prefix))
        self.segments.append([0] * len(prefix))
        self.positions.append(list(range(len(prefix))))

    def add(self, prompt: list[int], reply: list[int], question: LessonQuestion) -> None:
        """Add one more question to the row."""
        row, ids = len(self.rows) - 1, self.rows[-1]
        self._segment += 1
        last = len(ids) + len(prompt) - 1
        self.answer += [(row, last + offset) for offset in range(len(reply))]
        self.labels += reply
        self.topics += [TOPICS.index(question.topic)] * len(reply)
        for offset, mask in question.look:
            self.pointing.append((row, last + offset))
            self.patches.append(mask)
        if question.box is not None:
            self.asked.append((row, last))
            self.boxes.append(question.box)
        length = len(prompt) + len(reply)
        ids += prompt + reply
        self.segments[-1] += [self._segment] * length
        self.positions[-1] += range(self._prefix, self._prefix + length)


def _padded(rows: list[list[int]], fill: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])
