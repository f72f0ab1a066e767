"""perpo-eval: evaluate a checkpoint on a suite and store the run record."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from perpo.cli.common import arg, parse_arguments, quiet_libraries, run_program


@dataclass(frozen=True, kw_only=True)
class EvalArguments:
    """What perpo-eval takes."""

    suite: Literal["grounding"] = arg("grounding", "which tasks and scores")
    model: str = arg("tiny", "tiny (the embedded checkpoint), a folder in the Hugging Face layout, or a hub id")
    adapter: str | None = arg(None, "folder of an adapter that perpo-train wrote")
    data: str = arg("tiny", "tiny (the embedded world), hub, or a folder of <task>.parquet in RefCOCO's columns")
    tasks: list[str] = arg([], "tasks to run (default: all that the data serve)")
    limit: int | None = arg(None, "only the first so many expressions of each task")
    batch_size: int = arg(16, "questions in one batch; greedy answers do not depend on it in float32")
    name: str | None = arg(None, "what tables call this run (default: the model and adapter)")
    dtype: Literal["float32", "bfloat16", "float16"] = arg("float32", "type of the weights")
    device: str | None = arg(None, "torch device (default: CUDA where there is one, else the CPU)")
    output: str = arg("results", "results folder; the run lies in <output>/<model>/<run_id>")
    json: bool = arg(False, "print run.json's content on stdout instead of the table")


def main(argv: list[str] | None = None) -> int:
    """The program."""
    return run_program(_main, argv, interrupted="nothing was stored")


def _main(argv: list[str]) -> None:
    args = parse_arguments(
        EvalArguments,
        argv,
        prog="perpo-eval",
        description="Evaluate a checkpoint through lmms-eval, print its scores, and store a run record.",
    )
    quiet_libraries()
    from perpo_eval.runner import evaluate

    path = evaluate(args)
    if args.json:
        print((path / "run.json").read_text(encoding="utf-8"), end="")
    else:
        from perpo.store import read_run
        from perpo.tables import run_text

        run_text(read_run(path).record).show()
    print(f"run record: {path}", file=sys.stderr)
