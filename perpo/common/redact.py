"""Keys, tokens and passwords are taken out of whatever is stored or shown. Needs no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "***"
"""What stands in place of a secret."""

_SHORTEST_SECRET = 8
"""Shorter values are the dummies of local servers ("EMPTY"): words that may well stand in a text."""

_WORDS = (
    r"(?:(?<![a-z])|api|access|auth|private|account|subscription|license)key|"
    r"token|secret|passw|pwd|credential|authorization|cookie"
)
_SECRET = re.compile(_WORDS, re.IGNORECASE)
# What a model counts, cuts and marks is named by the same words, and is no secret.
_HARMLESS = re.compile(
    r"tokens|tokeni[sz]|token_?(?:id|type|len|count|limit|budget|per)|key_?(?:frame|point|word|value)|"
    r"(?:^|_)(?:bos|eos|pad|unk|sep|cls|mask|image|img|video|audio|start|end|stop|special|think)_?token$",
    re.IGNORECASE,
)
_NAMED = re.compile(
    rf"""(?<![\w.-])(?P<name>[\w.-]*?(?:{_WORDS})[\w.-]*)(?P<sign>["']?\s*[=:]\s*["']?)"""
    r"""(?P<value>(?:(?:bearer|basic)\s+)?[^\s,;&"'}\]]+)""",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_WELL_KNOWN = re.compile(r"\b(?:sk-[\w-]{16,}|hf_[A-Za-z0-9]{16,})")
_USER_OF_ADDRESS = re.compile(r"(?<=://)[^/\s@,\"']+@")


def is_secret(name: str) -> bool:
    """Return whether what goes by that name (of an argument, a header, a variable) is a secret."""
    return bool(_SECRET.search(name)) and not _HARMLESS.search(name)


def without_secrets(text: str, values: Iterable[str] = ()) -> str:
    """Put `HIDDEN` in place of every secret in a text: a command line, a list of arguments, a message, an address.

    Args:
        text: Where `name=value` or `name: value` says a secret, an address holds a user, or a key is plain to see.
        values: Secrets that are known, wherever they stand.
    """
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN) if len(value) >= _SHORTEST_SECRET else text
    text = _USER_OF_ADDRESS.sub(f"{HIDDEN}@", text)
    text = _NAMED.sub(_hidden, text)
    return _WELL_KNOWN.sub(HIDDEN, _BEARER.sub(rf"\1 {HIDDEN}", text))


def known_secrets(given: Mapping[str, str]) -> set[str]:
    """Return the values of secrets among some arguments and in this process's environment, for `without_secrets`."""
    return {value for name, value in (*given.items(), *os.environ.items()) if value and is_secret(name)}


def clean(value: Any) -> Any:
    """Apply `without_secrets` to every text in a structure of dictionaries and lists, by their names too."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        secret = {name for name, held in value.items() if isinstance(held, str) and held and is_secret(str(name))}
        return {name: HIDDEN if name in secret else clean(held) for name, held in value.items()}
    return [clean(each) for each in value] if isinstance(value, list | tuple) else value


def _hidden(match: re.Match[str]) -> str:
    return f"{match['name']}{match['sign']}{HIDDEN}" if is_secret(match["name"]) else match[0]
