"""Training all of the language model, and references that are computed once and kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from perpo.data import read_preferences
from perpo.errors import PerpoError
from perpo.models.loading import load_model
from perpo.records.training_record import read_record
from perpo.train.arguments import TrainArguments
from perpo.train.lists import ListDataset, choose, tokenize
from perpo.train.run import train
from perpo.train.trainer import PreferenceTrainer

ANSWERS = ["[0.10, 0.20, 0.30, 0.40]", "[0.50, 0.20, 0.70, 0.40]", "nowhere"]
FULL = {"lora_enable": False}
LORA = {"lora_r": 4, "lora_alpha": 8}


@pytest.fixture
def options(small_model, image_root, tmp_path):
    """The arguments of a run of three steps over five lists."""
    rows = [
        {
            "image_path": f"{number % 2}.png",
            "question": "where is it?" + " here?" * number,
            "answer": ANSWERS[0],
            "answers_gen": ANSWERS[: 3 - number % 2],
            "rewards": [1.0, 0.5, 0.0][: 3 - number % 2],
            "reward_name": "iou",
        }
        for number in range(5)
    ]
    shutil.copytree(image_root, tmp_path / "data")
    data = tmp_path / "data" / "records.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": str(small_model),
        "data": str(data),
        "output_dir": str(tmp_path / "run"),
        "learning_rate": 1e-3,
        "mm_projector_lr": 1e-3,
        "save_steps": 0,
        "probe_lists": 0,
    }


@pytest.fixture(scope="module")
def image_root(tmp_path_factory):
    from PIL import Image

    root = tmp_path_factory.mktemp("images")
    for number, colour in enumerate(["red", "blue"]):
        Image.new("RGB", (40, 24), colour).save(root / f"{number}.png")
    return root


@pytest.fixture
def computed(monkeypatch):
    """How many lists each batch of references had."""
    counts = []
    compute = PreferenceTrainer.reference_logps_of

    def counting(self, dataset, places):
        counts.append(len(places))
        return compute(self, dataset, places)

    monkeypatch.setattr(PreferenceTrainer, "reference_logps_of", counting)
    return counts


def run(options, name="run", **changes):
    output = Path(options["output_dir"]).with_name(name)
    return train(TrainArguments(**(options | changes | {"output_dir": str(output)})))


def checkpoint(directory):
    return load_file(Path(directory) / "model.safetensors")


def changed_parts(before, after):
    assert before.keys() == after.keys()
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def assert_same(one, other, atol):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=atol, rtol=0)


def cache_of(options):
    (path,) = Path(options["data"]).parent.glob("*.reference-*.jsonl")
    return path


@pytest.mark.parametrize("method", ["sft", "perpo"])
def test_all_but_the_vision_tower_trains_into_a_checkpoint_that_loads(options, small_model, method):
    output = run(options, method=method, **FULL)
    before, after = checkpoint(small_model), checkpoint(output)
    assert changed_parts(before, after) == {"language_model", "multi_modal_projector"}
    record = read_record(output)
    loaded = load_model(str(output))
    assert record["adapter_sha256"] is None
    assert loaded.weights_sha256 == record["weights_sha256"] != record["model"]["weights_sha256"]
    assert not (output / "adapter_config.json").exists()
    again = run(options, "again", model=str(output), method=method, **FULL)
    assert read_record(again)["model"]["weights_sha256"] == record["weights_sha256"]


def test_a_projector_without_a_rate_stays(options, small_model):
    output = run(options, mm_projector_lr=0.0, **FULL)
    assert changed_parts(checkpoint(small_model), checkpoint(output)) == {"language_model"}


def test_the_projector_has_its_own_rate(options, small_model):
    """Adam's first step is the rate itself, whatever the gradient."""
    output = run(options, learning_rate=1e-3, mm_projector_lr=1e-2, max_steps=1, lr_scheduler_type="constant", **FULL)
    before, after = checkpoint(small_model), checkpoint(output)
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    for name, distance in moved.items():
        if not name.startswith("vision"):
            assert distance == pytest.approx(1e-2 if "projector" in name else 1e-3, rel=1e-2), name


def test_a_full_run_that_is_resumed_ends_with_the_same_weights(options):
    whole = run(options, save_steps=2, **FULL)
    cut = whole.with_name("cut")
    shutil.copytree(whole / "checkpoint-2", cut / "checkpoint-2")
    (cut / "training.json").write_text(json.dumps(read_record(whole) | {"status": "running"}))
    resumed = run(options, "cut", save_steps=2, resume_from_checkpoint="last", **FULL)
    assert_same(checkpoint(resumed), checkpoint(whole), atol=0)


def test_a_full_run_in_bfloat16_keeps_float32_of_what_trains(options):
    plain, half = run(options, **FULL), run(options, "half", bf16=True, **FULL)
    after = checkpoint(half)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert_same(after, checkpoint(plain), atol=6e-3)  # three steps of 1e-3, whose signs may differ


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter": "a"}, "--adapter"),
        ({"lora_r": 4}, "--lora_r"),
        ({"projector_only": True}, "--projector_only"),
        ({"bits": 4}, "--bits"),
    ],
)
def test_what_lora_alone_has_a_use_for_is_refused_without_it(options, changes, said):
    with pytest.raises(PerpoError, match=f"{said} has no effect with --lora_enable False"):
        TrainArguments(**(options | FULL | changes))


def test_kept_references_are_those_of_the_reference_and_train_the_same_adapter(options, computed):
    plain = run(options, "plain", **LORA)
    assert not computed
    kept = run(options, "kept", precompute_reference=True, **LORA)
    assert computed == [2, 2, 1]
    adapter = "adapter_model.safetensors"
    assert_same(load_file(kept / adapter), load_file(plain / adapter), atol=1e-5)

    args = TrainArguments(**(options | {"output_dir": "unused"}))
    choices, _ = choose(args, read_preferences(args.data))
    loaded = load_model(args.model)
    dataset = ListDataset(tokenize(loaded, choices, Path(args.data).parent), loaded)
    rows = [json.loads(line) for line in cache_of(options).read_text().splitlines()][1:]
    assert len(rows) == len(dataset)
    for place, row in enumerate(rows):
        prefix, answers = dataset[place]["prefix"], dataset.lists[place].answers
        for answer, expected in zip(answers, row["logps"], strict=True):  # one by one, in plain sequences
            ids = torch.tensor([[*prefix, *answer]])
            with torch.no_grad():
                logits = loaded.model(input_ids=ids, **dataset[place]["image"]).logits[0, len(prefix) - 1 : -1]
            found = logits.double().log_softmax(-1)[range(len(answer)), answer].sum()
            assert float(found) == pytest.approx(expected, abs=1e-4)


def test_kept_references_are_computed_once_for_a_model_and_data(options, computed, small_model, tmp_path):
    run(options, "first", precompute_reference=True, **LORA)
    computed.clear()
    run(options, "second", precompute_reference=True, learning_rate=1e-4, **LORA)
    run(options, "full", **FULL)
    assert computed == []
    shutil.copytree(small_model, tmp_path / "other")
    weights = checkpoint(small_model)
    weights["multi_modal_projector.linear_1.bias"] += 1.0
    from safetensors.torch import save_file

    save_file(weights, tmp_path / "other" / "model.safetensors", {"format": "pt"})
    run(options, "third", precompute_reference=True, model=str(tmp_path / "other"), **LORA)
    assert sum(computed) == 5
    with open(options["data"], "a") as file:
        file.write(json.dumps(json.loads(Path(options["data"]).read_text().splitlines()[0]) | {"question": "and?"}))
    run(options, "fourth", precompute_reference=True, **LORA)
    assert sum(computed) == 5 + 6
    assert len(list(Path(options["data"]).parent.glob("*.reference-*.jsonl"))) == 3


def test_a_changed_image_is_computed_again(options, computed):
    run(options, "first", precompute_reference=True, **LORA)
    computed.clear()
    shutil.copy(Path(options["data"]).with_name("0.png"), Path(options["data"]).with_name("1.png"))
    run(options, "second", precompute_reference=True, **LORA)
    assert sum(computed) == 2  # of the lists 2 and 4


def test_a_torn_cache_is_completed(options, computed):
    whole = run(options, "first", precompute_reference=True, **LORA)
    path = cache_of(options)
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    computed.clear()
    again = run(options, "second", precompute_reference=True, **LORA)
    assert computed == [2]
    adapter = "adapter_model.safetensors"
    assert_same(load_file(again / adapter), load_file(whole / adapter), atol=1e-5)
    path.write_bytes(content.replace(b'"logps"', b'"lo', 1))
    with pytest.raises(PerpoError, match="damaged"):
        run(options, "third", precompute_reference=True, **LORA)


def test_a_full_run_cannot_go_on_without_its_references(options):
    whole = run(options, save_steps=2, **FULL)
    cut = whole.with_name("cut")
    shutil.copytree(whole / "checkpoint-2", cut / "checkpoint-2")
    (cut / "training.json").write_text(json.dumps(read_record(whole) | {"status": "running"}))
    cache_of(options).unlink()
    with pytest.raises(PerpoError, match=r"lacks 5 lists\. They cannot be computed any more"):
        run(options, "cut", save_steps=2, resume_from_checkpoint="last", **FULL)
