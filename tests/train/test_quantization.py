"""QLoRA: what is asked of bitsandbytes. That a base in 4 bits trains was not run: it needs an NVIDIA GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.quantizers.quantizers_utils import should_convert_module

from perpo.cli.train import main
from perpo.errors import PerpoError
from perpo.models.loading import load_model, prepare
from perpo.train.arguments import TrainArguments
from perpo.train.quantization import check_machine, quantization_config


@pytest.fixture
def options(small_model):
    return {"model": str(small_model), "data": "data.jsonl", "output_dir": "out", "bits": 4}


@pytest.mark.parametrize(
    ("changes", "kind", "double", "compute"),
    [
        ({}, "nf4", True, torch.float32),
        ({"quant_type": "fp4", "double_quant": False, "bf16": True}, "fp4", False, torch.bfloat16),
    ],
)
def test_the_configuration_says_what_the_arguments_say(options, changes, kind, double, compute):
    config = quantization_config(TrainArguments(**(options | changes)))
    assert (config.load_in_4bit, config.load_in_8bit) == (True, False)
    assert config.bnb_4bit_quant_type == kind
    assert config.bnb_4bit_use_double_quant is double
    assert config.bnb_4bit_compute_dtype is compute


def test_only_the_language_models_linear_layers_are_quantised(options, small_model):
    skipped = quantization_config(TrainArguments(**options)).llm_int8_skip_modules
    model = load_model(str(small_model)).model
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    quantised = {name for name in linear if should_convert_module(name, skipped)}
    assert quantised == {name for name in linear if ".language_model.layers." in name}
    assert len(quantised) == 7


def test_what_is_not_quantised_is_kept_in_float32(small_model):
    model = load_model(str(small_model), dtype="bfloat16").model
    prepare(model)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_sixteen_bits_are_not_quantised_and_need_no_gpu(options):
    args = TrainArguments(**(options | {"bits": 16}))
    check_machine(args)
    assert quantization_config(args) is None


def test_zero3_is_refused(options, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("perpo.train.quantization.find_spec", lambda name: True)
    with pytest.raises(PerpoError, match="ZeRO-3"):
        check_machine(TrainArguments(**(options | {"deepspeed": "zero3"})))
    check_machine(TrainArguments(**(options | {"deepspeed": "zero2"})))


@pytest.mark.parametrize(("gpu", "missing"), [(False, "an NVIDIA GPU"), (True, "bitsandbytes")])
def test_a_machine_that_lacks_something_is_told(options, monkeypatch, gpu, missing):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr("perpo.train.quantization.find_spec", lambda name: None)
    with pytest.raises(PerpoError, match=f"--bits 4 needs {missing}"):
        check_machine(TrainArguments(**options))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA GPU")
def test_it_is_told_before_anything_is_read(tmp_path, capsys):
    words = ["--data", str(tmp_path / "absent.jsonl"), "--output_dir", str(tmp_path / "out"), "--bits", "4"]
    assert main(words) == 2
    assert "error: --bits 4 needs an NVIDIA GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bits": 16, "quant_type": "fp4"}, "--quant_type has no effect with --bits 16"),
        ({"bits": 16, "double_quant": False}, "--double_quant has no effect with --bits 16"),
        ({"reference": "recorded"}, "--bits 4 changes the model"),
        ({"lora_enable": False}, "--bits has no effect with --lora_enable False"),
    ],
)
def test_what_does_not_go_together_is_refused(options, changes, said):
    with pytest.raises(PerpoError, match=said):
        TrainArguments(**(options | changes))
