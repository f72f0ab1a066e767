"""What the embedded checkpoint is taught from: labels, places in the picture, and batches that keep questions apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from perpo.benchmarks.prompts import GROUNDING, LMMS_EVAL_GROUNDING, OCR, YES_NO
from perpo.tiny.build import Helpers, corpus, losses
from perpo.tiny.lessons import (
    BOXES_PER_SCENE,
    GRID,
    NO_LETTER,
    OBJECTS_PER_SCENE,
    PATCH,
    PROMPT_TAIL,
    TOPICS,
    Lesson,
    Packer,
    make_lessons,
    page_lesson,
    scene_lesson,
)
from perpo.tiny.model import TINY, new_model, new_processor
from perpo.tiny.world import answer_text, loose_box
from perpo.tiny.world.objects import object_question
from perpo.tiny.world.pages import LETTERS, draw_page, glyph_boxes, make_page
from perpo.tiny.world.scenes import COLOURS, KINDS, SIDE, draw, make_scene

LOOSE = 0.6


@pytest.fixture(scope="module")
def scenes() -> list[Lesson]:
    return [scene_lesson(index, LOOSE) for index in range(6)]


@pytest.fixture(scope="module")
def pages() -> list[Lesson]:
    return [page_lesson(index) for index in range(6)]


@pytest.fixture(scope="module")
def processor(scenes: list[Lesson]):
    return new_processor(TINY, corpus(scenes))


@pytest.fixture(scope="module")
def packer(processor) -> Packer:
    return Packer(processor)


def under(box: tuple[float, ...]) -> list[bool]:
    """For each patch, whether the box covers a quarter of its pixels or has its middle there."""
    found = []
    for row in range(GRID):
        for column in range(GRID):
            left, top = column * PATCH, row * PATCH
            width = max(0.0, min(box[2], left + PATCH) - max(box[0], left))
            height = max(0.0, min(box[3], top + PATCH) - max(box[1], top))
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            middle = left <= x < left + PATCH and top <= y < top + PATCH
            found.append(width * height > PATCH**2 / 4 or middle)
    return found


@pytest.mark.parametrize("index", range(6))
def test_box_questions_have_the_annotators_box_and_the_shapes_patches(scenes: list[Lesson], index: int) -> None:
    scene, lesson = make_scene("train", index), scenes[index]
    labels = {answer_text(loose_box(scene, n, LOOSE)): n for n in range(len(scene.shapes))}
    asked = [question for question in lesson.questions if question.topic == "box"]
    assert 0 < len(asked) <= BOXES_PER_SCENE
    for question in asked:
        number = labels[question.reply]
        assert question.box * SIDE == pytest.approx(loose_box(scene, number, LOOSE), abs=1e-4)
        ((token, mask),) = question.look
        assert token == 0
        assert mask.any()
        # A patch that two shapes share is the later one's.
        mine = np.array(under(scene.shapes[number].box))
        later = np.any([under(other.box) for other in scene.shapes[number + 1 :]] or [[False] * 64], axis=0)
        assert (mask == (mine & ~later)).all()
        words = question.text.split()
        assert question.text.startswith(" ")
        if question.by_looks:
            assert not {"left", "right", "top", "bottom", "above", "below", "nearest"} & set(words)


@pytest.mark.parametrize("index", range(6))
def test_what_each_patch_of_a_scene_holds(scenes: list[Lesson], index: int) -> None:
    scene, patches = make_scene("train", index), scenes[index].patches
    covered = np.any([under(shape.box) for shape in scene.shapes], axis=0)
    assert (patches[:, 0] == covered).all()
    assert (patches[~covered, 1:] == -1).all()
    for _, colour, kind, large, striped, *box, number in patches[covered]:
        shape = scene.shapes[int(number)]
        assert (list(COLOURS)[int(colour)], KINDS[int(kind)]) == (shape.colour, shape.kind)
        assert (bool(large), bool(striped)) == (shape.size == "large", shape.striped)
        assert np.array(box) * SIDE == pytest.approx(shape.box, abs=1e-4)
    assert (scenes[index].pixels == np.asarray(draw(scene))).all()


@pytest.mark.parametrize("index", range(6))
def test_yes_no_questions_are_true_and_balanced(scenes: list[Lesson], index: int) -> None:
    scene = make_scene("train", index)
    of_shape = [f"{shape.colour} {shape.kind}" for shape in scene.shapes]
    asked = [question for question in scenes[index].questions if question.topic == "yes_no"]
    names = {object_question(f"{c} {k}").removeprefix("Is there"): f"{c} {k}" for c in COLOURS for k in KINDS}
    assert [question.reply for question in asked].count("Yes") == OBJECTS_PER_SCENE // 2
    assert len(asked) == OBJECTS_PER_SCENE
    absent = []
    for question in asked:
        name = names[question.text]
        assert (question.reply == "Yes") == (name in of_shape)
        assert question.box is None
        if question.reply == "Yes":
            ((token, mask),) = question.look
            assert token == 0
            numbers = set(scenes[index].patches[mask, 9])
            assert numbers == {n for n, other in enumerate(of_shape) if other == name}
        else:
            assert question.look == []
            absent.append(name)
    words = {word for name in of_shape for word in name.split()}
    alike = [name for name in absent if words & set(name.split())]
    assert len(alike) >= OBJECTS_PER_SCENE // 4


@pytest.mark.parametrize("index", range(6))
def test_a_pages_letters_are_pointed_at_where_they_stand(pages: list[Lesson], index: int) -> None:
    page, lesson = make_page("train", index), pages[index]
    (question,) = lesson.questions
    assert (question.topic, question.text, question.reply) == ("text", "", "\n".join(page.lines))
    boxes = glyph_boxes(page)
    assert [token for token, _ in question.look] == [k + 1 for k, box in enumerate(boxes) if box is not None]
    for token, mask in question.look:
        assert mask.tolist() == under(boxes[token - 1])
    covering = {patch: set() for patch in range(GRID * GRID)}
    for letter, box in zip(page.text, boxes, strict=True):
        if letter in LETTERS:
            for patch in np.flatnonzero(under(box)):
                covering[int(patch)].add(LETTERS.index(letter))
    for patch, letters in covering.items():
        assert lesson.patches[patch] in (letters or {NO_LETTER})
    assert (lesson.pixels == np.asarray(draw_page(page))).all()


def test_lessons_are_the_same_from_several_processes(scenes: list[Lesson], pages: list[Lesson]) -> None:
    made = make_lessons(2, 2, LOOSE, 2)
    for mine, other in zip([*scenes[:2], *pages[:2]], [*made[0], *made[1]], strict=True):
        assert (mine.pixels == other.pixels).all()
        assert (mine.patches == other.patches).all()
        assert [q.text + q.reply for q in mine.questions] == [q.text + q.reply for q in other.questions]


def test_the_tokenizers_corpus_has_every_question_and_every_reply(scenes: list[Lesson]) -> None:
    questions = [question for lesson in scenes for question in lesson.questions]
    expected = set()
    for question in questions:
        if question.topic == "box":
            expression = question.text.removeprefix(" ")
            for prompt in (GROUNDING, LMMS_EVAL_GROUNDING):
                expected.add(f"USER: \n{prompt.format(expression=expression)} ASSISTANT:")
        else:
            expected.add(f"USER: \nIs there{question.text} ASSISTANT:")
        expected.add(f"{OCR}{YES_NO.format(question='')} {question.reply}")
    texts = corpus(scenes)
    assert set(texts) == expected
    assert len(texts) == len(expected)
    # The same lessons in another order train the same tokenizer.
    assert corpus(scenes[::-1]) == texts


def test_letters_and_coordinates_are_one_token_each(processor) -> None:
    """The places that are pointed at are counted so: the separator, then a token for each character."""
    tokenizer = processor.tokenizer
    text = "AN OX\nZOO"
    assert [tokenizer.decode([token]) for token in tokenizer.encode(f" {text}")] == [" ", *text]
    box = tokenizer.encode(" [0.12, 0.34, 0.56, 1.00]")
    assert [tokenizer.decode([token]) for token in box] == [
        *(" [", "0.12", ", ", "0.34", ", ", "0.56", ", ", "1.00", "]"),
    ]


def batch_of(packer: Packer, scenes: list[Lesson], pages: list[Lesson], seed: int = 0, questions: int = 8, easy=False):
    topics = ["box", "yes_no"] * len(scenes)
    chosen = [(lesson, topics[number]) for number, lesson in enumerate(scenes)]
    return packer.batch(chosen, pages, np.random.default_rng(seed), questions, easy), [topic for _, topic in chosen]


def replies(batch, packer: Packer, eos: int) -> list[tuple[int, list[int], list[int]]]:
    """(row, columns, labels) of each reply of a batch, cut behind the end tokens."""
    found, columns, labels = [], [], []
    for (row, column), label in zip(batch["answer"].tolist(), batch["labels"].tolist(), strict=True):
        columns.append(column)
        labels.append(label)
        if label == eos:
            found.append((row, columns, labels))
            columns, labels = [], []
    assert not columns
    return found


def test_answers_decode_to_the_replies_and_follow_the_token_that_predicts_them(
    packer: Packer, processor, scenes: list[Lesson], pages: list[Lesson]
) -> None:
    tokenizer = processor.tokenizer
    batch, topics = batch_of(packer, scenes[:4], pages[:3])
    lessons = scenes[:4] + pages[:3]
    seen = []
    for row, columns, labels in replies(batch, packer, tokenizer.eos_token_id):
        assert columns == list(range(columns[0], columns[0] + len(labels)))
        assert batch["input_ids"][row, columns[0] + 1 : columns[-1] + 2].tolist() == labels
        # The token that predicts the first one ends the prompt.
        assert tokenizer.decode(batch["input_ids"][row, : columns[0] + 1]).endswith(PROMPT_TAIL)
        seen.append((row, tokenizer.decode(labels[:-1])))
    topic_of = [*topics, "text", "text", "text"]
    for row, lesson in enumerate(lessons):
        mine = [text for number, text in seen if number == row]
        possible = [" " + question.reply for question in lesson.questions if question.topic == topic_of[row]]
        assert len(mine) == min(8, len(possible))
        for text in mine:
            possible.remove(text)
    rows = batch["answer"][:, 0].tolist()
    assert [TOPICS[number] for number in batch["topic"].tolist()] == [topic_of[row] for row in rows]


def test_pointing_rows_point_where_the_next_token_is_drawn(
    packer: Packer, processor, scenes: list[Lesson], pages: list[Lesson]
) -> None:
    batch, _ = batch_of(packer, scenes[:4], pages[:3])
    assert batch["patches"].sum(1).tolist() == pytest.approx([1.0] * len(batch["patches"]))
    places: dict[int, list[tuple[str, torch.Tensor]]] = {row: [] for row in range(7)}
    for (row, column), share in zip(batch["pointing"].tolist(), batch["patches"], strict=True):
        following = processor.tokenizer.decode(batch["input_ids"][row, column + 1])
        places[row].append((following, share > 0))
    for number in range(3):
        page = make_page("train", number)
        drawn = [(c, under(box)) for c, box in zip(page.text, glyph_boxes(page), strict=True) if box is not None]
        assert [(letter, mask.tolist()) for letter, mask in places[4 + number]] == drawn
    for row in (0, 2):
        shapes = make_scene("train", row).shapes
        for _, mask in places[row]:
            assert any((mask & ~torch.tensor(under(shape.box))).sum() == 0 for shape in shapes)
    # Of the yes/no questions, those with the answer yes: before any token of it.
    for row in (1, 3):
        assert {following for following, _ in places[row]} == {processor.tokenizer.decode(packer.ids(" Yes")[:1])}
    # Boxes are read off the last prompt token, and equal what is said there.
    answers = {(row, columns[0]): labels for row, columns, labels in replies(batch, packer, packer.ids("</s>")[0])}
    assert len(batch["asked"]) == sum(row in (0, 2) for row, _ in answers)
    for (row, column), box in zip(batch["asked"].tolist(), batch["box"].tolist(), strict=True):
        said = processor.tokenizer.decode(answers[row, column][:-1])
        assert said == " [" + ", ".join(f"{value:.2f}" for value in box) + "]"


def test_segments_see_the_prefix_and_themselves(packer: Packer, scenes: list[Lesson], pages: list[Lesson]) -> None:
    """Segments are found anew: each begins where the positions fall back to the length of the prefix."""
    batch, _ = batch_of(packer, scenes[:2], pages[:1])
    for row in range(3):
        positions, ids = batch["position_ids"][row].tolist(), batch["input_ids"][row].tolist()
        length = max(k for k, token in enumerate(ids) if token != packer.pad) + 1
        ends = [columns[-1] + 1 for r, columns, _ in replies(batch, packer, packer.ids("</s>")[0]) if r == row]
        starts = [k for k in range(1, length) if positions[k] <= positions[k - 1]]
        assert len(starts) == len(ends) - 1
        # With one question, as about a page, the prefix and it are one text.
        prefix = positions[starts[0]] if starts else 0
        assert {positions[k] for k in starts} <= {prefix}
        assert positions[: starts[0] if starts else length] == list(range(starts[0] if starts else length))
        starts = [prefix, *starts]
        assert starts[1:] == [end + 1 for end in ends[:-1]]
        assert ends[-1] == length - 1
        owner = [0] * prefix + [k + 1 for k, end in enumerate(ends) for _ in range(starts[k], end + 1)]
        visible = batch["mask"][row, 0] == 0
        for query in range(length):
            for key in range(visible.shape[1]):
                expected = key <= query and key < length and owner[key] in (0, owner[query])
                assert bool(visible[query, key]) == expected, (row, query, key)


def test_easy_batches_ask_by_looks(packer: Packer, processor, scenes: list[Lesson]) -> None:
    lesson = next(lesson for lesson in scenes if any(q.by_looks for q in lesson.questions))
    batch = packer.batch([(lesson, "box")], [page_lesson(0)], np.random.default_rng(0), 24, True)
    text = processor.tokenizer.decode(batch["input_ids"][0])
    asked = [question for question in lesson.questions if question.topic == "box"]
    easy = [question for question in asked if question.by_looks]
    assert len(batch["asked"]) == len(easy) < len(asked)
    # The words before the expression stand once, at the beginning.
    assert all(f"{question.text}{PROMPT_TAIL} {question.reply}" in text for question in easy)
    # Where nothing can be told by its looks, the rest is asked instead.
    hard = replace(lesson, questions=[question for question in asked if not question.by_looks])
    batch = packer.batch([(hard, "box")], [page_lesson(0)], np.random.default_rng(0), 24, True)
    assert len(batch["asked"]) == len(hard.questions)


@pytest.mark.parametrize("seed", [0, 3])
def test_a_packed_question_is_learned_as_if_it_stood_alone(
    packer: Packer, processor, scenes: list[Lesson], pages: list[Lesson], seed: int
) -> None:
    """Every topic's loss, from transformers' own loss on one prompt at a time through the processor."""
    torch.manual_seed(seed)
    model = new_model(TINY, processor, seed=seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(4 if "proj" in name or "embed" in name else 1)
        batch, topics = batch_of(packer, scenes[:2], pages[:2], seed, questions=5)
        found = losses(model, Helpers(TINY.text_width), packer, batch)
        sums = {topic: [0.0, 0] for topic in TOPICS}
        for row, columns, labels in replies(batch, packer, processor.tokenizer.eos_token_id):
            lesson, topic = [*scenes[:2], *pages[:2]][row], [*topics, "text", "text"][row]
            prompt = _prompt(batch, packer, processor, row, columns)
            loss = _alone(model, processor, lesson, prompt, labels)
            sums[topic][0] += loss * len(labels)
            sums[topic][1] += len(labels)
    for topic, (total, tokens) in sums.items():
        assert float(found[topic]) == pytest.approx(total / tokens, rel=1e-4), topic


def _prompt(batch, packer: Packer, processor, row: int, columns: list[int]) -> str:
    """The words of one question of a batch: the row's beginning and the question's own part."""
    ids, positions = batch["input_ids"][row].tolist(), batch["position_ids"][row].tolist()
    last = columns[0]
    start = last
    while positions[start - 1] == positions[start] - 1:
        start -= 1
    prefix = ids[: positions[start]]
    words = processor.tokenizer.decode(prefix + ids[start : last + 1])
    return words.replace("<image>" * GRID * GRID, "<image>")


def _alone(model, processor, lesson: Lesson, prompt: str, labels: list[int]) -> float:
    inputs = processor(images=[Image.fromarray(lesson.pixels)], text=[prompt], return_tensors="pt")
    ids = torch.cat([inputs["input_ids"], torch.tensor([labels])], dim=1)
    wanted = torch.cat([torch.full_like(inputs["input_ids"], -100), torch.tensor([labels])], dim=1)
    mask = torch.ones_like(ids)
    out = model(input_ids=ids, attention_mask=mask, pixel_values=inputs["pixel_values"], labels=wanted)
    return float(out.loss)
