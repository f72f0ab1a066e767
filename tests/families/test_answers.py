"""Every family: sampled and generated answers, and training by its real program."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from perpo.data import Question
from perpo.data.placeholders import is_media_mark
from perpo.engines.base import Decoding, ask
from perpo.engines.decoding import question_uniforms, sample_candidates
from perpo.engines.hf import HfEngine
from perpo.engines.shared_image import answer
from perpo.errors import PerpoError
from perpo.models.loaded import answers_token_ids, render_prompt
from perpo.models.loading import load_model
from perpo.models.logps import repeated_logps
from perpo.models.prefix import PER_TOKEN

STEPS = 8
SETTINGS = {"max_new_tokens": STEPS, "do_sample": False}


def plain(loaded, prompt, picture):
    """One question with the processor's own inputs through generate()."""
    inputs = loaded.encode([prompt], [picture])
    with torch.inference_mode():
        ids = loaded.model.generate(**inputs, **SETTINGS)[0, inputs["input_ids"].shape[1] :].tolist()
    ends = [place for place, token in enumerate(ids) if token in loaded.end_ids]
    return ids[: ends[0] + 1] if ends else ids


def test_sampled_log_probs_are_those_of_the_repeated_forward(loaded, pictures, questions):
    prompts = [render_prompt(loaded, question) for question in questions]
    batch = dict(loaded.encode(prompts, pictures))
    uniforms = torch.from_numpy(np.stack([question_uniforms(7, k, 5, STEPS) for k in range(len(prompts))]))
    ends = set(range(2, 500, 9))  # so that answers end at different lengths
    found = sample_candidates(loaded.model, batch, uniforms, temperature=1.0, top_p=1.0, end_ids=ends)
    assert len({len(c.token_ids) for answers in found for c in answers}) > 1
    images = {number for number, token in loaded.control_tokens.items() if is_media_mark(token)}
    found = [[c for c in answers if not images & set(c.token_ids)] for answers in found]
    each = [loaded.encode([prompt], [picture]) for prompt, picture in zip(prompts, pictures, strict=True)]
    with torch.no_grad():
        expected = repeated_logps(
            loaded.model,
            [inputs["input_ids"][0].tolist() for inputs in each],
            [[c.token_ids for c in answers] for answers in found],
            [{name: value for name, value in inputs.items() if name not in PER_TOKEN} for inputs in each],
            pad_id=3,
        )
    for answers, row in zip(found, expected, strict=True):
        assert answers
        torch.testing.assert_close(torch.tensor([c.logp for c in answers]), row[: len(answers)], atol=2e-4, rtol=1e-5)


def test_the_sampler_s_texts_have_the_log_probs_that_training_will_use(loaded, pictures, questions, tmp_path):
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    asked = [
        Question(image_path=f"{number}.png", question=question, answer="", image_id=number)
        for number, question in enumerate(questions)
    ]
    pieces = answers_token_ids(loaded, render_prompt(loaded, "where?"), ["[0.61, 0.10, 0.25]"])[0]
    likely = torch.zeros(loaded.model.get_output_embeddings().out_features)
    likely[pieces] = 20.0  # of which texts are made that are cut into the same tokens again
    loaded.model.get_output_embeddings().register_forward_hook(lambda module, inputs, logits: logits + likely)
    decoding = Decoding(num_candidates=40, temperature=2.0, max_new_tokens=STEPS)
    engine = HfEngine(loaded=loaded, dtype="float32")
    engine.check(asked, tmp_path, decoding)
    compared = 0
    answers = ask(engine, list(enumerate(asked)), tmp_path, decoding)
    for question, picture, found in zip(questions, pictures, answers, strict=True):
        prompt = render_prompt(loaded, question)
        usable = [each for each in found if each.logp is not None]
        ids = [answers_token_ids(loaded, prompt, [each.text], end=not each.truncated)[0] for each in usable]
        inputs = loaded.encode([prompt], [picture])
        images = {name: value for name, value in inputs.items() if name not in PER_TOKEN}
        if usable:
            with torch.no_grad():
                logps = repeated_logps(loaded.model, inputs["input_ids"].tolist(), [ids], [images], pad_id=3)[0]
            torch.testing.assert_close(logps, torch.tensor([each.logp for each in usable]), atol=2e-4, rtol=1e-5)
            compared += len(usable)
    assert compared > 10


def test_evaluation_answers_as_plain_generate_does_one_by_one(loaded, pictures, questions):
    image_of = [0, 1, 2, 1, 3, 0, 2, 2]
    prompts = [render_prompt(loaded, questions[k % 4] + " thing" * (k % 3)) for k in range(len(image_of))]
    expected = [plain(loaded, prompt, pictures[k]) for prompt, k in zip(prompts, image_of, strict=True)]
    assert len({tuple(ids) for ids in expected}) > 3  # the answers do tell apart
    assert answer(loaded, prompts, pictures, image_of, SETTINGS) == expected


def test_what_is_longer_than_a_window_is_not_sampled(checkpoints, pictures, questions):
    loaded = load_model(str(checkpoints("paligemma2")), device="cpu")
    batch = dict(loaded.encode([render_prompt(loaded, question) for question in questions], pictures))
    with pytest.raises(PerpoError, match="are more than 64, up to which"):
        sample_candidates(loaded.model, batch, torch.zeros(4, 2, 60), temperature=1.0, top_p=1.0, end_ids={2})


def test_what_the_processor_refuses_is_known_before_and_named_when_it_happens(loaded):
    prompt = render_prompt(loaded, "what is it?")
    for size in [(1, 1), (200, 1), (1, 200), (201, 1), (3, 601), (3000, 2)]:
        picture = Image.new("RGB", size)
        picture.filename = "hair.png"
        if loaded.family.refuses(size) is None:
            loaded.encode([prompt], [picture])
            continue
        good = Image.new("RGB", (40, 30))
        said = rf"the processor of .* refuses the picture hair.png of {size[0]} x {size[1]} pixels"
        with pytest.raises(PerpoError, match=said):
            loaded.encode([prompt] * 2, [good, picture])
