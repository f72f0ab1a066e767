"""Settings of a judge: which is asked, how, and with which key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perpo.common.numbers import COUNT
from perpo.engines.chat import ChatServer
from perpo.errors import PerpoError
from perpo_eval.judge.messages import official_settings

KEY_VARIABLES = ("PERPO_JUDGE_API_KEY", "OPENAI_API_KEY")


@dataclass(frozen=True)
class JudgeSettings:
    """Settings of a judge: which one, and how it is asked.

    Attributes:
        model: The judge's name at its server.
        server: Where it is.
        votes: How often each question is asked.

    Raises:
        PerpoError: No name, or no vote.
    """

    model: str
    server: ChatServer
    votes: int = 1

    def __post_init__(self) -> None:
        if not self.model:
            raise PerpoError("the judge's model has no name", "name it with --judge_model")
        COUNT.check(self.votes, "votes of the judge")

    def identity(self) -> dict[str, Any]:
        """Return what answers depend on, for the run record: the judge's name and the official settings."""
        return {"id": self.model, "settings": {"votes": self.votes, **official_settings()}}


def judge_key(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the judge's key from the environment: PERPO_JUDGE_API_KEY, else OPENAI_API_KEY, else None."""
    return next((environ[name] for name in KEY_VARIABLES if environ.get(name)), None)


def check_key(key: str | None) -> None:
    """Refuse a key that no HTTP header could hold, without saying it.

    Raises:
        PerpoError: The key holds a space, a control character or a letter beyond ASCII.
    """
    if key is not None and (not key.isascii() or not key.isprintable() or " " in key):
        raise PerpoError("the key of the judge holds a character that no key may have", f"set {KEY_VARIABLES[0]} anew")
