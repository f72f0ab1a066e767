"""perpo-eval judge: read from the command line how a judge is asked, and score the answers of a stored run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perpo.common.arguments import parse_arguments
from perpo_eval.arguments import JudgeArguments
from perpo_eval.cli.show import show

if TYPE_CHECKING:
    pass


def judge_main(argv: list[str]) -> int:
    """Score a stored run's answers by a judge; 3 if too many judgements are missing."""
    words = ["--run", *argv] if argv and not argv[0].startswith("-") else argv
    description = (
        "Let a judge score the answers of a stored run, without the model. The scores are stored as another run."
    )
    args = parse_arguments(JudgeArguments, words, prog="perpo-eval judge", description=description)
    from perpo_eval.evaluate.rescoring import judge_run

    return show(judge_run(args), args, as_json=args.json)
