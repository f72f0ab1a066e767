"""What can be wrong with an evaluation, found before a model is loaded."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from perpo.benchmarks.prompts import asking_of
from perpo.common.files import check_writable
from perpo.common.numbers import check_numbers
from perpo.errors import PerpoError
from perpo.models.checkpoints import model_config, resolve_model
from perpo.models.families import FAMILIES, Family, family_of
from perpo.records.training_record import read_record
from perpo_eval.arguments import BOX_FLAGS, check_unused, given
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.engines.base import family_from
from perpo_eval.engines.choice import check_engine
from perpo_eval.evaluate.token_limits import token_limits
from perpo_eval.judge.from_flags import check_swap, judge_of
from perpo_eval.rows.suites import TaskSpec, missing_tasks, select_tasks

if TYPE_CHECKING:
    from perpo_eval.arguments import EvalArguments
    from perpo_eval.judge.verdicts import Judge


def templates_of(args: EvalArguments, specs: Sequence[TaskSpec], family: Family | None) -> dict[str, str]:
    """The prompt of each task, with {query} in it; questions of one's own are asked as they are written."""
    boxes = {spec.name: BENCHMARKS[spec.benchmark] for spec in specs if BENCHMARKS[spec.benchmark].has_boxes}
    # Yes/no questions and pages are asked alike of every family.
    asked = family or FAMILIES["llava"]
    return {
        spec.name: boxes[spec.name].prompt(asked, args.prompt_style)
        if spec.name in boxes
        else asking_of(spec.name).template
        for spec in specs
    }


def check_family(family: Family | None, specs: Sequence[TaskSpec]) -> None:
    """Refuse to read boxes of an unknown family.

    Raises:
        PerpoError: A task needs a family, and there is none.
    """
    boxes = [spec.name for spec in specs if BENCHMARKS[spec.benchmark].has_boxes]
    if boxes and family is None:
        known = ", ".join(FAMILIES)
        raise PerpoError(
            f"{boxes[0]} needs to know how the model writes boxes",
            f"give --family (known: {known}), or --box_scale, and --box_order and --box_frame where they are others",
        )


def check_frame(args: EvalArguments, specs: Sequence[TaskSpec]) -> None:
    """Refuse to guess the frame of boxes where another engine prepares the pictures.

    Raises:
        PerpoError: It is not declared.
    """
    if args.engine != "perpo" and args.box_frame is None and any(BENCHMARKS[s.benchmark].has_boxes for s in specs):
        raise PerpoError(
            f"--engine {args.engine} prepares pictures in its own way, so the frame of its boxes is not known",
            "declare it: --box_frame cropped for lmms:llava_hf, padded where it pads, original otherwise",
        )


def check(args: EvalArguments) -> list[TaskSpec]:
    """Everything that can be refused at once; returns the tasks.

    Raises:
        PerpoError: A number out of its range, or data, a model, an adapter or an output that cannot be used.
    """
    check_numbers(args)
    _check_sampling(args)
    if args.questions is None:
        judge_meant(args)
    if importlib.util.find_spec("lmms_eval") is None:
        raise PerpoError("lmms-eval, which evaluates, is not installed", "pip install 'perpo[eval]'")
    specs = select_tasks(args.suite, args.data, args.tasks)
    check_swap(args, {spec.benchmark for spec in specs})
    token_limits(args, specs)
    if args.family is not None:
        family_of(args.family)
    if not args.tasks and (missing := missing_tasks(args.suite, args.data, specs)):
        print(f"note: {missing}", file=sys.stderr)
    if args.questions is not None:
        check_unused(args, ("suite", "model", "data", "tasks", "limit", "prompt_style", "family"))
    elif args.responses is None:
        check_engine(args)
        check_frame(args, specs)
        if args.engine == "perpo":
            family = family_from(args, model_config(resolve_model(args.model or "tiny")))
            check_family(family, specs)
            templates_of(args, specs, family)
        if args.adapter is not None:
            read_record(args.adapter)
    else:
        asked = ("suite", "data", "tasks", "limit", "prompt_style", "family", "name", "output", "json")
        check_unused(args, (*asked, *BOX_FLAGS, "judge", *given(args)))
        check_family(family_from(args, None), specs)
    check_writable(Path(args.output))
    return specs


def judge_meant(args: EvalArguments) -> Judge | None:
    """Who judges; None where nobody does.

    Raises:
        PerpoError: No judge is named where one is needed, or one is where none is asked.
    """
    names = given(args)
    if args.suite != "judged" and (names or args.judge != "model"):
        raise PerpoError(f"--{(names or ['judge'])[0]} is for --suite judged", "no other suite asks a judge")
    if args.judge == "none" and names:
        raise PerpoError(f"--{names[0]} has no use with --judge none", "leave one of the two out")
    return judge_of(args, args.output) if args.suite == "judged" and args.judge == "model" else None


def _check_sampling(args: EvalArguments) -> None:
    if args.temperature == 0 and (args.top_p < 1 or args.seed):
        raise PerpoError("--top_p and --seed have no use without --temperature", "greedy answers are always the same")
