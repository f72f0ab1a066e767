"""A judge as it is wanted, checked and ready to be asked."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from perpo.errors import PerpoError
from perpo_eval.wanted import JudgeWanted

if TYPE_CHECKING:
    from perpo_eval.judge.verdicts import Judge


def judge_of(wanted: JudgeWanted, output: str, *, otherwise: str = "") -> Judge:
    """Return the judge that is meant.

    Args:
        wanted: Which, and how it is asked.
        output: The results folder, which keeps what judges answered.
        otherwise: What else a user could do than name one, for the hint.

    Raises:
        PerpoError: None is named, or a setting that cannot be.
    """
    from perpo.engines.chat import ChatServer
    from perpo_eval.judge.settings import JudgeSettings
    from perpo_eval.judge.verdicts import CACHE_FOLDER, Judge

    if wanted.model is None:
        hint = f"give --judge_model (and --judge_base_url){otherwise}"
        raise PerpoError("the answers need a judge, but no judge is named", hint)
    settings = JudgeSettings(
        wanted.model,
        ChatServer(wanted.base_url, rps=wanted.rps, concurrency=wanted.concurrency),
        votes=wanted.votes,
    )
    return Judge(settings, wanted.swap, Path(output) / CACHE_FOLDER)


def check_swap(wanted: JudgeWanted, benchmarks: Collection[str]) -> None:
    """Refuse to show in both orders what is not there.

    Raises:
        PerpoError: No question of these benchmarks has two answers.
    """
    from perpo_eval.judge.table import JUDGINGS

    if wanted.swap and not any(judging.pairs for name, judging in JUDGINGS.items() if name in benchmarks):
        raise PerpoError("--judge_swap has no effect without LLaVA-Bench", "leave --judge_swap out")
