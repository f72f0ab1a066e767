"""The paper's OCR models, LLaVA-NeXT with SigLIP and Qwen2 at any resolution, from PDF files to an evaluation.

The checkpoint is random, with the token geometry of the real sizes: some 3,000 image tokens a page.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

import perpo.cli.data
import perpo.cli.sample
import perpo.cli.train
import perpo_eval.cli.eval
from perpo.models.loaded import render_prompt
from perpo.models.loading import load_model
from tests.support import ROOT
from tests.support.ocr_checkpoint import CONTEXT, image_tokens, write_ocr_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ocr_checkpoint(tmp_path_factory.mktemp("ocr-model"))


@pytest.fixture(scope="module")
def made_pdfs() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import made_pdfs

        return made_pdfs


@pytest.fixture(scope="module")
def pages(made_pdfs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "in").mkdir()
    rng = random.Random(0)
    for number, kind in enumerate(("plain", "columns", "plain", "turned")):
        (folder / "in" / f"{number}.pdf").write_bytes(made_pdfs.KINDS[kind](rng, pages=2).data)
    words = ["pdf", "--pdf", str(folder / "in"), "--output", str(folder / "out"), "--eval_share", "0.4"]
    assert perpo.cli.data.main(words) == 0
    return folder / "out"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_it_is_read_as_llava_next_and_asked_in_its_own_template(checkpoint: Path) -> None:
    loaded = load_model(checkpoint)
    assert loaded.family.model_type == "llava_next"
    assert loaded.family.box_format.frame == "original"
    assert loaded.context_length == CONTEXT
    prompt = render_prompt(loaded, "OCR this image:")
    assert prompt == "<|im_start|>user\n<image>\nOCR this image:<|im_end|>\n<|im_start|>assistant\n"
    assert loaded.end_ids == {loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")}


@pytest.mark.parametrize("size", [(1083, 1400), (1400, 1083), (990, 1400), (500, 1400), (1400, 1400), (384, 384)])
def test_a_page_has_the_image_tokens_of_its_tiles(checkpoint: Path, size: tuple[int, int]) -> None:
    loaded = load_model(checkpoint)
    batch = loaded.encode(["<image>"], [Image.new("RGB", size)])
    image = loaded.tokenizer.convert_tokens_to_ids("<image>")
    assert int((batch["input_ids"] == image).sum()) == image_tokens(*size)


def test_pages_are_sampled_trained_and_evaluated(
    checkpoint: Path, pages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, adapter = tmp_path / "pairs.jsonl", tmp_path / "adapter"
    words = ["--model", str(checkpoint), "--questions", str(pages / "questions.jsonl"), "--image_root", str(pages)]
    words += ["--reward", "edit", "--num_candidates", "3", "--max_new_tokens", "24", "--min_margin", "0"]
    assert perpo.cli.sample.main([*words, "--limit", "2", "--output", str(pairs)]) == 0
    records = read(pairs)
    assert {record["box_frame"] for record in records} <= {None, "original"}
    assert all(len(record["answers_gen"]) == 3 for record in records)
    # Random weights end no answer: these are taken as if they had, with rewards of their own.
    whole = [record | {"truncated": [False] * 3, "rewards": [0.1, 0.5, 0.9]} for record in records]
    pairs.write_text("".join(json.dumps(record) + "\n" for record in whole), encoding="utf-8")
    words = ["--model", str(checkpoint), "--data", str(pairs), "--image_root", str(pages), "--lora_r", "4"]
    assert perpo.cli.train.main([*words, "--max_steps", "1", "--output_dir", str(adapter)]) == 0
    words = ["--model", str(checkpoint), "--adapter", str(adapter), "--suite", "ocr", "--data", str(pages)]
    words += ["--max_new_tokens", "24", "--limit", "2", "--output", str(tmp_path / "results")]
    assert perpo_eval.cli.eval.main(words) == 0
    capsys.readouterr()
    record = json.loads(next((tmp_path / "results").rglob("run.json")).read_text(encoding="utf-8"))
    (task,) = record["tasks"]
    assert (task["task"], task["n_scored"], task["prompt"]) == ("pages_pdf", 2, "OCR this image:")
    assert {metric["name"] for metric in task["metrics"]} >= {"edit_distance", "edit_distance:normalised"}


def test_an_answer_that_does_not_fit_is_refused_with_the_number_that_does(
    checkpoint: Path, pages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(checkpoint), "--suite", "ocr", "--data", str(pages), "--max_new_tokens", str(CONTEXT)]
    assert perpo_eval.cli.eval.main([*words, "--output", str(tmp_path)]) == 2
    assert "hint: give --max_new_tokens " in capsys.readouterr().err
