"""Replies of servers, as they are read. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """An answer of the server.

    Attributes:
        text: Its words, those of a refusal too; None if it gave none.
        finish_reason: As the server says it ("stop", "length", "content_filter"), or None.
        refused: Whether the server marks it as a refusal.
        model: The model's name as the server says it, or None.
        prompt_tokens: As the server counts, or None.
        completion_tokens: As the server counts, of all answers to a call together, or None.
        token_ids: Those of the answer, the end token included, or None where the server does not say them.
        thought: What a server's own parser took out of the answer as a thought, or None.
    """

    text: str | None
    finish_reason: str | None
    refused: bool
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    token_ids: tuple[int, ...] | None = None
    thought: str | None = None


@dataclass(frozen=True)
class Completion:
    """All that a server gives for one call.

    Attributes:
        replies: Its answers, at least one.
        prompt_ids: The tokens that the model read, or None where the server does not say them.
    """

    replies: list[Reply]
    prompt_ids: tuple[int, ...] | None = None
