"""Special tokens of answers are kept, taught and scored as they were sampled; those that steer are neither."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from perpo.data import PreferenceRecord, Question
from perpo.engines.base import Decoding, ask
from perpo.engines.hf import HfEngine
from perpo.errors import PerpoError
from perpo.losses import sft_loss
from perpo.models.loaded import answers_token_ids, render_prompt
from perpo.models.loading import load_model
from perpo.models.logps import candidate_logps
from perpo.train.arguments import TrainArguments
from perpo.train.lists import Collator, ListDataset, choose, tokenize

MARKED = {
    "internvl": "<ref>1</ref><box>[2]</box>",
    "qwen2_5_vl": "<|object_ref_start|>1<|object_ref_end|><|box_start|>2<|box_end|>",
}


def test_what_steers_is_left_out_of_answers_and_refused_in_texts(loaded):
    tokenizer = loaded.tokenizer
    steering = loaded.control_tokens
    named = {tokenizer.bos_token_id, tokenizer.pad_token_id, loaded.processor.image_token_id, *loaded.end_ids}
    assert named <= set(steering)
    assert not {"<ref>", "<box>", "</box>", "<|box_start|>", "<|object_ref_end|>"} & set(steering.values())
    truth = Question(image_path="0.png", question="where?", answer=f"here{tokenizer.pad_token}", image_id=0)
    with pytest.raises(PerpoError, match=r"question 1: its answer holds <"):
        HfEngine(loaded=loaded, dtype="float32").check([truth], Path(), Decoding(max_new_tokens=4))
    here = tokenizer("here", add_special_tokens=False).input_ids
    for number, text in steering.items():
        assert loaded.answer_text([*here, number, *here, tokenizer.eos_token_id]) == "herehere"
        with pytest.raises(PerpoError, match=r"holds|pictures"):
            render_prompt(loaded, f"where {text} {text}?")
        with pytest.raises(PerpoError, match="an answer holds"):
            answers_token_ids(loaded, render_prompt(loaded, "where?"), ["here", f"here{text}"])
        assert loaded.without_control_tokens(f"he{text}re") == "here"


@pytest.mark.parametrize("name", MARKED)
def test_a_sampled_answer_with_marks_is_trained_on_as_it_was_sampled(checkpoints, name, tmp_path):
    """The loss of RFT on it is minus its recorded log-probability per token."""
    loaded = load_model(str(checkpoints(name)), device="cpu")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "0.png")
    prompt = render_prompt(loaded, "where?")
    (pieces,) = answers_token_ids(loaded, prompt, [MARKED[name]])
    marks = set(pieces) - {loaded.end_id} - set(loaded.tokenizer("1[2]", add_special_tokens=False).input_ids)
    assert len(marks) == 4  # each is one token, not letters
    likely = torch.zeros(loaded.model.get_output_embeddings().out_features)
    likely[pieces] = 60.0  # above all others, and drawn alike at this temperature
    loaded.model.get_output_embeddings().bias = torch.nn.Parameter(likely)
    decoding = Decoding(num_candidates=24, temperature=3.0, max_new_tokens=24)
    asked = Question(image_path="0.png", question="where?", answer="", image_id=0)
    (answers,) = ask(HfEngine(loaded=loaded, dtype="float32"), [(0, asked)], tmp_path, decoding)
    finished = [each for each in answers if not each.truncated and each.text]
    assert all(each.logp is not None for each in finished)
    assert sum("box" in each.text for each in finished) > 3
    texts = [each.text for each in finished]
    record = PreferenceRecord(**vars(asked), answers_gen=texts, rewards=[0.5] * len(texts), reward_name="edit")
    arguments = TrainArguments(method="sft", data="d", output_dir="o")
    for each in finished:
        record.answer = each.text
        lists = tokenize(loaded, choose(arguments, [record])[0], tmp_path)
        batch = Collator(loaded.tokenizer.pad_token_id)([ListDataset(lists, loaded)[0]])
        with torch.no_grad():
            logps = candidate_logps(loaded.model, batch["packed"], batch["images"], candidates=1)
        loss = sft_loss(logps, batch["token_counts"])
        assert float(loss) == pytest.approx(-each.logp / len(lists[0].answers[0]), abs=1e-4)
