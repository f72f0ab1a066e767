"""perpo-eval: evaluate a checkpoint on a suite and store the run record."""

from __future__ import annotations

import sys

from perpo.common.arguments import parse_arguments
from perpo.common.program import quiet_libraries, run_program
from perpo_eval.arguments import EvalArguments
from perpo_eval.cli.imports import import_main
from perpo_eval.cli.judge import judge_main
from perpo_eval.cli.show import show

_DESCRIPTION = (
    "Evaluate a model through lmms-eval, print its scores, and store a run record. For answers made elsewhere, see "
    "perpo-eval import. For stored runs, see perpo-eval list, show, readings, export and judge."
)


def main(argv: list[str] | None = None) -> int:
    """Return the program."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["import"]:
        return run_program(_main, words, interrupted="nothing was stored: run the same command again")
    return run_program(_main, words)


def _main(argv: list[str]) -> int:
    if argv and argv[0] in ("list", "show", "readings", "export"):
        from perpo_eval.cli import results

        getattr(results, f"{argv[0]}_main")(argv[1:])
        return 0
    if argv and argv[0] == "judge":
        return judge_main(argv[1:])
    if argv and argv[0] == "import":
        return import_main(argv[1:])
    args = parse_arguments(EvalArguments, argv, prog="perpo-eval", description=_DESCRIPTION)
    quiet_libraries()
    if args.estimate is not None and {args.rescore, args.responses, args.questions} == {None}:
        from perpo_eval.evaluate.estimating import evaluation_estimate

        limit, judge = args.decoding_wanted.max_new_tokens, args.judge_wanted
        evaluation_estimate(args.engine_wanted, args.rows_wanted, args.reading, limit, judge, args.estimate).show()
        return 0
    from perpo_eval.evaluate.run import evaluate, write_questions

    if args.questions is not None:
        count = write_questions(args)
        print(f"{args.questions}: {count:,} questions", file=sys.stderr)
        return 0
    path = evaluate(args)
    return 0 if path is None else show(path, args, as_json=args.json)  # None: not the first of several processes
