"""--estimate of perpo-sample, perpo-train and perpo-eval: tokens as the tokenizer counts them, and nothing is run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perpo.cli.sample import main as sample
from perpo.cli.train import main as train
from perpo.models.checkpoints import checkpoint_dir
from perpo.models.loaded import render_prompt
from perpo.models.loading import load_processor
from perpo.tiny.world import write_questions
from perpo_eval.cli.eval import main as evaluate

TOKENS_OF_A_PICTURE = 64


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    """At most 64 questions, so that all are measured."""
    return write_questions(tmp_path_factory.mktemp("questions"), images=20)


@pytest.fixture(autouse=True)
def no_weights(monkeypatch) -> None:
    monkeypatch.setattr("perpo.engines.hf.load_hf", lambda *args, **kwargs: pytest.fail("a model was loaded"))
    monkeypatch.setattr("perpo.models.loading.load_model", lambda *args, **kwargs: pytest.fail("a model was loaded"))


def told(capsys, row: str) -> list[str]:
    out = capsys.readouterr().out
    assert "assumed and were measured on no GPU" in " ".join(out.split())
    (line,) = [line for line in out.splitlines() if line.startswith(f"{row} ")]
    return line.split()[1:]


def lengths(questions: Path) -> tuple[list[int], list[int]]:
    """Tokens of each prompt with its picture, and of each true answer with its end."""
    loaded = load_processor(str(checkpoint_dir()))
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    prompts = loaded.token_ids([render_prompt(loaded, row["question"]) for row in rows])
    answers = [loaded.tokenizer(row["answer"], add_special_tokens=False).input_ids for row in rows]
    return [len(ids) - 1 + TOKENS_OF_A_PICTURE for ids in prompts], [len(ids) + 1 for ids in answers]


def test_sampling(questions, tmp_path, capsys) -> None:
    output = tmp_path / "out.jsonl"
    words = ["--questions", str(questions), "--output", str(output), "--num_candidates", "7", "--estimate", "h100"]
    assert sample(words) == 0
    count, tokens, *_ = told(capsys, "sample")
    prompts, answers = lengths(questions)
    assert int(count) == len(prompts)
    assert float(tokens) == pytest.approx(sum(prompts) + 7 * sum(answers), rel=0.005)  # three digits are shown
    assert not list(tmp_path.iterdir())


def test_training(questions, tmp_path, capsys) -> None:
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    data = tmp_path / "pairs.jsonl"
    records = [
        {name: row[name] for name in ("image_path", "question", "answer")}
        | {"answers_gen": [row["answer"], row["answer"]], "rewards": [1.0, 0.5], "reward_name": "iou"}
        for row in rows
    ]
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    words = ["--data", str(data), "--image_root", str(questions.parent), "--output_dir", str(tmp_path / "adapter")]
    assert train([*words, "--num_train_epochs", "3", "--estimate", "L4"]) == 0
    count, tokens, *_ = told(capsys, "train")
    prompts, answers = lengths(questions)
    assert int(count) == len(rows)
    assert float(tokens) == pytest.approx(3 * (sum(prompts) + 2 * sum(answers)), rel=0.005)
    assert not (tmp_path / "adapter").exists()


def test_evaluation(tmp_path, capsys) -> None:
    words = ["--suite", "pope", "--tasks", "tinypope_random", "--limit", "50", "--output", str(tmp_path)]
    assert evaluate([*words, "--estimate", "A100-80GB"]) == 0
    count, tokens, *_ = told(capsys, "tinypope_random")
    assert int(count) == 50
    assert TOKENS_OF_A_PICTURE + 5 < float(tokens) / 50 < TOKENS_OF_A_PICTURE + 40
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", [sample, train, evaluate])
def test_an_unknown_gpu(program, questions, tmp_path, capsys) -> None:
    words = {
        sample: ["--questions", str(questions), "--output", str(tmp_path / "o.jsonl")],
        train: ["--data", str(questions), "--output_dir", str(tmp_path / "a"), "--method", "sft"],
        evaluate: ["--suite", "pope"],
    }[program]
    assert program([*words, "--estimate", "H10"]) == 2
    assert re.search("no GPU is known by the name H10\nhint: .*H100", capsys.readouterr().err)


def test_it_has_no_use_where_no_model_is_asked(tmp_path, capsys) -> None:
    for mode in ("--questions", "--responses", "--rescore"):
        assert evaluate([mode, str(tmp_path / "x.jsonl"), "--estimate", "H100"]) == 2
        assert f"--estimate has no effect with {mode}" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_is_what_was_measured() -> None:
    """Each kind of work on a small model in a process of its own: benchmarks/estimate_memory.py."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, str(root / "benchmarks" / "estimate_memory.py"), "--sizes", "smallest"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(root / each) for each in ("", "eval"))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    ratios = [float(line.split("|")[5]) for line in done.stdout.splitlines() if line.startswith("| 1")]
    assert len(ratios) == 6
    assert max(abs(ratio - 1) for ratio in ratios) < 0.15, done.stdout


def test_a_folder_without_weights_is_enough(questions, tmp_path, capsys) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in checkpoint_dir().iterdir():
        if file.suffix in (".json", ".jinja"):
            (model / file.name).write_bytes(file.read_bytes())
    words = ["--questions", str(questions), "--output", str(tmp_path / "out.jsonl"), "--estimate", "H100"]
    assert sample([*words, "--model", str(model)]) == 0
    without = told(capsys, "sample")
    assert sample(words) == 0
    assert told(capsys, "sample") == without
