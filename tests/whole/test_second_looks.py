"""What ordinary use must not do: take another run's place, a stale reference, an untrained tower, a lost scale."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file

from perpo.data.images import image_problems
from perpo.errors import PerpoError
from perpo.models.loading import load_model
from perpo.records.training_record import read_log, read_record
from perpo.train.arguments import TrainArguments
from perpo.train.run import train

ROWS = [
    {"question": f"what{' then' * n}?", "answer": "abc", "answers_gen": ["zz", "abc"], "rewards": [0.1, 1.0]}
    | {"reward_name": "edit"}
    for n in range(4)
]


@pytest.fixture
def options(tmp_path, small_run, write_records):
    folder = tmp_path / "data"
    folder.mkdir()
    held_out = write_records(folder, [{"question": "what?", "answer": "abc"}] * 2, "held-out.jsonl")
    more = {"eval_data": held_out, "eval_steps": 2, "eval_max_new_tokens": 4, "per_device_train_batch_size": 4}
    return small_run | more | {"data": write_records(folder, ROWS), "max_steps": 4, "save_steps": 2}


def run(options, output, **changes):
    return train(TrainArguments(**(options | changes), output_dir=str(output)))


def test_a_checkpoint_is_not_continued_over_another_run(options, tmp_path):
    one, other = run(options, tmp_path / "one"), run(options, tmp_path / "other", seed=7)
    before = (other / "adapter_model.safetensors").read_bytes()
    with pytest.raises(PerpoError, match="holds a finished training"):
        run(options, other, resume_from_checkpoint=str(one / "checkpoint-2"))
    assert (other / "adapter_model.safetensors").read_bytes() == before


def test_the_best_of_a_run_without_checkpoints_is_not_lost(options, tmp_path, monkeypatch, capsys):
    heights = iter([0.1, 0.5, 0.2, 0.1, 0.5, 0.2])
    monkeypatch.setattr(
        "perpo.train.watching.validation.Validation._answered", lambda self: [(next(heights), True, False)]
    )
    output = run(options, tmp_path / "run", save_steps=0)
    (output / "training.json").write_text(json.dumps(read_record(output) | {"status": "running"}))
    kept = (output / "best" / "adapter_model.safetensors").read_bytes()
    with pytest.raises(PerpoError, match="holds best/ of a training that was cut off, as it was after step 2"):
        run(options, output, save_steps=0)
    run(options, output, save_steps=0, resume_from_checkpoint="last")
    assert "best/ is put aside as best-step-2/" in capsys.readouterr().err
    assert (output / "best-step-2" / "adapter_model.safetensors").read_bytes() == kept


def test_kept_references_are_of_one_way_of_computing(options, tmp_path, small_model):
    plain = {name: value for name, value in options.items() if "eval" not in name} | {"max_steps": 1, "save_steps": 0}
    data = tmp_path / "data"

    def caches():
        return len(list(data.glob("*.reference-*.jsonl")))

    run(plain, tmp_path / "lora", bf16=True, precompute_reference=True)
    whole = {name: value for name, value in plain.items() if "lora" not in name}
    run(whole, tmp_path / "whole", bf16=True, lora_enable=False)
    assert caches() == 2
    changed = tmp_path / "changed"
    shutil.copytree(small_model, changed)
    config = json.loads((changed / "config.json").read_text())
    config["text_config"]["rms_norm_eps"] = 1e-2
    (changed / "config.json").write_text(json.dumps(config))
    output = run(plain, tmp_path / "changed-run", model=str(changed), bf16=True, precompute_reference=True)
    assert caches() == 3
    assert read_log(output)[0]["kl"] == pytest.approx(0.0, abs=1e-6)


def test_a_reference_that_is_not_finite_is_told_with_its_records(options, tmp_path, small_model):
    broken = tmp_path / "broken"
    shutil.copytree(small_model, broken)
    weights = load_file(broken / "model.safetensors")
    weights = {name: value * float("nan") if name.endswith("norm.weight") else value for name, value in weights.items()}
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    plain = {name: value for name, value in options.items() if "eval" not in name}
    with pytest.raises(PerpoError, match=r"the reference of record 1 .* is not finite") as error:
        run(plain, tmp_path / "run", model=str(broken), precompute_reference=True)
    assert error.value.exit_code == 3


@pytest.mark.parametrize("targets", ["all-linear", r".*vision_tower.*\.q_proj"])
def test_an_adapter_of_the_vision_tower_is_refused(options, tmp_path, small_model, targets):
    model = load_model(str(small_model)).model
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=targets)
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(PerpoError, match="has LoRA in the vision tower, which perpo-train does not train"):
        run(options, tmp_path / "run", adapter=str(tmp_path / "adapter"), mm_projector_lr=0)


def test_a_continued_adapter_names_no_directory_of_a_machine(options, tmp_path, small_model):
    first = run(options, tmp_path / "first", save_steps=0)
    config = json.loads((first / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/somewhere/private/model"
    (first / "adapter_config.json").write_text(json.dumps(config))
    second = run(options, tmp_path / "second", adapter=str(first), save_steps=0)
    assert json.loads((second / "adapter_config.json").read_text())["base_model_name_or_path"] == small_model.name


def test_the_learning_rate_that_is_logged_is_the_language_models(options, tmp_path):
    output = run(options, tmp_path / "run", learning_rate=1e-3, mm_projector_lr=5e-6, lr_scheduler_type="constant")
    assert {entry["learning_rate"] for entry in read_log(output) if "loss" in entry} == {1e-3}


@pytest.mark.parametrize(
    "pixels", [np.linspace(0, 65535, 64, dtype=np.uint16), np.linspace(0, 1, 64, dtype=np.float32)]
)
def test_images_that_would_lose_their_scale_are_refused(tmp_path, pixels):
    file = tmp_path / "grey.tiff"
    Image.fromarray(pixels.reshape(8, 8)).save(file)
    with Image.open(file) as image:
        assert len(set(np.asarray(image.convert("RGB")).ravel().tolist())) <= 2  # which is what would be seen of it
    (problem,) = image_problems([file])
    assert problem is not None
    assert "whose scale would be lost: convert it to 8 bits" in problem


def test_a_run_goes_on_with_its_own_images_alone(options, tmp_path):
    whole = run(options, tmp_path / "whole")
    cut = tmp_path / "cut"
    shutil.copytree(whole / "checkpoint-2", cut / "checkpoint-2")
    (cut / "training.json").write_text(json.dumps(read_record(whole) | {"status": "running"}))
    shutil.copytree(tmp_path / "data", tmp_path / "others")
    Image.new("RGB", (40, 24), "red").save(tmp_path / "others" / "2.png")
    with pytest.raises(PerpoError, match="the images have changed since the training in"):
        run(options, cut, resume_from_checkpoint="last", image_root=str(tmp_path / "others"))
    run(options, cut, resume_from_checkpoint="last")
    assert (cut / "adapter_model.safetensors").read_bytes() == (whole / "adapter_model.safetensors").read_bytes()


def test_a_refused_start_leaves_best_where_it_was(options, tmp_path, monkeypatch):
    """What is wrong is told first: a run that never began takes nothing along and puts nothing aside."""
    one = run(options, tmp_path / "one")
    other = tmp_path / "other"
    flags = {"resume_from_checkpoint": str(one / "checkpoint-4")}
    (tmp_path / "data" / "1.png").rename(tmp_path / "data" / "gone.png")
    with pytest.raises(PerpoError, match=r"1\.png: no such file"):
        run(options, other, **flags)
    assert not (other / "best").exists()
    (tmp_path / "data" / "gone.png").rename(tmp_path / "data" / "1.png")
    run(options, other, **flags)
    assert read_record(other / "best")["steps"] == read_record(one / "best")["steps"]


def test_log_probabilities_of_half_precision_weights_are_not_those_of_a_whole_run(options):
    plain = {name: value for name, value in options.items() if "eval" not in name and "lora" not in name}
    with pytest.raises(PerpoError, match="recorded with weights in bfloat16"):
        TrainArguments(**plain, output_dir="out", bf16=True, lora_enable=False, reference="recorded")
