"""A judge as the command line describes it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from perpo.errors import PerpoError
from perpo_eval.arguments import JudgeArguments, JudgeFlags

if TYPE_CHECKING:
    from perpo_eval.judge.verdicts import Judge


def judge_of(flags: JudgeFlags, output: str) -> Judge:
    """The judge that is meant.

    Raises:
        PerpoError: None is named, or a setting that cannot be.
    """
    from perpo.engines.chat import ChatServer
    from perpo_eval.judge.settings import JudgeSettings
    from perpo_eval.judge.verdicts import CACHE_FOLDER, Judge

    if flags.judge_model is None:
        later = ", or --judge none to keep the answers for perpo-eval judge"
        hint = "give --judge_model (and --judge_base_url)" + ("" if isinstance(flags, JudgeArguments) else later)
        raise PerpoError("the answers need a judge, and none is named", hint)
    settings = JudgeSettings(
        flags.judge_model,
        ChatServer(flags.judge_base_url, rps=flags.judge_rps, concurrency=flags.judge_concurrency),
        votes=flags.judge_votes,
    )
    return Judge(settings, flags.judge_swap, Path(output) / CACHE_FOLDER)


def check_swap(flags: JudgeFlags, benchmarks: Collection[str]) -> None:
    """Refuse to show in both orders what is not there.

    Raises:
        PerpoError: No question of these benchmarks has two answers.
    """
    from perpo_eval.judge.table import JUDGINGS

    if flags.judge_swap and not any(judging.pairs for name, judging in JUDGINGS.items() if name in benchmarks):
        raise PerpoError("--judge_swap has no use without LLaVA-Bench", "leave --judge_swap out")
