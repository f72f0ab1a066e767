"""perpo-train merge: what it writes loads anywhere and answers alike; what does not belong together is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from perpo.cli.train import main
from perpo.common.locks import only_process
from perpo.data import read_preferences
from perpo.models.loaded import render_prompt
from perpo.models.loading import load_model
from perpo.models.logps import candidate_logps
from perpo.train.arguments import TrainArguments
from perpo.train.lists import Collator, ListDataset, choose, tokenize
from perpo.train.policy import load_policy
from perpo.train.run import train


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_records):
    root = tmp_path_factory.mktemp("data")
    answers = {"answers_gen": ["up", "down", "off"], "rewards": [0.1, 1.0, 0.4]}
    asked = [{"question": f"what{' then' * number}?", "answer": f"left {number}"} for number in range(4)]
    write_records(root, [each | answers for each in asked])
    return root


@pytest.fixture(scope="module")
def options(data, small_run):
    return small_run | {"data": str(data / "records.jsonl")}


@pytest.fixture(scope="module")
def adapter(options, tmp_path_factory):
    """A supervised adapter with its own projector."""
    output = tmp_path_factory.mktemp("sft") / "my-adapter"
    return train(TrainArguments(**options | {"method": "sft", "license": "mit"}, output_dir=str(output)))


@pytest.fixture(scope="module")
def merged(options, adapter, tmp_path_factory):
    output = tmp_path_factory.mktemp("merged") / "my-model"
    assert main(["merge", f"--model={options['model']}", f"--adapter={adapter}", f"--output={output}"]) == 0
    return output


def answers(model, processor, prompts, data):
    """Greedy answers by transformers' generate, and their first logits."""
    images = [Image.open(data / f"{n}.png") for n in range(len(prompts))]
    inputs = processor(images=images, text=prompts, padding=True, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        return processor.batch_decode(ids), model(**inputs).logits[:, -1]


def test_plain_transformers_loads_it_and_it_answers_as_the_adapter_does(merged, adapter, options, data):
    adapted = load_model(options["model"], str(adapter))
    prompts = [render_prompt(adapted, f"what{' then' * n}?") for n in range(4)]
    expected, logits = answers(adapted.model, adapted.processor, prompts, data)
    processor = AutoProcessor.from_pretrained(merged)
    processor.tokenizer.padding_side = "left"
    model, report = AutoModelForImageTextToText.from_pretrained(merged, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    found, merged_logits = answers(model.eval(), processor, prompts, data)
    assert found == expected
    torch.testing.assert_close(merged_logits, logits, atol=1e-4, rtol=1e-4)
    ours = load_model(str(merged))
    assert ours.adapter_sha256 is None
    assert answers(ours.model, ours.processor, prompts, data)[0] == expected
    base = load_model(options["model"])
    assert not torch.allclose(answers(base.model, base.processor, prompts, data)[1], logits, atol=0.1)


def test_it_is_a_whole_checkpoint_with_a_record_and_no_path_of_the_machine(merged, adapter, options):
    assert {path.name for path in merged.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "generation_config.json",
        "processor_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "merge.json",
        "README.md",
    }
    record = json.loads((merged / "merge.json").read_text())
    ours, base = load_model(str(merged)), load_model(options["model"], str(adapter))
    assert record["weights_sha256"] == ours.weights_sha256
    assert record["base"]["weights_sha256"] == base.weights_sha256
    assert record["adapter"] == {"name": "my-adapter", "sha256": base.adapter_sha256}
    assert record["training_run"]["arguments"]["method"] == "sft"
    place = str(adapter.parents[1])
    for path in merged.iterdir():
        assert place.encode() not in path.read_bytes(), path
    assert "license: mit" in (merged / "README.md").read_text()
    assert "library_name: transformers" in (merged / "README.md").read_text()


def test_the_base_type_is_kept_or_another_one_chosen(options, adapter, small_model, tmp_path):
    half = shutil.copytree(small_model, tmp_path / "half")
    weights = load_file(half / "model.safetensors")
    save_file({name: value.bfloat16() for name, value in weights.items()}, half / "model.safetensors", {"format": "pt"})
    lone = tmp_path / "lone"  # nothing says which base it was trained on
    shutil.copytree(adapter, lone)
    (lone / "training.json").unlink()
    for dtype, expected in (("base", torch.bfloat16), ("float32", torch.float32)):
        output = tmp_path / dtype
        words = ["merge", f"--model={half}", f"--adapter={lone}", f"--output={output}", f"--dtype={dtype}"]
        assert main(words) == 0
        assert {value.dtype for value in load_file(output / "model.safetensors").values()} == {expected}
        assert json.loads((output / "merge.json").read_text())["training_run"] is None


def test_wrong_pairs_and_an_existing_output_are_refused(options, adapter, small_model, tmp_path, capsys):
    other = shutil.copytree(small_model, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
    (tmp_path / "there").mkdir()
    for change, message in (
        ({"model": other}, "was trained on another model"),
        ({"adapter": tmp_path}, "does not hold an adapter"),
        ({"model": adapter}, "is an adapter, not a model"),
        ({"output": tmp_path / "there"}, "there exists"),
        ({"output": tmp_path / "taken"}, "taken is in use by another merge, process"),
        ({"dtype": "int8"}, "--dtype expects one of base, float32"),
    ):
        flags = {"model": options["model"], "adapter": adapter, "output": tmp_path / "new"} | change
        with only_process(tmp_path / "taken", "merge", beside=True):
            assert main(["merge", *(f"--{name}={value}" for name, value in flags.items())]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "\nhint: " in error
    assert {path.name for path in tmp_path.iterdir()} == {"other", "there"}


def test_a_failure_leaves_nothing(options, adapter, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no")

    monkeypatch.setattr("perpo.train.outputs.card.write_card", fail)
    words = ["merge", f"--model={options['model']}", f"--adapter={adapter}", f"--output={tmp_path / 'new'}"]
    assert main(words) == 3
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
def test_training_from_a_merged_model_has_the_reference_of_training_on_from_the_adapter(merged, adapter, options, data):
    """Preference training after SFT compares with the SFT model, however that is given."""

    def first_logps(**start):
        args = TrainArguments(**options | start, output_dir="unused")
        policy = load_policy(args)
        choices, _ = choose(args, read_preferences(args.data))
        dataset = ListDataset(tokenize(policy.loaded, choices, data), policy.loaded)
        batch = Collator(policy.loaded.tokenizer.pad_token_id)([dataset[n] for n in range(len(dataset))])
        now = candidate_logps(policy.model, batch["packed"], batch["images"], candidates=3)
        for parameter in policy.model.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
        with policy.as_reference():
            return now, candidate_logps(policy.model, batch["packed"], batch["images"], candidates=3)

    now, reference = first_logps(model=str(merged))
    other_now, other_reference = first_logps(adapter=str(adapter))
    for each in (reference, other_now, other_reference):
        torch.testing.assert_close(each, now, atol=1e-4, rtol=1e-5)
    base_now, _ = first_logps()
    assert not torch.allclose(base_now, now, atol=0.1)
