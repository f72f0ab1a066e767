"""Questions for the judge on loopback, and how tests put them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perpo.engines.chat import ChatServer
from perpo_eval.judge.asking import JudgeQuestion, Verdict, ask_judge
from perpo_eval.judge.messages import llava_messages, mmhal_messages
from perpo_eval.judge.settings import JudgeSettings
from tests.support.judge_server import JudgeServer


def pair(number: int) -> JudgeQuestion:
    """A question of LLaVA-Bench."""
    return JudgeQuestion(
        f"pair {number}", llava_messages(f"What is {number}?", "conv", "A 7.", "7", "8"), "llava_bench"
    )


def rating(number: int) -> JudgeQuestion:
    """A question of MMHal-Bench."""
    return JudgeQuestion(
        f"rating {number}", mmhal_messages(f"What is {number}?", ["Cat", "Dog"], "A cat.", "A"), "mmhal"
    )


def judge_at(model: str, url: str, votes: int = 1, **server: Any) -> JudgeSettings:
    """A judge of that name at a server."""
    return JudgeSettings(model, ChatServer(url, **server), votes)


QUESTIONS = [*map(pair, range(3)), *map(rating, range(3))]


def ask(
    server: JudgeServer,
    cache: Path,
    questions: Sequence[JudgeQuestion] = QUESTIONS,
    key: str | None = None,
    **settings: Any,
) -> dict[str, list[Verdict]]:
    """The verdicts on questions, by a judge of the given settings."""
    return ask_judge(judge_at("gpt", server.url, **settings), questions, cache, key=key)


def settled(answers: dict[str, list[Verdict]]) -> dict[str, object]:
    """The ratings of the first votes."""
    return {name: verdicts[0].rating for name, verdicts in answers.items()}
