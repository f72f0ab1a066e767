"""From PDF files through sampling and training to an evaluation, with the embedded model, which reads none of them."""

import json

import pytest

import perpo.cli.sample
import perpo.cli.train
import perpo_eval.cli.eval


@pytest.mark.slow
def test_pages_of_200_documents_are_sampled_trained_and_evaluated(made_pdfs, pdf, tmp_path):
    made = made_pdfs.write_folder(tmp_path / "in", 200)
    done = pdf("--eval_share", "0.2")
    assert done.code == 0
    # Documents are apart by their numbers, so that each is what it is alone.
    assert done.found() == {name: one.reason or one.texts for name, one in made.items()}
    pages, pairs, adapter = (str(tmp_path / name) for name in ("out", "pairs.jsonl", "adapter"))
    words = ["--model", "tiny", "--questions", f"{pages}/questions.jsonl", "--reward", "edit", "--output", pairs]
    assert perpo.cli.sample.main([*words, "--num_candidates", "4", "--limit", "16", "--seed", "1"]) == 0
    assert {row["reward_name"] for row in map(json.loads, (tmp_path / "pairs.jsonl").read_text().splitlines())} == {
        "edit"
    }
    words = ["--model", "tiny", "--data", pairs, "--image_root", pages, "--output_dir", adapter]
    assert perpo.cli.train.main([*words, "--max_steps", "2"]) == 0
    words = ["--model", "tiny", "--adapter", adapter, "--suite", "ocr", "--data", pages, "--max_new_tokens", "64"]
    assert perpo_eval.cli.eval.main([*words, "--output", str(tmp_path / "results")]) == 0
    record = json.loads(next((tmp_path / "results").rglob("run.json")).read_text(encoding="utf-8"))
    assert record["tasks"][0]["n_scored"] == len(done.rows()) > 0
