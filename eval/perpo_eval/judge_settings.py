"""Which judge is asked, how, and with which key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from perpo.errors import PerpoError
from perpo_eval.judge_messages import official_settings

KEY_VARIABLES = ("PERPO_JUDGE_API_KEY", "OPENAI_API_KEY")


@dataclass(frozen=True)
class JudgeSettings:
    """Which judge, and how it is asked.

    Attributes:
        model: The judge's name at its server.
        base_url: As OpenAI's clients take it, such as http://127.0.0.1:8000/v1; it must hold no password.
        votes: How often each question is asked.
        rps: No more calls than this are begun in a second; None: no limit.
        concurrency: No more calls than this are open at once.
        timeout_s: For one try of a call.

    Raises:
        PerpoError: A setting out of range, or an address that is none or holds a password or a query.
    """

    model: str
    base_url: str
    votes: int = 1
    rps: float | None = None
    concurrency: int = 16
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        hint = "such as http://127.0.0.1:8000/v1"
        try:
            url = httpx.URL(self.base_url)
        except httpx.InvalidURL as error:
            raise PerpoError(f"the judge's address is no URL: {error}", hint) from None
        if url.userinfo or url.query or url.fragment:
            raise PerpoError(
                "the judge's address must hold no user, password, query or fragment",
                f"put the key into {KEY_VARIABLES[0]}",
            )
        if url.scheme not in ("http", "https") or not url.host:
            raise PerpoError(f"expected the judge's address as http(s)://HOST/..., found {self.base_url!r}", hint)
        if not self.model:
            raise PerpoError("the judge's model has no name", "name it with --judge_model")
        for name in ("votes", "rps", "concurrency", "timeout_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise PerpoError(f"expected {name} of the judge above 0, found {value}")

    def identity(self) -> dict[str, Any]:
        """What answers depend on, for the run record: the judge's name and the official settings."""
        return {"id": self.model, "settings": {"votes": self.votes, **official_settings()}}


def judge_key(environ: Mapping[str, str] = os.environ) -> str | None:
    """The judge's key from the environment: PERPO_JUDGE_API_KEY, else OPENAI_API_KEY, else None."""
    return next((environ[name] for name in KEY_VARIABLES if environ.get(name)), None)


def check_key(key: str | None) -> None:
    """Refuse a key that no HTTP header could hold, without saying it.

    Raises:
        PerpoError: The key holds a space, a control character or a letter beyond ASCII.
    """
    if key is not None and (not key.isascii() or not key.isprintable() or " " in key):
        raise PerpoError("the judge's key holds a character that no key has", f"set {KEY_VARIABLES[0]} anew")
