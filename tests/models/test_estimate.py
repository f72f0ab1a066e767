"""Costs that are told without weights, against what a real model has and does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from perpo.errors import PerpoError
from perpo.models.checkpoints import checkpoint_dir
from perpo.models.costs import BANDWIDTH_SHARE, COMPUTE_SHARE, GPUS, TrainingPlan, WorkCost, assumed, gpu_of, total
from perpo.models.estimate import AskedSize, Estimator, Load
from perpo.models.loaded import LoadedModel, render_prompt
from perpo.models.loading import load_model
from perpo.models.lora import add_lora
from perpo.models.memory import cast, fixed
from perpo.models.prefix import base_model
from tests.support.ocr_checkpoint import image_tokens, write_ocr_checkpoint

ASKED = [
    AskedSize("OCR this image:", (1083, 1400), "the text of a page"),
    AskedSize("OCR this image:", (1400, 1083), "the text"),
    AskedSize("Read it all:", (1083, 1400), "one more page with more text"),
]


@pytest.fixture(scope="module", params=["tiny", "ocr"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_dir() if request.param == "tiny" else write_ocr_checkpoint(tmp_path_factory.mktemp("ocr"))


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> LoadedModel:
    return load_model(str(checkpoint))


@pytest.fixture(scope="module")
def estimator(checkpoint: Path) -> Estimator:
    return Estimator(str(checkpoint), GPUS["H100"])


def test_parameters_are_those_of_the_model(loaded: LoadedModel, estimator: Estimator) -> None:
    assert estimator.total == sum(parameter.numel() for parameter in loaded.model.parameters())
    parts = estimator.parameters
    assert parts["vision"] == sum(p.numel() for n, p in loaded.model.named_parameters() if "vision_tower" in n)
    assert parts["projector"] == sum(p.numel() for n, p in loaded.model.named_parameters() if "projector" in n)
    assert parts["embedding"] == loaded.model.get_input_embeddings().weight.numel()


def test_an_adapter_has_the_parameters_of_perpo_trains(checkpoint: Path, estimator: Estimator) -> None:
    model = add_lora(load_model(str(checkpoint)), r=4, alpha=8, dropout=0.0, train_projector=True)
    assert estimator.adapter_parameters(4) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_tokens_and_patches_are_those_of_the_processor(loaded: LoadedModel, estimator: Estimator) -> None:
    load = estimator.load(ASKED, 1000)
    batches = [loaded.encode([render_prompt(loaded, each.question)], [Image.new("RGB", each.size)]) for each in ASKED]
    lengths = [int(batch["attention_mask"].sum()) for batch in batches]
    assert (load.questions, load.prefix) == (1000, pytest.approx(sum(lengths) / 3))
    answers = [len(loaded.tokenizer(each.answer, add_special_tokens=False).input_ids) + 1 for each in ASKED]
    assert (load.answer, load.longest) == (pytest.approx(sum(answers) / 3), max(answers))
    config = loaded.model.config.vision_config
    pixels = sum(batch["pixel_values"].numel() for batch in batches) / 3
    assert load.patches == pytest.approx(pixels / 3 / config.patch_size**2, rel=0.03)  # 384 is no multiple of 14


def test_flops_are_those_that_torch_counts(loaded: LoadedModel, estimator: Estimator) -> None:
    """One picture, one prompt and one answer in one pass: torch counts all matrix products, causal ones in full."""
    load = estimator.load(ASKED[:1])
    loaded.model.set_attn_implementation("eager")  # of the CPU's own attention torch counts nothing
    batch = loaded.encode([render_prompt(loaded, ASKED[0].question)], [Image.new("RGB", ASKED[0].size)])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        loaded.model(**batch.to(loaded.model.dtype), logits_to_keep=1)
    cost = estimator.sampling(Load(1, load.patches, load.prefix, 0, 0), 1, 1)
    text = loaded.model.config.get_text_config()
    causal = 4 * text.num_hidden_layers * text.hidden_size * load.prefix**2 / 2  # what the mask hides is not needed
    assert cost.flops + causal == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_kept_tokens_take_the_bytes_of_the_cache(loaded: LoadedModel, estimator: Estimator) -> None:
    batch = loaded.encode([render_prompt(loaded, "Read:")], [Image.new("RGB", (64, 64))])
    with torch.no_grad():
        cache = loaded.model(**batch.to(loaded.model.dtype), use_cache=True).past_key_values
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert estimator.sizes.cache(batch["input_ids"].shape[1], 2) == 2 * held


def test_costs_grow_as_work_does(estimator: Estimator) -> None:
    load = Load(100, 500, 600, 200, 300)
    one, five = (estimator.sampling(load, candidates, 1) for candidates in (1, 5))
    assert five.tokens == 100 * (600 + 5 * 200)
    assert one.flops < five.flops < 5 * one.flops  # the prefix is read once
    assert estimator.sampling(load.of(200), 5, 1).flops == pytest.approx(2 * five.flops)
    plan = TrainingPlan(r=8, again=True)
    train = estimator.training(load, 5, plan)
    assert estimator.training(load, 5, replace(plan, epochs=2.0)).flops == pytest.approx(2 * train.flops)
    assert estimator.training(load, 5, replace(plan, reference=False)).flops < train.flops
    whole = estimator.training(load, 1, replace(plan, whole=True, reference=False))
    assert whole.disk == pytest.approx(4 * estimator.total)


def test_memory_of_a_training_by_what_trains(estimator: Estimator) -> None:
    """On one token activations are little, so that weights, gradients and the optimizer's state are told apart."""
    load, total, parts = Load(9, 1, 1, 1, 1), estimator.total, estimator.parameters
    adapter, projector = estimator.adapter_parameters(8), parts["projector"]
    plan = TrainingPlan(r=8, again=True)
    expected = {
        plan: 2 * total + 20 * adapter,
        replace(plan, size=4): 4 * total + 20 * adapter,
        replace(plan, projector=False): 2 * total + 20 * (adapter - projector),
        replace(plan, language=False): 2 * total + 20 * projector,
        replace(plan, other=1000): 2 * total + 20 * adapter + 1000,
        replace(plan, whole=True): 4 * total + 16 * (total - parts["vision"]),
        replace(plan, whole=True, projector=False): 4 * total + 16 * (total - parts["vision"] - projector),
    }
    for each, memory in expected.items():
        beside = estimator.sizes.training(1, 1, 1, each) + cast(adapter, 0, parts["head"], each)
        assert memory <= estimator.training(load, 1, each).memory <= memory + beside
    quantised = sum(layer.weight.numel() for layer in estimator._adapted)
    told = fixed(total, quantised, 0, replace(plan, bits=4, double_quant=False))
    assert told == 4 * (total - quantised) + quantised * (0.5 + 4 / 64)


def test_activations_grow_with_tokens_up_to_a_budget(estimator: Estimator) -> None:
    plan = TrainingPlan(batch=2)
    one, two = (estimator.sizes.training(600, 100, 64, replace(plan, batch=rows)) for rows in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.01)
    assert one <= estimator.sizes.training(600, 100, 64, replace(plan, most=700)) < two
    layers = (estimator.sizes.layers - 1) * estimator.sizes.saved_layer(1400, plan)
    assert estimator.sizes.training(600, 100, 64, replace(plan, again=True)) < two - layers / 2


def test_what_a_layer_keeps_is_what_autograd_saves() -> None:
    """Tensors that the backward pass waits for, counted, against their formula; in both precisions."""
    for size, dtype in ((4, "float32"), (2, "bfloat16")):
        loaded = load_model(str(checkpoint_dir()), dtype=dtype)
        estimator = Estimator(str(checkpoint_dir()))
        model = add_lora(loaded, r=4, alpha=8, dropout=0.0, train_projector=True)
        batch = loaded.encode([render_prompt(loaded, "Read:")], [Image.new("RGB", (64, 64))]).to(loaded.model.dtype)
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        held: dict[int, torch.Tensor] = {}

        def note(tensor: torch.Tensor, held: dict = held) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        layers = len(base_model(model).get_decoder().layers)
        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=size == 2),
        ):
            output = model(**batch, logits_to_keep=1, use_cache=False)
        assert output.logits.requires_grad
        kept = sum(each.untyped_storage().nbytes() for at, each in held.items() if at not in own)
        tokens = batch["input_ids"].shape[1]
        plan = TrainingPlan(r=4, size=size)
        told = layers * estimator.sizes.saved_layer(tokens, plan)
        sizes = estimator.sizes
        told += tokens * (size * (sizes.seeing_width + 2 * sizes.width) + 4 * sizes.width)  # projector, last norm
        told += cast(estimator.adapter_parameters(4), 0, 0, plan)
        assert told == pytest.approx(kept, rel=0.05)


def test_hours_are_flops_and_bytes_over_what_is_reached(estimator: Estimator) -> None:
    load = Load(10, 500, 600, 200, 300)
    cost = estimator.sampling(load, 4, 5)
    gpu = GPUS["H100"]
    each_step = 2 * estimator._running + estimator.sizes.cache(5 * (600 + 4 * 100), 2)
    expected = cost.flops / (gpu.flops * COMPUTE_SHARE) + 2 * 300 * each_step / (gpu.bandwidth * BANDWIDTH_SHARE)
    assert cost.seconds == pytest.approx(expected)
    assert any("measured on no GPU" in note for note in assumed(gpu))


def test_sums_and_names() -> None:
    costs = [WorkCost(1, 2, 3.0, 4, 5), WorkCost(10, 20, 30.0, 2, 50)]
    assert total(costs) == WorkCost(11, 22, 33.0, 4, 55)
    assert total([*costs, WorkCost(0, 0, None, 0, 0)]).seconds is None
    assert gpu_of("h100") is GPUS["H100"]
    with pytest.raises(PerpoError, match="no GPU is known"):
        gpu_of("H1000")


def test_pages_of_the_ocr_model_have_their_tiles(tmp_path: Path) -> None:
    estimator = Estimator(str(write_ocr_checkpoint(tmp_path)))
    load = estimator.load([AskedSize("OCR this image:", (1083, 1400), "a")])
    words = len("<|im_start|>")  # more than the few tokens of the words
    assert image_tokens(1083, 1400) < load.prefix < image_tokens(1083, 1400) + 4 * words
    assert estimator.sampling(load, 1, 1).seconds is None
