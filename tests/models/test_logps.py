"""The head in chunks gives what plain logits give, and never holds them all."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from perpo.models import logps
from perpo.models.loading import load_model
from perpo.models.logps import candidate_logps, repeated_logps
from perpo.models.lora import add_lora
from perpo.models.prefix import pack, packed_inputs

LENGTHS = [[6, 1, 11], [4]]
CHUNK = 5  # of the 22 tokens, so that the last is not full


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(logps, "_CHUNK", CHUNK)


@pytest.fixture
def loaded(small_model):
    loaded = load_model(str(small_model), device="cpu")
    torch.nn.init.normal_(loaded.model.get_output_embeddings().weight, std=0.5)
    return loaded


def make_lists(loaded):
    generator = torch.Generator().manual_seed(0)

    def text(length):
        return torch.randint(10, 300, (length,), generator=generator).tolist()

    image = [loaded.processor.image_token_id] * loaded.model.config.image_seq_length
    prefixes = [[*image, *text(9)], [*image, *text(4)]]
    answers = [[text(length) for length in lengths] for lengths in LENGTHS]
    return prefixes, answers, [{"pixel_values": torch.randn(1, 3, 32, 32, generator=generator)} for _ in LENGTHS]


def chunked(model, prefixes, answers, images):
    return candidate_logps(model, pack(prefixes, answers, pad_id=3), images, candidates=3)


def plain(model, prefixes, answers, images):
    """The same pass with a log-softmax of all logits, read off candidate by candidate."""
    packed = pack(prefixes, answers, pad_id=3)
    words = model(**packed_inputs(model, packed, images)).logits.log_softmax(-1)
    width = packed["prefix_ids"].shape[1]
    sums = words.new_zeros(len(prefixes), 3)
    for b, lists in enumerate(answers):
        start = width
        for n, answer in enumerate(lists):
            places = [width - 1, *range(start, start + len(answer) - 1)]
            sums[b, n] = words[b, places, answer].sum()
            start += len(answer)
    return sums


def gradients(model, found):
    model.zero_grad()
    (found * torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, 0.0]])).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("trained", ["everything", "lora"])
def test_values_and_gradients_are_those_of_all_logits_at_once(loaded, trained):
    """Everything: the head's weights, tied to the embeddings, get their gradient too."""
    model = loaded.model
    if trained == "lora":
        model = add_lora(loaded, r=4, alpha=8, dropout=0.0, train_projector=True)
    lists = make_lists(loaded)
    expected = plain(model, *lists)
    found = chunked(model, *lists)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    expected_gradients, found_gradients = gradients(model, expected), gradients(model, found)
    assert found_gradients.keys() == expected_gradients.keys()
    assert ("lm_head.weight" in found_gradients or "embed_tokens" in str(found_gradients.keys())) == (
        trained == "everything"
    )
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_an_adapter_on_the_head_is_used_and_trained(loaded):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=["lm_head"], init_lora_weights=False)
    model = get_peft_model(loaded.model, config)
    lists = make_lists(loaded)
    expected, found = plain(model, *lists), chunked(model, *lists)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    expected_gradients, found_gradients = gradients(model, expected), gradients(model, found)
    assert [name for name in expected_gradients if "lora" in name]
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


class WithWords(TorchDispatchMode):
    """Notes the most rows of any floating-point tensor as wide as the vocabulary."""

    def __init__(self, words):
        super().__init__()
        self.words, self.rows = words, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.t.default:  # the head's weights, looked at from the side
            return result
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor) and each.is_floating_point() and each.shape[-1:] == (self.words,):
                self.rows = max(self.rows, each.numel() // self.words)
        return result


def test_no_tensor_holds_the_logits_of_more_than_a_chunk(loaded):
    model = add_lora(loaded, r=4, alpha=8, dropout=0.0, train_projector=True)
    lists = make_lists(loaded)
    with WithWords(len(loaded.tokenizer)) as seen:
        gradients(model, chunked(model, *lists))
    assert seen.rows == CHUNK
    with WithWords(len(loaded.tokenizer)) as seen:
        gradients(model, plain(model, *lists))
    assert seen.rows > 22  # the counter counts


def test_capped_logits_are_all_taken_at_once_and_exact(loaded, monkeypatch):
    """A model that caps its logits behind the head, as PaliGemma 2 does."""
    model = loaded.model
    model.config.text_config.final_logit_softcapping = 2.0
    run = type(model).forward

    def capped(self, *args, **kwargs):
        output = run(self, *args, **kwargs)
        output.logits = torch.tanh(output.logits / 2.0) * 2.0
        return output

    monkeypatch.setattr(type(model), "forward", capped)
    lists = make_lists(loaded)
    with torch.no_grad():
        found = chunked(model, *lists)
        torch.testing.assert_close(found, plain(model, *lists), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found, repeated_logps(model, *lists, pad_id=3), atol=1e-4, rtol=0)


def test_the_head_is_as_it_was_even_after_an_error(loaded, monkeypatch):
    head = loaded.model.get_output_embeddings()
    prefixes, answers, images = make_lists(loaded)
    chunked(loaded.model, prefixes, answers, images)
    assert "forward" not in vars(head)
    held = head.forward
    head.forward = held  # as accelerate's hooks do it
    with pytest.raises(ValueError, match="Image features and image tokens do not match"):
        chunked(loaded.model, [prefixes[0], [5]], answers, images)
    assert vars(head)["forward"] is held
