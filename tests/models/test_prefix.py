"""The shared prefix gives what the plain repeated forward gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from perpo.models.loading import load_model
from perpo.models.logps import candidate_logps, repeated_logps
from perpo.models.lora import add_lora
from perpo.models.prefix import attention_mask, pack
from perpo.tiny.model import TINY, save_random_model

PREFIX_LENGTHS = [9, 17, 5]
CANDIDATE_LENGTHS = [[6, 1, 11], [4], [3, 3, 8, 2, 5]]
CANDIDATES = max(map(len, CANDIDATE_LENGTHS))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("model"), TINY)


@pytest.fixture
def loaded(checkpoint):
    return load_model(str(checkpoint), device="cpu")


@pytest.fixture
def peft_model(loaded):
    model = add_lora(loaded, r=4, alpha=8, dropout=0.0, train_projector=True)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide everything behind it
            nn.init.normal_(parameter, std=0.05, generator=generator)
    return model


def make_batch(loaded, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def text(length):
        return torch.randint(10, 300, (length,), generator=generator).tolist()

    image = [loaded.processor.image_token_id] * loaded.model.config.image_seq_length
    prefixes = [[*text(2), *image, *text(length)] for length in PREFIX_LENGTHS]
    candidates = [[text(length) for length in lengths] for lengths in CANDIDATE_LENGTHS]
    pixels = torch.randn(len(prefixes), 3, TINY.image_size, TINY.image_size, generator=generator)
    return prefixes, candidates, [{"pixel_values": one[None]} for one in pixels]


def shared(model, prefixes, candidates, images):
    packed = pack(prefixes, candidates, pad_id=3)
    return candidate_logps(model, packed, images, candidates=CANDIDATES)


def gradients(model, logps):
    """Gradients of a sum in which every candidate counts differently."""
    weights = torch.arange(1.0, logps.numel() + 1).reshape(logps.shape)
    model.zero_grad()
    (weights * logps).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_log_probs_and_gradients_equal_those_of_the_repeated_forward(loaded, peft_model, padding_side, checkpointing):
    batch = make_batch(loaded)
    repeated = repeated_logps(peft_model, *batch, pad_id=3, padding_side=padding_side)
    expected = gradients(peft_model, repeated)
    if checkpointing:
        peft_model.gradient_checkpointing_enable({"use_reentrant": False})
        peft_model.train()
    logps = shared(peft_model, *batch)
    found = gradients(peft_model, logps)

    torch.testing.assert_close(logps, repeated, atol=1e-4, rtol=0)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.norm() > 0, name
        assert (found[name] - gradient).norm() <= 1e-3 * gradient.norm(), name


def test_eager_attention_gives_the_same(loaded):
    batch = make_batch(loaded)
    with torch.no_grad():
        sdpa = shared(loaded.model, *batch)
        loaded.model.set_attn_implementation("eager")
        eager = shared(loaded.model, *batch)
    torch.testing.assert_close(eager, sdpa, atol=1e-4, rtol=0)


def test_log_probs_are_those_of_a_softmax_written_out(loaded):
    prefixes, candidates, images = make_batch(loaded)
    with torch.no_grad():
        logps = shared(loaded.model, prefixes, candidates, images)
        answer = candidates[0][2]
        ids = torch.tensor([[*prefixes[0], *answer]])
        logits = loaded.model(input_ids=ids, pixel_values=images[0]["pixel_values"]).logits[0].double()
    start = len(prefixes[0]) - 1
    expected = sum(logits[start + i].log_softmax(-1)[token] for i, token in enumerate(answer))
    assert logps[0, 2].item() == pytest.approx(expected.item(), abs=1e-4)
    assert logps[1, 1:].tolist() == [0.0] * (CANDIDATES - 1)


def test_candidates_do_not_see_each_other(loaded):
    prefixes, candidates, images = make_batch(loaded)
    with torch.no_grad():
        before = shared(loaded.model, prefixes, candidates, images)
        candidates[2][1] = [token + 1 for token in candidates[2][1]]
        after = shared(loaded.model, prefixes, candidates, images)
    changed = (before - after).abs() > 1e-4
    assert changed.nonzero().tolist() == [[2, 1]]


def test_a_bfloat16_model_agrees_to_its_precision(checkpoint):
    loaded = load_model(str(checkpoint), dtype="bfloat16", device="cpu")
    prefixes, candidates, images = make_batch(loaded)
    images = [{"pixel_values": image["pixel_values"].bfloat16()} for image in images]
    with torch.no_grad():
        logps = shared(loaded.model, prefixes, candidates, images)
        repeated = repeated_logps(loaded.model, prefixes, candidates, images, pad_id=3)
    assert logps.dtype == torch.float32
    torch.testing.assert_close(logps, repeated, atol=0.2, rtol=0)


def test_the_layout():
    packed = pack([[7, 8], [9]], [[[1], [2, 3]], [[4, 5, 6]]], pad_id=0)
    assert packed["prefix_ids"].tolist() == [[7, 8], [0, 9]]
    assert packed["prefix_mask"].tolist() == [[True, True], [False, True]]
    assert packed["answer_ids"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert packed["candidate"].tolist() == [[1, 2, 2], [1, 1, 1]]
    assert packed["offset"].tolist() == [[0, 0, 1], [0, 1, 2]]


def test_the_mask_shows_the_prefix_and_the_own_candidate():
    segments = torch.tensor([[-1, 0, 0, 1, 2, 2, -1]])
    mask = attention_mask(segments, torch.float32)
    assert (mask[0, 0] == 0).int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 0, 1, 0, 0],
        [0, 1, 1, 0, 1, 1, 0],
        [1, 0, 0, 0, 0, 0, 1],
    ]
    assert torch.equal(attention_mask(segments, torch.float32, queries=3), mask[:, :, 4:])
    assert mask.min() == torch.finfo(torch.float16).min
