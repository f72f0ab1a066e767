"""Attention that leaves out what the mask hides gives what the mask gives."""

from __future__ import annotations

import types

import pytest
import torch
from torch.nn.attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from perpo.models import attention
from perpo.models.attention import (
    attention_forward,
    attention_of,
    block_mask,
    set_attention,
    sparse_mask,
    splitting_pays,
)
from perpo.models.loading import load_model
from perpo.models.logps import candidate_logps, repeated_logps
from perpo.models.lora import add_lora
from perpo.models.prefix import attention_mask, pack

# Padding on either side, candidates of one token, of many, and a single one.
SEGMENTS = torch.tensor([[-1] * 2 + [0] * 9 + [1] * 3 + [2] + [3] * 6 + [-1] * 3, [0] * 11 + [1] * 13])
LAYER = types.SimpleNamespace(num_key_value_groups=2, is_causal=True, training=True)


def states(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, heads, SEGMENTS.shape[1], 8, generator=generator).to(dtype).requires_grad_()
        for heads in (4, 2, 2)
    ]


def outcome(attend, parts):
    """The attention of all real tokens, and the gradients of its weighted sum."""
    real = (SEGMENTS >= 0)[..., None, None]
    result = torch.where(real, attend(*parts), 0)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    return result, *torch.autograd.grad((result * weights).sum(), parts)


def expected(*parts):
    """Softmax written out in double precision, over just what each token may see."""
    query, key, value = (part.double() for part in parts)
    key, value = key.repeat_interleave(2, dim=1), value.repeat_interleave(2, dim=1)
    hidden = attention_mask(SEGMENTS, torch.float64) < 0
    scores = (query @ key.transpose(-1, -2) * 0.3).masked_fill(hidden, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 0.05)])
def test_split_attention_and_its_gradients(dtype, tolerance):
    def split(*parts):
        result, weights = attention_forward(LAYER, *parts, SEGMENTS[:, None, None], scaling=0.3)
        assert weights is None
        assert result.dtype == dtype
        return result

    found, wanted = outcome(split, states(dtype)), outcome(expected, states(dtype))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other.double(), atol=tolerance, rtol=tolerance)


def test_flex_attention_and_its_gradients(monkeypatch):
    """Not compiled, and let pass on the CPU, where torch itself would refuse to train with it."""
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setattr(
        "transformers.integrations.flex_attention.compile_friendly_flex_attention",
        lambda *args, training, **kwargs: flex_attention.flex_attention(*args, **kwargs),
    )

    def flex(*parts):
        return attention_forward(LAYER, *parts, block_mask(SEGMENTS), scaling=0.3)[0]

    for one, other in zip(outcome(flex, states()), outcome(expected, states()), strict=True):
        torch.testing.assert_close(one.double(), other.double(), atol=2e-6, rtol=2e-6)


def test_flex_attention_skips_blocks_of_others_and_of_padding():
    """Blocks of 128: left padding, prefix, three candidates, right padding, each one block."""
    segments = torch.tensor([-1, 0, 1, 2, 3, -1]).repeat_interleave(128)[None]
    dense = block_mask(segments).to_dense()[0, 0]
    assert dense.tolist() == [
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 1, 0, 1, 0, 0],
        [0, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_any_other_mask_goes_to_sdpa():
    query, key, value = states()
    key, value = (part.repeat_interleave(2, dim=1) for part in (key, value))
    layer = types.SimpleNamespace(is_causal=True)
    for mask in (None, attention_mask(SEGMENTS, torch.float32)):
        found, _ = attention_forward(layer, query, key, value, mask)
        wanted = scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
        assert torch.equal(found, wanted.transpose(1, 2))


@pytest.fixture
def loaded(small_model):
    loaded = load_model(str(small_model), device="cpu")
    set_attention(loaded.model)
    return loaded


def make_lists(loaded):
    generator = torch.Generator().manual_seed(0)

    def text(length):
        return torch.randint(10, 300, (length,), generator=generator).tolist()

    image = [loaded.processor.image_token_id] * loaded.model.config.image_seq_length
    prefixes = [[*text(2), *image, *text(length)] for length in (9, 17, 5)]
    answers = [[text(length) for length in lengths] for lengths in ([6, 1, 11], [4], [3, 3, 8, 2, 5])]
    return prefixes, answers, [{"pixel_values": torch.randn(1, 3, 32, 32, generator=generator)} for _ in prefixes]


class Largest(TorchDispatchMode):
    """Notes how many entries the largest mask or table of scores has: what is as wide as it is high."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor) and each.ndim > 1 and each.shape[-1] == each.shape[-2] != 32:
                self.entries = max(self.entries, each.shape[-1])
        return result


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_that_splits_agrees_with_the_repeated_forward(loaded, monkeypatch, checkpointing):
    monkeypatch.setattr(attention, "_LEAST_HIDDEN", -1)
    model = add_lora(loaded, r=4, alpha=8, dropout=0.0, train_projector=True)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    prefixes, answers, images = make_lists(loaded)

    def gradients(logps):
        model.zero_grad()
        (logps * torch.arange(1.0, 16).reshape(3, 5)).sum().backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    repeated = repeated_logps(model, prefixes, answers, images, pad_id=3)
    wanted = gradients(repeated)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    with Largest() as largest:
        found = candidate_logps(model, pack(prefixes, answers, pad_id=3), images, candidates=5)
        got = gradients(found)
    assert largest.entries < 30  # of 45 columns
    torch.testing.assert_close(found, repeated, atol=1e-5, rtol=1e-5)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-4, rtol=1e-4, msg=name)


def test_short_lists_keep_the_dense_mask_and_long_ones_do_not(loaded):
    short, long = (torch.tensor([0] * length + [1] * 20 + [2] * 20)[None] for length in (90, 636))
    assert not splitting_pays(short)
    assert splitting_pays(long)
    assert sparse_mask(loaded.model, short) is None
    assert torch.equal(sparse_mask(loaded.model, long), long[:, None, None])


def test_attention_is_named_and_dropout_keeps_it_as_it_was(loaded, small_model):
    assert attention_of(loaded.model) == "split"
    plain = load_model(str(small_model), device="cpu").model
    assert attention_of(plain) == "dense"
    assert sparse_mask(plain, torch.zeros(1, 900, dtype=torch.long)) is None
    plain.model.language_model.layers[0].self_attn.attention_dropout = 0.1
    set_attention(plain)
    assert attention_of(plain) == "dense"


def test_only_text_layers_change_and_no_checkpoint_names_it(loaded, tmp_path):
    config = loaded.model.config
    assert (config.text_config._attn_implementation, config.vision_config._attn_implementation) == (
        attention.NAME,
        "sdpa",
    )
    config.save_pretrained(tmp_path)
    assert attention.NAME not in (tmp_path / "config.json").read_text()
