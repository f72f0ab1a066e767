"""The authors' training command runs as it is, and each of its flags acts or is checked."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, LlavaNextConfig, LlavaOnevisionConfig, Qwen2_5_VLConfig

from perpo.cli.train import main
from perpo.errors import PerpoError
from perpo.records.training_record import read_record
from perpo.tiny.model import ModelShape, save_random_model
from perpo.train.arguments import TrainArguments
from perpo.train.authors.checks import check_seed_flags
from perpo.train.authors.flags import SEED_FLAGS, seed_table, translate
from tests.support import ROOT

# Copied from the README of the authors' repository, the stray \v included.
COMMAND = r"""
deepspeed perpo/models/llava-v1_5/train_perpo_lora.py \
    --lora_enable True --lora_r 128 --lora_alpha 256 --mm_projector_lr 5e-6 \
    --deepspeed ./perpo/models/llava-v1_5/scripts/zero3.json \
    --model_name_or_path /models/llava-v1.5-7b \
    --version v1 \
    --ours_data_path ./data/llava1.5_7b_refcoco_data.json \
    --vision_tower /models/clip-vit-large-patch14-336 \
    --tune_mm_mlp_adapter False \
    --freeze_backbone False \
    --mm_projector_type mlp2x_gelu \
    --mm_vision_select_layer -2 \
    --mm_use_im_start_end False \
    --mm_use_im_patch_token False \
    --image_aspect_ratio pad \
    --group_by_modality_length True \
    --bf16 True \v
    --output_dir ./checkpoints/llava1.5_7b_lora_perpo \
    --num_train_epochs 1 \
    --per_device_train_batch_size 2 \
    --per_device_eval_batch_size 4 \
    --gradient_accumulation_steps 1 \
    --evaluation_strategy "no" \
    --save_strategy "steps" \
    --save_steps 50000 \
    --save_total_limit 1 \
    --learning_rate 5e-6 \
    --weight_decay 0. \
    --warmup_steps 0 \
    --lr_scheduler_type "cosine" \
    --logging_steps 1 \
    --tf32 True \
    --model_max_length 2048 \
    --gradient_checkpointing True \
    --dataloader_num_workers 4 \
    --lazy_preprocess True \
    --report_to wandb \
    --run_name "llava1.5_7b_lora_perpo" \
    --beta 0.1 \
    --perpo_gamma 0.5 \
    --best_of_n 20
"""
# All that its code declares besides.
DECLARED = """
lora_dropout lora_bias bits double_quant quant_type image_folder max_grad_norm max_steps seed warmup_ratio
max_prompt_length max_length optimizer_type local_rank cache_dir freeze_mm_mlp_adapter lora_weight_path optim
"""
# CLIP's patches and its second last hidden state, as LLaVA-1.5 has them, but small.
SHAPE = ModelShape(28, 14, 16, 2, -2, 32, 1, 128)


def command_words():
    """The command's words behind the program, with its lines joined as a shell does."""
    return shlex.split(COMMAND.replace("\\\n", " "))[2:]


def with_values(words, **values):
    """The words, with other values for some flags; None leaves a flag out."""
    words = list(words)
    for name, value in values.items():
        place = words.index(f"--{name}")
        words[place : place + 2] = [] if value is None else [f"--{name}", str(value)]
    return words


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A model like LLaVA-1.5 in all that the command says of it."""
    return save_random_model(tmp_path_factory.mktemp("llava15"), SHAPE)


@pytest.fixture
def paths(tmp_path, model):
    """What the command's paths become: two of the authors' records, their image, a tower's configuration."""
    picture = tmp_path / "COCO" / "train2014" / "picture.jpg"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (40, 30), "blue").save(picture)
    record = {
        "image_id": 1,
        "image_path": "COCO/train2014/picture.jpg",
        "question": "<image>\nPlease provide the bounding box coordinate of the region: burger",
        "answer": "[0.61, 0.1, 0.77, 0.54]",
        "answers_gen": [f"[0.{number:02d}, 0.1, 0.77, 0.54]" for number in range(20)],
        "iou_scores": [(19 - number) / 20 for number in range(20)],
    }
    (tmp_path / "data.json").write_text(json.dumps([record | {"image_id": number} for number in range(4)]))
    CLIPVisionConfig(hidden_size=16, num_attention_heads=4, image_size=28, patch_size=14).save_pretrained(
        tmp_path / "tower"
    )
    return {
        "model_name_or_path": model,
        "ours_data_path": tmp_path / "data.json",
        "vision_tower": tmp_path / "tower",
        "output_dir": tmp_path / "out",
    }


WITHOUT_A_GPU = {"bf16": False, "tf32": False, "report_to": "none"}


def test_the_command_trains_with_nothing_but_its_paths_changed(paths):
    # DeepSpeed compiles for more than a minute when it is first used: below.
    words = with_values(command_words(), **paths, **WITHOUT_A_GPU, deepspeed=None)
    done = subprocess.run(
        [sys.executable, "-m", "perpo.cli.train", *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "'v' after --bf16" in done.stderr
    assert "--per_device_eval_batch_size 4 is left out" in done.stderr
    assert_trained(paths["output_dir"], steps=2)


def assert_trained(output, steps):
    record = read_record(output)
    assert (record["status"], record["steps"]) == ("complete", steps)
    assert record["data"]["counts"] == {"records": 4, "lists": 4, "candidates": 80}
    arguments = record["arguments"]
    assert (arguments["method"], arguments["gamma"], arguments["num_candidates"]) == ("perpo", 0.5, 20)
    assert arguments["max_length"] == 2048
    weights = load_file(output / "adapter_model.safetensors")
    assert any(tensor.any() for name, tensor in weights.items() if "lora_B" in name)
    assert any("multi_modal_projector" in name for name in weights)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_trains_under_the_deepspeed_launcher_with_zero3(paths, tmp_path):
    # What the authors' zero3.json says, but for the sizes of its buffers.
    auto = dict.fromkeys(("train_micro_batch_size_per_gpu", "train_batch_size", "gradient_accumulation_steps"), "auto")
    settings = auto | {
        "bf16": {"enabled": "auto"},
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_gather_16bit_weights_on_model_save": True,
        },
    }
    (tmp_path / "zero3.json").write_text(json.dumps(settings))
    words = with_values(command_words(), **paths, **WITHOUT_A_GPU, deepspeed=tmp_path / "zero3.json")
    launcher = Path(sys.executable).with_name("deepspeed")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    done = subprocess.run(
        [launcher, "--num_accelerators", "2", "--master_port", str(port), "--module", "perpo.cli.train", *words],
        env=os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    assert_trained(paths["output_dir"], steps=1)  # two processes with two records each


def test_the_table_holds_every_flag_of_the_command_and_of_its_code():
    of_command = re.findall(r"--(\w+)", COMMAND)
    assert len(of_command) == 42
    table = [name for name, flag in SEED_FLAGS.items() if flag.in_command]
    assert table == of_command
    assert set(DECLARED.split()) <= SEED_FLAGS.keys() - set(of_command)
    ours = {field.name for field in dataclasses.fields(TrainArguments)}
    assert {flag.argument for flag in SEED_FLAGS.values()} - {None} <= ours


def test_every_flag_is_documented():
    text = (ROOT / "docs" / "training.md").read_text()
    for in_command in (True, False):
        assert seed_table(in_command=in_command) in text
    assert all(f"`--{name}`" in text for name in SEED_FLAGS)


def test_aliases_become_our_arguments():
    words = "--best_of_n 20 --perpo_gamma=0.5 --lora_weight_path= --image_folder x --freeze_mm_mlp_adapter True"
    assert translate(words.split()).words == [
        "--num_candidates=20",
        "--gamma=0.5",
        "--image_root=x",
        "--mm_projector_lr=0",
    ]
    assert translate(["--tune_mm_mlp_adapter", "--debug"]).words == ["--projector_only=True", "--debug"]
    assert translate(["--max_steps", "-1", "--local_rank", "-1"]).words == ["--max_steps", "-1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "llama_2"}, "--version llama_2 contradicts the chat template of"),
        ({"version": "v2"}, "--version v2 is not a conversation that is known"),
        ({"vision_tower": "openai/clip-vit-large-patch14-336"}, "image_size 28, not 336"),
        ({"vision_tower": "openai/clip-vit-base-patch32"}, "patch_size 14, not 32"),
        ({"vision_tower": "/nowhere"}, "is not a folder with a config.json, and its name does not give a patch size"),
        ({"mm_projector_type": "linear"}, "whose projector is mlp2x_gelu"),
        ({"mm_vision_select_layer": "-1"}, "whose vision_feature_layer is -2"),
        ({"mm_use_im_start_end": "True"}, "--mm_use_im_start_end True contradicts the prompt of"),
        ({"mm_use_im_patch_token": "True"}, "which has no <im_patch>"),
        ({"mm_use_im_patch_token": "no"}, "--mm_use_im_patch_token expects True or False, got 'no'"),
        ({"image_aspect_ratio": "anyres"}, "whose family makes it pad"),
        ({"lazy_preprocess": "False"}, "--lazy_preprocess expects True, got 'False'"),
        ({"tune_mm_mlp_adapter": "perhaps"}, "--tune_mm_mlp_adapter expects True or False"),
        ({"evaluation_strategy": "steps"}, "--per_device_eval_batch_size has no effect without --eval_data"),
        ({"evaluation_strategy": "steps", "per_device_eval_batch_size": None}, "the run: there is no --eval_data"),
        ({"evaluation_strategy": "epoch", "per_device_eval_batch_size": None}, "not by epoch"),
        (
            {"freeze_backbone": "True", "lora_enable": "False"},
            "--freeze_backbone True contradicts --lora_enable False, which trains the backbone",
        ),
        (
            {"tune_mm_mlp_adapter": "True", "lora_enable": "False"},
            "--projector_only has no effect with --lora_enable False",
        ),
        ({"best_of_n": "1"}, "--num_candidates 1 leaves nothing to compare"),
    ],
)
def test_what_contradicts_the_model_is_a_sentence_before_its_weights_are_read(
    paths, capsys, monkeypatch, changes, message
):
    monkeypatch.setattr("perpo.train.run.train", lambda args: pytest.fail("the training began"))
    monkeypatch.setattr(
        "perpo.models.checkpoints.local_directory", lambda name: pytest.fail("the weights were asked for")
    )
    assert main(with_values(command_words(), **paths | WITHOUT_A_GPU | changes)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "\nhint: " in error


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--optim adamw_8bit", "--optim expects adamw_torch, got 'adamw_8bit'"),
        ("--optimizer_type sgd", "--optimizer_type expects adamw_torch"),
        ("--lora_bias all", "--lora_bias expects none, got 'all'"),
        ("--lora_dropout 0.05", "--lora_dropout has no effect with --method perpo"),
        ("--local_rank 1", "--local_rank 1 contradicts LOCAL_RANK, which the launcher set to -1"),
        ("--freeze_mm_mlp_adapter True", "--mm_projector_lr and --freeze_mm_mlp_adapter both set mm_projector_lr"),
        ("--data other.json", "--ours_data_path and --data both set data"),
        ("--max_length 1024", "--model_max_length and --max_length both set max_length"),
        ("--eval_data more.json", "--evaluation_strategy no contradicts --eval_data, which is validated on"),
        ("--bits 8", "--bits expects one of 4, 16"),
        ("--perpo_gama 1", "there is no argument --perpo_gama"),
        ("--image_folder", "--image_folder expects a value"),
    ],
)
def test_what_cannot_be_had_is_a_sentence(paths, capsys, monkeypatch, more, message):
    monkeypatch.setattr("perpo.train.run.train", lambda args: pytest.fail("the training began"))
    assert main([*with_values(command_words(), **paths | WITHOUT_A_GPU), *more.split()]) == 2
    assert message in capsys.readouterr().err


def test_what_could_act_on_nothing_is_left_out_and_said():
    words = "--double_quant True --quant_type nf4 --per_device_eval_batch_size 4 --eval_strategy no"
    found = translate(shlex.split(words))
    assert found.words == []
    assert [note.split(" is left out")[0] for note in found.notes] == [
        "--double_quant True",
        "--quant_type nf4",
        "--per_device_eval_batch_size 4",
    ]
    words = ["--bits", "4", "--double_quant", "True", "--eval_data", "x", "--per_device_eval_batch_size", "4"]
    assert translate(words).words == words
    assert translate(words).notes == []


def test_version_alone_is_the_programs_own(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("perpo-train ")


def test_a_shell_that_ends_the_command_at_the_stray_word_is_told_of(capsys):
    words = command_words()
    assert main(words[: words.index("v") + 1]) == 2
    assert "the shell ended the command there" in capsys.readouterr().err


def test_a_tower_of_another_width_is_found_by_its_configuration(paths, capsys, tmp_path):
    CLIPVisionConfig(hidden_size=32, num_attention_heads=4, image_size=28, patch_size=14).save_pretrained(
        tmp_path / "wide"
    )
    changes = paths | WITHOUT_A_GPU | {"vision_tower": tmp_path / "wide"}
    assert main(with_values(command_words(), **changes)) == 2
    assert "hidden_size 16, not 32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "true", "false"),
    [
        (LlavaNextConfig(), {"image_aspect_ratio": "anyres", "mm_projector_type": "mlp2x_gelu"}, "pad"),
        (LlavaOnevisionConfig(vision_aspect_ratio="anyres_max_9"), {"image_aspect_ratio": "anyres_max_9"}, "anyres"),
        (Qwen2_5_VLConfig(), {}, "pad"),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_what_other_families_do_with_images(tmp_path, config, true, false):
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()  # only its name is looked at
    args = TrainArguments(data="", output_dir="", model=str(tmp_path))
    check_seed_flags(args, true)
    with pytest.raises(PerpoError, match=f"--image_aspect_ratio {false} contradicts"):
        check_seed_flags(args, {"image_aspect_ratio": false})
    with pytest.raises(PerpoError, match="--mm_projector_type linear contradicts"):
        check_seed_flags(args, {"mm_projector_type": "linear"})


def test_the_launchers_rank_is_accepted(monkeypatch, paths):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("perpo.train.run.train", lambda args: paths["output_dir"])
    assert main(["--local_rank=1", *with_values(command_words(), **paths | WITHOUT_A_GPU)]) == 0
