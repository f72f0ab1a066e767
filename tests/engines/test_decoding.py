"""Candidates from one prefill are what the model would have given one by one."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perpo.engines.decoding import _choose, question_uniforms, sample_candidates
from perpo.models.logps import repeated_logps
from perpo.tiny.model import TINY, new_model, new_processor
from tests.support import ROOT

WORDS = ["circle", " red circle left of", " ", " the large blue square above the small red circle", "left"]
PROMPTS = [f"USER: <image>\nwhere is the{words} ASSISTANT:" for words in WORDS]
# Enough of the vocabulary that answers of random weights end at different lengths.
ENDS = set(range(2, 500, 9))


@pytest.fixture(scope="module")
def processor():
    return new_processor(TINY, [" ".join(PROMPTS)])


@pytest.fixture(scope="module")
def model(processor):
    model = new_model(TINY, processor)
    with torch.no_grad():  # so that the logits depend on all that was read
        for name, weight in model.model.language_model.named_parameters():
            weight.mul_(5 if "proj" in name or "embed" in name else 1)
    return model


@pytest.fixture(scope="module")
def inputs(processor):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)) for _ in PROMPTS]
    batch = dict(processor(images=images, text=PROMPTS, padding=True, return_tensors="pt"))
    assert batch["attention_mask"].sum(1).unique().numel() > 3  # prefixes are unequal
    return batch


def draw(model, inputs, *, branches=6, steps=12, questions=None, **settings):
    questions = range(len(inputs["input_ids"])) if questions is None else questions
    uniforms = np.stack([question_uniforms(7, question, branches, steps) for question in questions])
    options = {"temperature": 1.0, "top_p": 1.0, "end_ids": ENDS} | settings
    return sample_candidates(model, inputs, torch.from_numpy(uniforms), **options)


def alone(inputs, row):
    """One question without the others and without their padding."""
    length = int(inputs["attention_mask"][row].sum())
    return {
        name: value[row : row + 1] if name == "pixel_values" else value[row : row + 1, -length:]
        for name, value in inputs.items()
    }


def assert_equals_repeated(model, inputs, found, *, tolerance):
    """Each log-prob is that of a plain forward of prompt and answer, once more for every answer."""
    placeholder = model.config.image_token_id  # in an answer it would stand for a second image there
    found = [[c for c in answers if placeholder not in c.token_ids] for answers in found]
    prefixes = [alone(inputs, row)["input_ids"][0].tolist() for row in range(len(found))]
    with torch.no_grad():
        expected = repeated_logps(
            model,
            prefixes,
            [[c.token_ids for c in answers] for answers in found],
            [{"pixel_values": pixels[None]} for pixels in inputs["pixel_values"]],
            pad_id=3,
        )
    for answers, row in zip(found, expected, strict=True):
        assert answers
        logps = torch.tensor([c.logp for c in answers])
        torch.testing.assert_close(logps, row[: len(answers)], atol=tolerance, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_greedy_equals_generate(model, inputs, attention):
    model.set_attn_implementation(attention)
    generated = model.generate(**inputs, do_sample=False, max_new_tokens=12, eos_token_id=sorted(ENDS))
    model.set_attn_implementation("sdpa")
    new = generated[:, inputs["input_ids"].shape[1] :].tolist()
    found = draw(model, inputs, branches=1, temperature=0.0)
    lengths = [len(answers[0].token_ids) for answers in found]
    assert len(set(lengths)) > 1  # rows end at different steps
    for [candidate], tokens in zip(found, new, strict=True):
        assert candidate.token_ids == tokens[: len(candidate.token_ids)]
        assert candidate.truncated == (tokens[-1] not in ENDS and len(candidate.token_ids) == 12)
        assert all(token == model.config.text_config.pad_token_id for token in tokens[len(candidate.token_ids) :])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 0.7)])
def test_log_probs_are_those_of_the_repeated_forward(model, inputs, attention, temperature, top_p):
    model.set_attn_implementation(attention)
    found = draw(model, inputs, temperature=temperature, top_p=top_p)
    assert_equals_repeated(model, inputs, found, tolerance=1e-4)
    model.set_attn_implementation("sdpa")
    assert len({len(c.token_ids) for answers in found for c in answers}) > 5  # branches end at different steps


def test_a_candidate_ends_with_its_end_token_or_is_marked_as_truncated(model, inputs):
    for candidate in (candidate for answers in draw(model, inputs) for candidate in answers):
        assert not ENDS & set(candidate.token_ids[:-1])
        assert candidate.truncated == (candidate.token_ids[-1] not in ENDS)
        assert len(candidate.token_ids) == 12 or not candidate.truncated


def test_the_image_and_the_prompt_run_once_per_question(model, inputs):
    images, tokens = [], []
    hooks = [
        model.model.vision_tower.register_forward_pre_hook(
            lambda _, args, kwargs: images.append(len((*args, *kwargs.values())[0])), with_kwargs=True
        ),
        model.model.language_model.register_forward_pre_hook(
            lambda _, args, kwargs: tokens.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
        ),
    ]
    found = draw(model, inputs)
    for hook in hooks:
        hook.remove()
    assert images == [len(PROMPTS)]
    prefill, *steps = tokens
    assert prefill == tuple(inputs["input_ids"].shape)
    # Every later step runs at most one token of every branch that has not ended.
    live = [[sum(len(c.token_ids) > step for c in answers) for answers in found] for step in range(1, 12)]
    expected = [(sum(map(bool, of_step)), max(of_step)) for of_step in live]
    assert steps == [shape for shape in expected if shape[0]]


def test_neither_the_batch_nor_the_number_of_branches_changes_an_answer(model, inputs):
    together = draw(model, inputs, branches=6)
    for row, expected in enumerate(together):
        [found] = draw(model, alone(inputs, row), branches=4, questions=[row])
        assert [c.token_ids for c in found] == [c.token_ids for c in expected[:4]]
        assert [c.logp for c in found] == pytest.approx([c.logp for c in expected[:4]], abs=1e-4)


def test_a_model_in_bfloat16_agrees_with_its_repeated_forward_to_its_precision(processor, inputs):
    half = new_model(TINY, processor).bfloat16()
    inputs = inputs | {"pixel_values": inputs["pixel_values"].bfloat16()}
    found = draw(half, inputs, branches=2)
    assert_equals_repeated(half, inputs, found, tolerance=0.2)


@pytest.mark.slow
def test_one_prefill_needs_a_third_of_the_memory_of_generate():
    script = ROOT / "benchmarks" / "prefill_once.py"
    out = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True, timeout=300).stdout
    [(_, memory)] = re.findall(r"^ratio +([0-9.]+) x +([0-9.]+) x$", out, re.MULTILINE)
    assert float(memory) >= 3


def softmax(logits, temperature):
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def nucleus(probabilities, top_p):
    """The fewest most probable tokens that reach top_p, by adding them up one by one."""
    kept, total = [], 0.0
    for token in np.argsort(-probabilities, kind="stable"):
        if total >= top_p:
            break
        kept.append(token)
        total += probabilities[token]
    cut = np.zeros_like(probabilities)
    cut[kept] = probabilities[kept]
    return cut / cut.sum()


def choose(logits, uniforms, temperature, top_p):
    uniforms = torch.as_tensor(uniforms, dtype=torch.float64)[None]
    logits = torch.as_tensor(logits, dtype=torch.float32).expand(1, uniforms.shape[1], -1)
    return [values[0].numpy() for values in _choose(logits, uniforms, temperature, top_p)]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.35])
def test_the_share_of_each_token_is_its_probability(temperature, top_p):
    # Inverting the distribution on an even grid of K numbers gives each token K p times, give or take one.
    logits = np.random.default_rng(3).normal(size=40) * 2
    points = 20_000
    chosen, logp = choose(logits, (np.arange(points) + 0.5) / points, temperature, top_p)
    expected = nucleus(softmax(logits, temperature), top_p)
    counts = np.bincount(chosen, minlength=40)
    assert np.abs(counts - points * expected).max() <= 1.1
    np.testing.assert_allclose(logp, np.log(softmax(logits, 1.0))[chosen], atol=1e-5)


@settings(max_examples=200, deadline=None)
@given(
    logits=st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=30),
    uniform=st.sampled_from([0.0, 1 - 2**-53]) | st.floats(0, 1, exclude_max=True),
    temperature=st.floats(0.05, 5),
    top_p=st.floats(0.01, 1),
)
def test_no_token_without_probability_is_ever_drawn(logits, uniform, temperature, top_p):
    [chosen], [logp] = choose(logits, [uniform], temperature, top_p)
    probabilities = softmax(logits, temperature)
    # Tokens before this one in order of probability must not have reached top_p yet.
    before = probabilities[probabilities > probabilities[chosen] * (1 + 1e-5)].sum()
    assert before < top_p + 1e-5
    assert probabilities[chosen] > 0
    assert np.isfinite(logp)


def test_temperature_0_takes_the_most_probable_token():
    chosen, logp = choose([0.1, 3.0, 2.9], [0.0, 0.99], 0.0, 1.0)
    assert chosen.tolist() == [1, 1]
    np.testing.assert_allclose(logp, np.log(softmax([0.1, 3.0, 2.9], 1.0)[1]), atol=1e-6)


@given(seed=st.integers(0, 2**64 - 1), question=st.integers(0, 10**9))
def test_random_numbers_belong_to_a_seed_and_a_question(seed, question):
    numbers = question_uniforms(seed, question, 5, 8)
    assert numbers.shape == (5, 8)
    assert ((numbers >= 0) & (numbers < 1)).all()
    np.testing.assert_array_equal(question_uniforms(seed, question, 3, 8), numbers[:3])
    assert not np.isin(question_uniforms(seed, question + 1, 5, 8), numbers).any()
    assert not np.isin(question_uniforms((seed + 1) % 2**64, question, 5, 8), numbers).any()


def test_random_numbers_are_uniform():
    numbers = np.concatenate([question_uniforms(1, question, 20, 10).ravel() for question in range(500)])
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    chi2 = ((counts - 5000) ** 2 / 5000).sum()
    assert chi2 < 43.8  # the 99.9% point for 19 degrees of freedom
