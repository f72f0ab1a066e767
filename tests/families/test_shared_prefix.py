"""Every family: what candidates get behind a shared prefix is what the model's own forward gives, one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from perpo.models import attention
from perpo.models.loaded import render_prompt
from perpo.models.loading import load_model
from perpo.models.logps import _say_repeated, candidate_logps, repeated_logps
from perpo.models.lora import add_lora
from perpo.models.prefix import PER_TOKEN, pack, packed_inputs, unpack
from perpo.train.arguments import TrainArguments
from perpo.train.policy import load_policy

LENGTHS = [[6, 1, 11], [4], [3, 3, 8, 2, 5], [1, 2]]
CANDIDATES = 5


def make_batch(loaded, pictures, questions):
    """Prefixes, candidates and images of lists with pictures of unequal sizes."""
    generator = torch.Generator().manual_seed(0)
    each = [loaded.encode([render_prompt(loaded, q)], [p]) for q, p in zip(questions, pictures, strict=True)]
    prefixes = [inputs["input_ids"][0].tolist() for inputs in each]
    images = [{name: value for name, value in inputs.items() if name not in PER_TOKEN} for inputs in each]
    candidates = [[torch.randint(10, 250, (k,), generator=generator).tolist() for k in ks] for ks in LENGTHS]
    return prefixes, candidates, images


@pytest.fixture
def batch(loaded, pictures, questions):
    return make_batch(loaded, pictures, questions)


def shared(model, prefixes, candidates, images):
    return candidate_logps(model, pack(prefixes, candidates, pad_id=3), images, candidates=CANDIDATES)


def with_lora(loaded):
    model = add_lora(loaded, r=4, alpha=8, dropout=0.0, train_projector=True)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide everything behind it
            nn.init.normal_(parameter, std=0.05, generator=generator)
    return model


def gradients(model, logps):
    """Gradients of a sum in which every candidate counts differently."""
    weights = torch.arange(1.0, logps.numel() + 1).reshape(logps.shape)
    model.zero_grad()
    (weights * logps).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def test_the_repeated_forward_is_the_model_s_own(loaded, batch, pictures, questions):
    """Sequences alone, with what the processor gives and without positions, as the library's users call it."""
    prefixes, candidates, images = batch
    with torch.no_grad():
        found = repeated_logps(loaded.model, prefixes, candidates, images, pad_id=3)
    for row, (prefix, picture, question) in enumerate(zip(prefixes, pictures, questions, strict=True)):
        inputs = dict(loaded.encode([render_prompt(loaded, question)], [picture]))
        for place, answer in enumerate(candidates[row]):
            longer = {"input_ids": answer, "attention_mask": [1] * len(answer)}
            longer |= {"token_type_ids": [1] * len(answer), "mm_token_type_ids": [0] * len(answer)}
            given = inputs | {
                name: torch.cat([inputs[name], torch.tensor([more])], 1)
                for name, more in longer.items()
                if name in inputs
            }
            with torch.no_grad():
                logits = loaded.model(**given).logits[0, len(prefix) - 1 : -1].double()
            expected = logits.log_softmax(-1)[range(len(answer)), answer].sum()
            assert found[row, place].item() == pytest.approx(expected.item(), abs=2e-4)


def test_log_probs_and_gradients_equal_those_of_the_repeated_forward(loaded, batch):
    model = with_lora(loaded)
    repeated = repeated_logps(model, *batch, pad_id=3)
    expected = gradients(model, repeated)
    logps = shared(model, *batch)
    found = gradients(model, logps)
    torch.testing.assert_close(logps, repeated, atol=1e-4, rtol=1e-5)
    assert found.keys() == expected.keys()
    assert any("lora" in name for name in found)
    assert any("modules_to_save" in name for name in found)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-3 * gradient.norm(), name
    assert sum(gradient.norm() > 0 for gradient in expected.values()) > len(expected) / 2


def test_the_attention_of_training_gives_the_same(name, loaded, batch, monkeypatch):
    """It splits what is causal by the order of tokens, however short; PaliGemma 2 caps scores, which SDPA cannot."""
    monkeypatch.setattr(attention, "_LEAST_HIDDEN", -1)
    model = with_lora(loaded)
    repeated = repeated_logps(model, *batch, pad_id=3)
    expected = gradients(model, repeated)
    attention.set_attention(loaded.model)
    assert attention.attention_of(loaded.model) == ("dense" if name == "paligemma2" else "split")
    logps = shared(model, *batch)
    found = gradients(model, logps)
    torch.testing.assert_close(logps, repeated, atol=1e-4, rtol=1e-5)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-3 * gradient.norm(), name


def test_training_sets_the_attention_that_the_family_can_use(name, checkpoint, tmp_path):
    policy = load_policy(TrainArguments(model=str(checkpoint), data="", output_dir=str(tmp_path)))
    expected = "dense" if name.startswith(("paligemma", "qwen3_5", "lfm2_vl")) else "split"
    assert attention.attention_of(policy.loaded.model) == expected


@pytest.mark.parametrize("kind", ["qwen3_5", "lfm2_vl"])
def test_layers_with_a_state_are_trained_with_the_prompt_repeated(kind, checkpoints, pictures, questions, capsys):
    """No mask keeps candidates apart there, and a shared prefix would show each candidate those before it."""
    loaded = load_model(str(checkpoints(kind)), device="cpu")
    prefixes, candidates, images = make_batch(loaded, pictures, questions)
    _say_repeated.cache_clear()
    with torch.no_grad():
        expected = repeated_logps(loaded.model, prefixes, candidates, images, pad_id=3)
        assert torch.equal(shared(loaded.model, prefixes, candidates, images), expected)
        packed = packed_inputs(loaded.model, pack(prefixes[:1], candidates[:1], pad_id=3), images[:1])
        logits = loaded.model(**packed).logits[0].log_softmax(-1)
    first, second, third = candidates[0]
    start = len(prefixes[0]) + len(first) + len(second)
    wrong = logits[range(start, start + len(third) - 1), third[1:]].sum()
    assert (expected[0, 2] - wrong).abs() > 1  # so that a mask would not have done
    assert (
        "note: with layers that carry a state, the prompt is repeated for each candidate\n" in capsys.readouterr().err
    )


def test_the_image_is_seen(loaded, batch):
    prefixes, candidates, images = batch
    with torch.no_grad():
        before = shared(loaded.model, prefixes, candidates, images)
        images = [image | {"pixel_values": image["pixel_values"].flip(-1)} for image in images]
        after = shared(loaded.model, prefixes, candidates, images)
    assert ((before - after).abs() > 1e-3)[before != 0].float().mean() > 0.7


def test_what_was_packed_can_be_unpacked():
    prefixes, candidates = [[7, 8], [9]], [[[1], [2, 3]], [[4, 5, 6]]]
    assert unpack(pack(prefixes, candidates, pad_id=0)) == (prefixes, candidates)


def test_lists_longer_than_a_window_are_repeated(checkpoints, pictures, questions, capsys):
    """PaliGemma 2's other layers see 64 tokens back: with candidates of 90 tokens a shared mask would show too much."""
    loaded = load_model(str(checkpoints("paligemma2")), device="cpu")
    prefixes, candidates, images = make_batch(loaded, pictures, questions)
    candidates[1] = [list(range(20, 110))]
    with torch.no_grad():
        expected = repeated_logps(loaded.model, prefixes, candidates, images, pad_id=3)
        assert torch.equal(shared(loaded.model, prefixes, candidates, images), expected)
        loaded.model.config.text_config.sliding_window = 200
        wider = repeated_logps(loaded.model, prefixes, candidates, images, pad_id=3)
    loaded.model.config.text_config.sliding_window = 64
    assert (wider - expected).abs().max() > 1e-3  # so that the window does hide something
    assert "candidates can share a prompt of up to 64 tokens" in capsys.readouterr().err
