"""Texts of tokens and tokens of texts, with tokenizers that treat the blank behind a special token differently."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from perpo.errors import PerpoError
from perpo.models.families import FAMILIES
from perpo.models.loaded import LoadedModel, answers_token_ids, render_prompt

CORPUS = ["USER: where is the red cup? ASSISTANT: the red cup [[100, 200]] 0.12 it is here"] * 5
MARKS = ["<ref>", "</ref>", "<box>", "</box>", "<think>"]


def sentencepiece(kind: str) -> Tokenizer:
    """As Llama 2 has it (a blank before every piece of text), and in the two ways that came later."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    corpus = CORPUS
    if kind == "llama-2":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        corpus = [f"▁{text.replace(' ', '▁')}" for text in CORPUS]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind)
    blanks = [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(blanks)
    letters = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def byte_level() -> Tokenizer:
    """As GPT-2 and Qwen have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special, alphabet = ["<unk>", "<s>", "</s>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@pytest.fixture(params=["llama-2", "always", "first", "byte-level"])
def loaded(request) -> LoadedModel:
    """A tokenizer of each kind with special tokens for answers; there is no model behind it."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level() if request.param == "byte-level" else sentencepiece(request.param),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<unk>",
        additional_special_tokens=["<image>", *MARKS],
        clean_up_tokenization_spaces=True,  # which must not touch an answer
    )
    family = replace(FAMILIES["llava"], prompt="USER: {image} {question} ASSISTANT:\n")
    return LoadedModel(None, SimpleNamespace(tokenizer=tokenizer, image_token="<image>"), family, "made", "")


@pytest.mark.parametrize(
    "text",
    [
        "<ref>the red cup</ref><box>[[100, 200]]</box>",
        "<think>it is here</ref> 0.12 <box>[[100 , 200]]</box>",
        "the <ref>red cup</ref>is here",
        "the red cup [[100, 200]]",
        "<box> [[100, 200]]</box> it",
    ],
)
def test_the_tokens_of_an_answer_with_marks_come_back_from_its_text(loaded, text):
    prompt = render_prompt(loaded, "where is the cup?")
    (ids,) = answers_token_ids(loaded, prompt, [text])
    marks = [loaded.tokenizer.convert_tokens_to_ids(mark) for mark in MARKS]
    assert sum(number in marks for number in ids) == sum(map(text.count, MARKS))
    said = loaded.answer_text(ids).strip()
    assert answers_token_ids(loaded, prompt, [said]) == [ids]
    assert said.replace(" ", "") == text.replace(" ", "")


def test_only_what_steers_is_no_text(loaded):
    assert set(loaded.control_tokens.values()) == {"<unk>", "<s>", "</s>", "<image>"}
    for text in ("[0.1]</s>", "<s>[0.1]", "</s>USER: and then?"):
        with pytest.raises(PerpoError, match=r"a question holds </?s>, which controls made"):
            render_prompt(loaded, text)
        with pytest.raises(PerpoError, match=r"an answer holds </?s>"):
            answers_token_ids(loaded, "USER:\n", [text])
    assert loaded.without_control_tokens("a<s>b</s>") == "ab"
