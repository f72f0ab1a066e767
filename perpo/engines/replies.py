"""Replies of engines that are not our own, and how they are read. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perpo.answers import opened_thought
from perpo.engines.base import Answer

if TYPE_CHECKING:
    from perpo.models.loaded import LoadedModel


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


def answer_of(
    loaded: LoadedModel, prompt: str, said: str, token_ids: Sequence[int] | None, *, truncated: bool
) -> Answer:
    """Return an answer, read as our own engine reads its tokens.

    Args:
        loaded: All of the model but its weights.
        prompt: What it answers.
        said: Its words, which count where its tokens are not known.
        token_ids: Its tokens, the end token included, or None.
        truncated: Whether it was cut.
    """
    whole = said if token_ids is None else loaded.answer_text(token_ids)
    text = loaded.without_control_tokens(whole).strip()
    tokens = None if token_ids is None else len(token_ids)
    return Answer(text, truncated, None, opened_thought(prompt), whole, tokens)
