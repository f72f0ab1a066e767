"""Families in the programs: what their boxes count, what the processor adds, what the table says."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from perpo.boxes import BoxFormat, Resize, format_box, parse_box
from perpo.data.truths import format_fields
from perpo.errors import PerpoError
from perpo.models import families, families_table
from perpo.models.families import family_of
from perpo.models.loaded import answers_token_ids, render_prompt
from perpo.models.loading import load_model
from perpo.records.store import read_run
from perpo.sample.arguments import SampleArguments
from perpo.sample.run import run_sampling
from perpo_eval.arguments import EvalArguments
from perpo_eval.evaluate.run import check, evaluate
from tests.support import ROOT

sides = st.integers(1, 3000)


@given(sides, sides, st.sampled_from([14, 28, 32]), st.integers(1, 40), st.integers(40, 2000))
def test_sizes_are_those_of_the_library(width, height, factor, smallest, largest):
    assume(max(width, height) <= 200 * min(width, height))  # the library refuses what is thinner
    bounds = {"min_pixels": smallest * factor**2, "max_pixels": largest * factor**2}
    assert Resize(factor, **bounds).size((width, height)) == smart_resize(height, width, factor, **bounds)[::-1]


@given(sides, sides, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_box_in_pixels_of_the_resized_picture_comes_back(width, height, shares):
    assume(max(width, height) <= 200 * min(width, height))
    form = BoxFormat("pixels", frame="resized", resize=Resize(28, 56 * 56, 28 * 28 * 1280))
    box = np.array(shares) * ([width, height] * 2)
    read = parse_box(format_box(box, form, (width, height)), form, (width, height))
    input_width, input_height = form.resize.size((width, height))
    rounding = np.array([width / input_width, height / input_height] * 2) / 2
    assert (np.abs(read - box) <= rounding + 1e-9 * width).all()


def test_qwen_s_boxes_count_pixels_of_what_its_processor_makes(checkpoints, tmp_path):
    """The bounds are those of the checkpoint's own processor, and a truth in the picture's pixels is scaled to them."""
    path = checkpoints("qwen2_5_vl")
    loaded = load_model(str(path), device="cpu")
    bounds = loaded.processor.image_processor.size
    expected = Resize(28, bounds["shortest_edge"], bounds["longest_edge"])
    assert loaded.family.box_format.resize == expected
    Image.new("RGB", (200, 90)).save(tmp_path / "0.png")
    row = {"image_path": "0.png", "question": "Where?", "answer": "[20, 9, 100, 45]"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(row) + "\n")
    options = {"model": str(path), "questions": str(tmp_path / "questions.jsonl"), "num_candidates": 2}
    options |= {"max_new_tokens": 4, "output": str(tmp_path / "out.jsonl")}
    run_sampling(SampleArguments(**options, truth_frame="original"))
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert (record["box_scale"], record["box_resize"]) == ("pixels", asdict(expected))
    # Without a word they could be for its bounds or for the hub's; rows that say the hub's are scaled to its own.
    with pytest.raises(PerpoError, match="does not say for which bounds of resizing"):
        run_sampling(SampleArguments(**options | {"output": str(tmp_path / "none.jsonl")}))
    usual = family_of("qwen2_5_vl").box_format
    box = format_box([20, 9, 100, 45], usual, (200, 90))
    (tmp_path / "questions.jsonl").write_text(json.dumps(row | {"answer": box} | format_fields(usual)) + "\n")
    run_sampling(SampleArguments(**options | {"output": str(tmp_path / "hub.jsonl")}))
    again = parse_box(json.loads((tmp_path / "hub.jsonl").read_text())["answer"], loaded.family.box_format, (200, 90))
    np.testing.assert_allclose(again, [20, 9, 100, 45], atol=1.5)
    height, width = smart_resize(90, 200, 28, bounds["shortest_edge"], bounds["longest_edge"])
    grid = loaded.encode([render_prompt(loaded, "")], [Image.new("RGB", (200, 90))])["image_grid_thw"][0].tolist()
    assert [1, height // 14, width // 14] == grid
    box = [round(0.1 * width), round(0.1 * height), round(0.5 * width), round(0.5 * height)]
    assert record["answer"] == str(box)
    assert record["box_frame"] == "resized"


def test_a_record_keeps_the_bounds_that_its_boxes_need(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr("perpo.engines.hf.answer", lambda loaded, prompts, *rest: said(loaded, len(prompts)))

    def said(loaded, count):
        return [[*loaded.tokenizer("[0, 0, 40, 30]").input_ids, loaded.end_id]] * count

    path = checkpoints("qwen2_5_vl")
    options = {"data": "tiny", "limit": 4, "output": str(tmp_path)}
    first = read_run(evaluate(EvalArguments(model=str(path), **options)))
    bounds = load_model(str(path), device="cpu").processor.image_processor.size
    assert first.record.generation["box_resize"] == asdict(Resize(28, bounds["shortest_edge"], bounds["longest_edge"]))
    again = read_run(evaluate(EvalArguments(rescore=first.path, output=str(tmp_path))))
    one, other = ([task.metrics for task in run.record.tasks] for run in (first, again))
    assert one == other


def test_a_question_that_asks_for_another_scale_is_refused(checkpoints, tmp_path):
    options = {"model": str(checkpoints("qwen3_vl")), "output": str(tmp_path), "data": "tiny"}
    with pytest.raises(PerpoError, match="boxes of qwen3_vl are read in the scale 0-1000"):
        check(EvalArguments(**options, prompt_style="lmms_eval"))
    assert check(EvalArguments(**options))


def test_paligemma_s_prompt_is_what_its_processor_makes(checkpoints, pictures):
    loaded = load_model(str(checkpoints("paligemma")), device="cpu")
    prompt = render_prompt(loaded, "detect cup")
    assert prompt == "<image><s>detect cup\n"
    made = loaded.processor(images=pictures[0], text="<image>detect cup", return_tensors="pt").input_ids[0].tolist()
    assert loaded.encode([prompt], [pictures[0]]).input_ids[0].tolist() == made
    image = loaded.processor.image_token_id
    assert [image, *[token for token in made if token != image]] == loaded.token_ids([prompt])[0]
    words = "<loc0010><loc0020><loc0030><loc0040> cup"
    (ids,) = answers_token_ids(loaded, prompt, [words])
    assert ids[:4] == loaded.tokenizer.convert_tokens_to_ids([f"<loc00{k}0>" for k in (1, 2, 3, 4)])
    assert loaded.tokenizer.decode(ids, skip_special_tokens=True) == words


@pytest.mark.parametrize(("kind", "end"), [("idefics3", "<end_of_utterance>"), ("llava_onevision", "<|im_end|>")])
def test_answers_end_as_the_family_ends_them(kind, end, checkpoints):
    loaded = load_model(str(checkpoints(kind)), device="cpu")
    prompt = render_prompt(loaded, "Where?")
    (ids,) = answers_token_ids(loaded, prompt, ["there"])
    separator = " " if prompt.endswith(":") else ""
    assert loaded.tokenizer.decode(ids) == f"{separator}there{end}"
    assert ids[-1] in loaded.end_ids


def test_image_tokens_are_those_of_the_batch(loaded, pictures):
    """Also of tiles' marks, which are no image tokens themselves."""
    prompt = render_prompt(loaded, "Where?")
    text = len(loaded.token_ids([prompt])[0]) - 1
    for picture in pictures:
        whole = loaded.encode([prompt], [picture]).input_ids.shape[1]
        assert loaded.image_tokens(picture.size) == whole - text


def test_an_image_of_every_shape_can_be_asked_about(loaded):
    """From a thin line to a large page."""
    for size in [(1, 1), (300, 3), (3, 300), (333, 257)]:
        noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        prompt = render_prompt(loaded, "Where?")
        inputs = loaded.encode([prompt], [Image.fromarray(noise)])
        assert loaded.model(**inputs).logits.isfinite().all()


def test_the_documented_table_is_the_code_s_and_every_row_is_tested():
    documented = (ROOT / "docs" / "families.md").read_text()
    assert families_table.table() in documented
    built = (Path(__file__).parent / "conftest.py").read_text()
    for model_type in families.FAMILIES:
        assert f"def {model_type}()" in built or model_type == "llava"
