"""perpo.engines.shared_image and the model class: the answers are those of plain generate(), one question at a time."""

from __future__ import annotations

import json
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from perpo.engines.base import Decoding
from perpo.engines.shared_image import answer
from perpo.errors import PerpoError
from perpo.models.loaded import LoadedModel, render_prompt
from perpo.models.loading import load_model
from perpo.models.lora import add_lora
from perpo.train.outputs.saving import save_checkpoint
from perpo_eval.engines.lmms_model import PerpoModel, _settings

QUESTIONS = [
    "where?",
    "the red circle left of the large blue square",
    "a",
    "the small one that is nearest to the top edge",
]
SETTINGS = {"max_new_tokens": 12, "do_sample": False}


def picture(number: int) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 255, (80 + number, 120, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def adapter(checkpoint, tmp_path_factory) -> str:
    """An adapter that changes what is said, projector included."""
    loaded = load_model(str(checkpoint))
    model = add_lora(loaded, r=4, alpha=8, dropout=0.0, train_projector=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    folder = tmp_path_factory.mktemp("adapter")
    save_checkpoint(model, loaded.processor, folder)
    return str(folder)


@pytest.fixture(scope="module", params=["base", "adapter"])
def loaded(request, checkpoint) -> LoadedModel:
    adapter = request.getfixturevalue("adapter") if request.param == "adapter" else None
    return load_model(str(checkpoint), adapter)


@pytest.fixture(scope="module")
def work(loaded) -> tuple[list[str], list[Image.Image], list[int]]:
    """16 questions about 5 pictures, in mixed order."""
    image_of = [0, 1, 2, 1, 3, 4, 0, 2, 2, 1, 0, 3, 4, 4, 1, 2]
    prompts = [render_prompt(loaded, QUESTIONS[k % 4] + " thing" * (k % 3)) for k in range(16)]
    return prompts, [picture(number) for number in range(5)], image_of


@torch.inference_mode()
def plain(loaded: LoadedModel, prompt: str, image: Image.Image) -> list[int]:
    """One question with the processor's own inputs through generate()."""
    inputs = loaded.encode([prompt], [image])
    ids = loaded.model.generate(**inputs, **SETTINGS)[0, inputs["input_ids"].shape[1] :].tolist()
    return ids[: ids.index(2) + 1] if 2 in ids else ids


def test_a_batch_gives_the_answers_of_one_at_a_time(loaded, work) -> None:
    prompts, images, image_of = work
    expected = [plain(loaded, prompt, images[k]) for prompt, k in zip(prompts, image_of, strict=True)]
    assert len({tuple(ids) for ids in expected}) > 10  # the answers do tell apart
    assert answer(loaded, prompts, images, image_of, SETTINGS) == expected
    alone = [answer(loaded, [p], [images[k]], [0], SETTINGS)[0] for p, k in zip(prompts, image_of, strict=True)]
    assert alone == expected


def test_the_adapter_is_heard(checkpoint, adapter, work) -> None:
    prompts, images, image_of = work
    base, adapted = (
        answer(load_model(str(checkpoint), a), prompts, images, image_of, SETTINGS) for a in (None, adapter)
    )
    assert base != adapted


def test_what_does_not_fit_the_context_is_refused(loaded, work) -> None:
    prompts, images, _ = work
    with pytest.raises(PerpoError, match=r"exceed the model's context of 512"):
        answer(loaded, prompts[:1], images[:1], [0], {"max_new_tokens": 500})


DOCS = 12


def requests(task: str, doc_to_visual, settings: dict | None = None) -> list[SimpleNamespace]:
    """What lmms-eval's Instance is to the model class, one per document."""
    settings = {"max_new_tokens": 12, "do_sample": False, "until": []} if settings is None else settings
    return [
        SimpleNamespace(
            args=(QUESTIONS[k % 4] + " thing" * (k % 3), settings, doc_to_visual, k, task, "rows"),
            task_name=task,
            doc_id=k,
            metadata={},
        )
        for k in range(DOCS)
    ]


def model_with_docs(checkpoint, batch_size: int, columns: dict) -> PerpoModel:
    model = PerpoModel(str(checkpoint), batch_size=batch_size, device="cpu")
    model.task_dict["t"] = datasets.DatasetDict({"rows": datasets.Dataset.from_dict(columns)})
    return model


@pytest.mark.parametrize("columns", [["image_sha256", "picture"], ["picture"]], ids=["shared", "not shared"])
def test_batch_size_and_shared_images_change_no_answer(checkpoint, columns) -> None:
    docs = {"image_sha256": [str(k % 4) for k in range(DOCS)], "picture": [k % 4 for k in range(DOCS)]}
    shown: list[int] = []

    def doc_to_visual(doc: dict) -> list[Image.Image]:
        shown.append(doc["picture"])
        return [picture(doc["picture"])]

    texts = {}
    for size in (1, 5, 16):
        shown.clear()
        model = model_with_docs(checkpoint, size, {name: docs[name] for name in columns})
        texts[size] = [result.text for result in model.generate_until(requests("t", doc_to_visual))]
    assert texts[1] == texts[5] == texts[16]
    assert len(set(texts[1])) > 6
    assert len(shown) == (4 if "image_sha256" in columns else DOCS)  # in one batch of all
    ((request, response), *_), *_ = model.stream(requests("t", doc_to_visual)[3:4])
    assert request.doc_id == 3
    assert response.prompt == render_prompt(model.engine.loaded, QUESTIONS[3])
    assert response.latency_ms > 0


def test_a_failure_is_an_error_not_an_empty_answer(checkpoint) -> None:
    model = model_with_docs(checkpoint, 4, {"picture": list(range(DOCS))})

    def broken(doc: dict) -> list[Image.Image]:
        raise OSError("image file is truncated")

    with pytest.raises(OSError, match="truncated"):
        model.generate_until(requests("t", broken))
    with pytest.raises(PerpoError, match="shows 2 images"):
        model.generate_until(requests("t", lambda doc: [picture(0), picture(1)]))


def test_how_answers_end(checkpoint, monkeypatch) -> None:
    model = model_with_docs(checkpoint, 16, {"picture": list(range(DOCS))})
    tokenizer = model.engine.loaded.tokenizer
    said = [tokenizer("0.10, 0.20").input_ids, [*tokenizer("0.10").input_ids, 2], [2]]

    def scripted(loaded, prompts, *rest) -> list[list[int]]:
        return [said[len(prompt) % 3] for prompt in prompts]

    monkeypatch.setattr("perpo.engines.hf.answer", scripted)

    def run(until) -> dict[str, tuple[str, int]]:
        settings = {"max_new_tokens": 9, "until": until}
        answered = model.stream(requests("t", lambda doc: [picture(0)], settings))
        return {r.text: (r.finish_reason, r.tokens_out) for batch in answered for _, r in batch}

    assert run([]) == {"0.10, 0.20": ("length", len(said[0])), "0.10": ("stop", 2), "": ("stop", 1)}
    assert run([","])["0.10"][0] == "stop"
    assert "0.10, 0.20" not in run(",")


def test_settings_of_other_tasks() -> None:
    """lmms-eval's tasks write greedy decoding in several ways; what is not known is refused, not ignored."""
    greedy = Decoding(max_new_tokens=16, temperature=0, logps=False)
    given = {
        "max_new_tokens": 16,
        "temperature": 0,
        "top_p": 1.0,
        "num_beams": 1,
        "do_sample": False,
        "until": ["\n\n"],
    }
    assert _settings(json.dumps(given)) == (greedy, ["\n\n"])
    assert _settings("{}") == (Decoding(max_new_tokens=256, temperature=0, logps=False), [])
    drawn = Decoding(max_new_tokens=256, temperature=0.7, top_p=1.0, seed=0, logps=False)
    assert _settings('{"do_sample": true, "temperature": 0.7}') == (drawn, [])
    with pytest.raises(PerpoError, match="hold penalty"):
        _settings('{"penalty": 2}')
    with pytest.raises(PerpoError, match="beam search"):
        _settings('{"num_beams": 4}')
