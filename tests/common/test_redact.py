"""Secrets are hidden wherever a command line, arguments or a message are kept; what is none stays."""

from __future__ import annotations

import pytest

from perpo.common.redact import clean, is_secret, known_secrets, without_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model_version=m,api_key=abc,batch=2", "model_version=m,api_key=***,batch=2"),
        ("OPENAI_API_KEY=abc apiKey: 'abc'", "OPENAI_API_KEY=*** apiKey: '***'"),
        ("{'Authorization': 'Bearer abc', 'n': 1}", "{'Authorization': '***', 'n': 1}"),
        ("password=a;hf_token=b&x=1", "password=***;hf_token=***&x=1"),
        ("http://me:word@host:80/v1?token=t&y=2", "http://***@host:80/v1?token=***&y=2"),
        ("sent Bearer abcdefghijk to it", "sent Bearer *** to it"),
        ("Incorrect API key provided: sk-abcdefghijklmnop1234", "Incorrect API key provided: ***"),
        ("--x key-of-mine-1", "--x ***"),
    ],
)
def test_secrets_are_hidden(text, expected):
    assert without_secrets(text, {"key-of-mine-1", "short"}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "max_new_tokens=64,eos_token=</s>,tokenizer=x,pad_token_id=3",
        "perpo-eval --max_new_tokens 64 --data a:b --judge_base_url http://host/v1",
        "monkey: 3, cluster of keys",
        "use_keyframes=1,image_token=<image>",
        "short",
    ],
)
def test_what_is_no_secret_stays(text):
    assert without_secrets(text, {"short"}) == text


def test_a_structure_is_cleaned_by_its_names_too():
    given = {"api_key": "abc", "max_new_tokens": 3, "tasks": ["a", "http://u:p@h"], "deep": {"secret": "s", "n": None}}
    assert clean(given) == {
        "api_key": "***", "max_new_tokens": 3, "tasks": ["a", "http://***@h"], "deep": {"secret": "***", "n": None},
    }  # fmt: skip


def test_secrets_of_the_environment_are_known(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "of-the-environment")
    assert {"of-the-environment", "given"} <= known_secrets({"token": "given", "model": "m"})
    assert "m" not in known_secrets({"model": "m"})


def test_long_texts_take_no_long_time():
    """A quadratic search would take minutes over these."""
    for text in ("a" * 200_000, "key" * 60_000, "://" * 60_000, "key_token=" * 20_000):
        without_secrets(text)
    assert not is_secret("a" * 200_000)
