"""perpo-eval import: answers that were made elsewhere become a stored run."""

from __future__ import annotations

from perpo.common.arguments import parse_arguments
from perpo.common.program import quiet_libraries
from perpo_eval.arguments import JudgeFlags
from perpo_eval.cli.show import show
from perpo_eval.imports.arguments import ImportArguments

_DESCRIPTION = (
    "Score predictions that were made elsewhere, in their own files, and store a run record. Samples are found by what "
    "the files say of them; questions and truths are held against the benchmark. See docs/importing.md."
)


def import_main(argv: list[str]) -> int:
    """Import prediction files; 3 if too many answers are missing."""
    words = ["--files", *argv] if argv and not argv[0].startswith("-") else argv
    args = parse_arguments(ImportArguments, words, prog="perpo-eval import", description=_DESCRIPTION)
    quiet_libraries()
    from perpo_eval.imports.command import import_predictions

    return show(import_predictions(args), JudgeFlags(), as_json=args.json)
