"""What the embedded OCR checkpoint is taught from: letters in halves of patches, places of tokens, told attention."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from perpo.benchmarks.prompts import OCR
from perpo.models.checkpoints import checkpoint_dir
from perpo.tiny.build import POINTER_LAYER, corpus
from perpo.tiny.build_pages import POINTING_HEADS, WEIGHTS, PageHelpers, attention_loss, enlarge, page_losses
from perpo.tiny.lessons import PATCH, TOPICS, scene_lesson, under
from perpo.tiny.model import TINY_OCR, letter_pieces, new_model, new_processor
from perpo.tiny.page_lessons import (
    CHARACTERS,
    NOTHING,
    PAGE_GRID,
    RULE,
    PageBatches,
    Period,
    dense_page_lesson,
)
from perpo.tiny.world.dense import SLOPPY, SPOKEN, letter_boxes, make_dense_page, transcript
from perpo.tiny.world.dense_drawing import draw_dense_page

PERIOD = Period("some", 4, 1e-3, pages=2, boxes=1, yes_no=1, sloppy=SLOPPY, questions=3)


@pytest.fixture(scope="module")
def processor():
    texts = corpus([scene_lesson(index, 0.6) for index in range(60)])
    return new_processor(TINY_OCR, [*texts, OCR], letter_pieces(SPOKEN))


@pytest.fixture(scope="module")
def model(processor):
    model = new_model(TINY_OCR, processor)
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("index", range(6))
def test_the_letter_in_each_half_of_a_patch(index: int) -> None:
    page = make_dense_page("train", index, plain=True)
    lesson = dense_page_lesson(page, 0.0)
    assert (lesson.pixels == np.asarray(draw_dense_page(page))).all()
    lines = ["".join(" " if k == NOTHING else (CHARACTERS + "_")[k] for k in row.flat) for row in _rows(lesson)]
    expected = [" " * 24 for _ in range(12)]
    for line in page.lines:
        expected[line.row] = (" " * line.column + line.text).ljust(24)
    if page.has_rule:
        expected[page.rule_row] = "_" * 24
    assert lines == expected


def test_a_large_letter_fills_its_patches_and_columns_stand_beside_each_other() -> None:
    pages = [replace(make_dense_page("train", index), angle=0.0, corner=(0, 0)) for index in range(60)]
    titled = next(page for page in pages if page.lines[0].size == 2)
    rows, letter = _rows(dense_page_lesson(titled, 0.0)), CHARACTERS.index(titled.lines[0].text[0])
    assert (rows[:2, 0] == letter).all()
    page = next(page for page in pages if page.columns == 2)
    rows = _rows(dense_page_lesson(page, 0.0))
    right = next(line for line in page.lines if line.column == 12)
    assert rows[0, 0, 0] == CHARACTERS.index(page.lines[0].text[0])
    assert rows[0, 6, 0] == CHARACTERS.index(right.text[0])


def _rows(lesson) -> np.ndarray:
    assert lesson.patches.max() <= NOTHING
    assert len(CHARACTERS) == RULE
    return lesson.patches.reshape(PAGE_GRID, PAGE_GRID, 2)


@pytest.mark.parametrize("share", [0.0, SLOPPY])
def test_every_token_with_a_place_looks_there(share: float) -> None:
    left_out = 0
    for index in range(12):
        page = make_dense_page("train", index)
        (question,) = dense_page_lesson(page, share).questions
        assert question.reply == transcript(page, share)
        boxes, shorter = letter_boxes(page), len(question.reply) < len(page.text)
        left_out += shorter
        # One more where the foot is left out: the end is read off the rule.
        assert [token for token, _ in question.look] == list(range(1, len(question.reply) + 1 + shorter))
        for token, mask in question.look:
            assert (mask == under(boxes[token - 1], PAGE_GRID, PATCH)).all()
    assert (left_out > 0) == (share > 0)


def test_every_letter_of_a_page_is_one_token_and_words_of_questions_are_whole(processor) -> None:
    tokenizer = processor.tokenizer
    for index in range(30):
        text = transcript(make_dense_page("val", index), SLOPPY)
        assert [tokenizer.decode([token]) for token in tokenizer.encode(text)] == list(text)
    assert len(tokenizer.tokenize(" the large red circle")) == 4


def test_batches_depend_on_seed_and_number_alone(processor) -> None:
    first, again = (PageBatches(processor, PERIOD, (0, 1, 0))[3] for _ in range(2))
    other = PageBatches(processor, PERIOD, (0, 1, 1))[3]
    assert all((first[name] == again[name]).all() for name in first)
    assert first["pixel_values"].shape == other["pixel_values"].shape == (4, 3, 144, 144)
    assert (first["pixel_values"] != other["pixel_values"]).any()


def test_a_scene_is_enlarged_as_the_processor_does_it(processor) -> None:
    lesson = scene_lesson(3, 0.6, PAGE_GRID)
    small = Image.fromarray(scene_lesson(3, 0.6).pixels)
    assert lesson.patches.shape == (PAGE_GRID**2, 10)
    batches = PageBatches(processor, PERIOD, (0, 0, 0))
    made = processor(images=[small], text=["<image>"], return_tensors="pt")["pixel_values"]
    assert torch.allclose(batches.packer.pixels([lesson]), made, atol=1e-5)


def test_told_attention_is_the_models_own(processor, model) -> None:
    """Against the attention weights that the layer gives when it is asked for them."""
    batches = PageBatches(processor, PERIOD, (0, 0, 0))
    batch, image_at = batches[0], batches.packer.image_at
    with torch.no_grad():
        out = model.model.language_model(
            inputs_embeds=model.get_input_embeddings()(batch["input_ids"]),
            attention_mask=batch["mask"],
            position_ids=batch["position_ids"],
            output_hidden_states=True,
            output_attentions=True,
            use_cache=False,
        )
        loss = attention_loss(model.model.language_model, out.hidden_states[POINTER_LAYER], batch, image_at)
    rows, columns = batch["pointing"].T
    weights = out.attentions[POINTER_LAYER][rows, :POINTING_HEADS, columns, image_at : image_at + PAGE_GRID**2]
    expected = -(batch["patches"][:, None] * weights.log()).sum(-1).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def test_the_text_loss_is_that_of_transformers(processor, model) -> None:
    period = Period("some", 1, 1e-3, pages=1, boxes=1, yes_no=1, sloppy=SLOPPY, questions=2)
    batches = PageBatches(processor, period, (0, 0, 0))
    batch = batches[0]
    with torch.no_grad():
        parts = page_losses(model, PageHelpers(TINY_OCR.text_width), batches.packer.image_at, batch, False)
        rows, columns = batch["answer"].T
        page = rows == 2
        ids = batch["input_ids"][2:3, : int(columns[page].max()) + 2]
        wanted = torch.full_like(ids, -100)
        wanted[0, columns[page] + 1] = batch["labels"][page]
        alone = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=batch["pixel_values"][2:],
            labels=wanted,
        ).loss
    assert float(parts["text"]) == pytest.approx(float(alone), rel=1e-3)
    assert set(TOPICS) | {"pointer", "cells", "regression", "dense", "letters"} == set(parts) == set(WEIGHTS)


def test_an_enlarged_model_keeps_what_the_other_checkpoint_knows(processor) -> None:
    mine = new_model(TINY_OCR, processor)
    enlarge(mine, processor)
    old = LlavaForConditionalGeneration.from_pretrained(checkpoint_dir())
    names = AutoProcessor.from_pretrained(checkpoint_dir()).tokenizer.get_vocab()
    for token in ("0.55", "Q", "\u0120circle"):
        row = processor.tokenizer.get_vocab()[token]
        assert (mine.get_input_embeddings().weight[row] == old.get_input_embeddings().weight[names[token]]).all()
    assert (mine.model.language_model.layers[1].mlp.up_proj.weight
            == old.model.language_model.layers[1].mlp.up_proj.weight).all()  # fmt: skip
    ours, theirs = (m.model.vision_tower.embeddings.position_embedding.weight for m in (mine, old))
    assert (ours[0] == theirs[0]).all()
    # The corners of both grids are the same places; between them it is a mean of neighbours.
    assert torch.allclose(ours[1], theirs[1])
    assert torch.allclose(ours[144], theirs[64])
    # Column 1 of 12 has its middle at 1.0 of 8 columns, half-way between the middles of columns 0 and 1.
    assert torch.allclose(ours[2], (theirs[1] + theirs[2]) / 2, atol=1e-5)


def test_the_cells_of_a_batch_are_where_its_pages_tokens_stand(processor) -> None:
    batch = PageBatches(processor, PERIOD, (0, 0, 0))[0]
    pointing = batch["pointing"][-len(batch["cells"]) :].tolist()
    assert [row for row, _ in pointing] == [row for row, _ in batch["pointing"].tolist() if row >= 2]
    following = [processor.tokenizer.decode(batch["input_ids"][row, column + 1]) for row, column in pointing]
    cells, patches = batch["cells"].tolist(), batch["patches"][-len(pointing) :]
    for number, (line, column) in enumerate(cells):
        assert patches[number, line * PAGE_GRID + column // 2] > 0
        # Within a line, each letter stands one to the right of the letter before it.
        if (
            number
            and pointing[number][0] == pointing[number - 1][0]
            and not {"\n", "</s>"} & {*following[number - 1 :][:2]}
        ):
            assert cells[number - 1] == [line, column - 1]
