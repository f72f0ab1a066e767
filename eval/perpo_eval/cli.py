"""perpo-eval: evaluate a checkpoint on a suite and store the run record."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perpo.boxes import Frame, Order, Scale
from perpo.common.arguments import arg, parse_arguments
from perpo.common.program import quiet_libraries, run_program
from perpo_eval.failures import MOST_ERRORS
from perpo_eval.judge_cli import JudgeFlags, judge_main, show


@dataclass(frozen=True, kw_only=True)
class AnswerFlags:
    """What is asked, of whom, and what becomes of it."""

    suite: Literal["grounding", "pope", "ocr", "paper", "judged"] = arg("grounding", "which tasks and scores")
    model: str | None = arg(None, "tiny (the embedded checkpoint; default), a Hugging Face folder, or a hub id")
    adapter: str | None = arg(None, "folder of an adapter that perpo-train wrote")
    data: str = arg("tiny", "tiny (the embedded world), hub, or a folder: what perpo-data wrote, or published files")
    tasks: list[str] = arg([], "tasks to run (default: all of the suite that the data serve)")
    limit: int | None = arg(None, "only the first so many samples of each task")
    batch_size: int | None = arg(
        None, "questions in one batch (default: 16; 1 for lmms:<model>); some answers in half precision depend on it"
    )
    max_new_tokens: int | str | None = arg(
        None,
        "where answers are cut: 2048 for all, or by task or benchmark: pope=1024,refcoco_val=512; models that think "
        "need more (default: by benchmark, 64 for boxes to 2048 a page)",
    )
    temperature: float = arg(0.0, "0 takes the most probable token, more draws")
    top_p: float = arg(1.0, "share of the probability that is drawn from")
    seed: int = arg(0, "what is drawn depends on it, the question and the image alone; from 0 to 2^64 - 1")
    prompt_style: Literal["paper", "lmms_eval"] = arg("paper", "grounding question: the paper's, or lmms-eval's longer")
    engine: str = arg("perpo", "perpo, or lmms:<model> for any model that lmms-eval knows")
    model_args: str = arg("", "for --engine lmms:<model>: name=value,name=value")
    max_error_share: float = arg(
        MOST_ERRORS, "for --engine lmms:<model>: with a larger share of failed requests the run is partial, exit code 3"
    )
    family: str | None = arg(None, "how boxes are written, for --engine lmms:<model>, --responses and unlisted types")
    box_scale: Scale | None = arg(None, "what numbers of boxes count (default: the family's; says all without one)")
    box_order: Order | None = arg(None, "which number is which: corners, y first, or width and height (default: same)")
    box_frame: Frame | None = arg(None, "the picture that boxes refer to (default: the family's, for --engine perpo)")
    name: str | None = arg(None, "what tables call this run (default: the model and adapter)")
    dtype: Literal["float32", "bfloat16", "float16"] | None = arg(
        None, "type of the weights (default: bfloat16 on a GPU, float32 on the CPU)"
    )
    device: str | None = arg(None, "torch device (default: CUDA where there is one, else the CPU)")
    output: str = arg("results", "results folder; the run lies in <output>/<model>/<run_id>")
    questions: Path | None = arg(None, "write what would be asked to this JSON lines file, and stop")
    responses: Path | None = arg(None, "score these answers instead of asking: JSON lines, sample_key and response")
    rescore: Path | None = arg(None, "score the responses of this stored run again; needs no model and no data")
    json: bool = arg(False, "print run.json's content on stdout instead of the table")


@dataclass(frozen=True, kw_only=True)
class EvalArguments(JudgeFlags, AnswerFlags):
    """What perpo-eval takes."""

    judge: Literal["model", "none"] = arg(
        "model", "for --suite judged: model asks --judge_model; none keeps the answers, for perpo-eval judge"
    )


_DESCRIPTION = (
    "Evaluate a checkpoint through lmms-eval, print its scores, and store a run record. "
    "Of stored runs: perpo-eval list, perpo-eval show, perpo-eval export, perpo-eval judge."
)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    return run_program(_main, argv)


def _main(argv: list[str]) -> int:
    if argv and argv[0] in ("list", "show", "export"):
        from perpo_eval import results_cli

        mains = {"list": results_cli.list_main, "show": results_cli.show_main, "export": results_cli.export_main}
        mains[argv[0]](argv[1:])
        return 0
    if argv and argv[0] == "judge":
        return judge_main(argv[1:])
    args = parse_arguments(EvalArguments, argv, prog="perpo-eval", description=_DESCRIPTION)
    quiet_libraries()
    from perpo_eval.runner import evaluate, write_questions

    if args.questions is not None:
        count = write_questions(args)
        print(f"{args.questions}: {count:,} questions", file=sys.stderr)
        return 0
    path = evaluate(args)
    return 0 if path is None else show(path, args, as_json=args.json)  # None: not the first of several processes


if __name__ == "__main__":
    sys.exit(main())
