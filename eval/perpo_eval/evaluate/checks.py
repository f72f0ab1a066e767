"""Check all that can be wrong with an evaluation before a model is loaded."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from perpo.benchmarks.prompts import asking_of
from perpo.errors import PerpoError
from perpo.models.families import FAMILIES, Family, family_of
from perpo.records.training_record import read_record
from perpo_eval.benchmarks.table import BENCHMARKS, has_boxes
from perpo_eval.engines.base import config_of, family_from
from perpo_eval.engines.choice import check_engine
from perpo_eval.harness.loading import harness_specs
from perpo_eval.judge.from_flags import check_swap, judge_of
from perpo_eval.rows.suites import TaskSpec, missing_tasks, select_tasks
from perpo_eval.wanted import DecodingWanted, EngineWanted, JudgeWanted, Reading, RowsWanted

if TYPE_CHECKING:
    from perpo_eval.benchmarks.base import PromptStyle
    from perpo_eval.judge.verdicts import Judge


def templates_of(prompt_style: PromptStyle, specs: Sequence[TaskSpec], family: Family | None) -> dict[str, str]:
    """Return the prompt of each task, with {query} in it; questions of one's own are asked as they are written."""
    boxes = {spec.name: BENCHMARKS[spec.benchmark] for spec in specs if has_boxes(spec.benchmark)}
    # Yes/no questions and pages are asked alike of every family.
    asked = family or FAMILIES["llava"]
    return {
        spec.name: boxes[spec.name].prompt(asked, prompt_style) if spec.name in boxes else asking_of(spec.name).template
        for spec in specs
    }


def check_family(family: Family | None, specs: Sequence[TaskSpec]) -> None:
    """Refuse to read boxes of an unknown family.

    Raises:
        PerpoError: A task needs a family, and there is none.
    """
    boxes = [spec.name for spec in specs if has_boxes(spec.benchmark)]
    if boxes and family is None:
        known = ", ".join(FAMILIES)
        raise PerpoError(
            f"{boxes[0]} needs to know how this model writes boxes",
            f"give --family (known: {known}), or --box_scale, and --box_order and --box_frame where they are others",
        )


def check_frame(engine: EngineWanted, reading: Reading, specs: Sequence[TaskSpec]) -> None:
    """Refuse to guess the frame of boxes where another engine prepares the pictures.

    Raises:
        PerpoError: It is not declared.
    """
    if not engine.own and reading.frame is None and any(has_boxes(spec.benchmark) for spec in specs):
        raise PerpoError(
            f"--engine {engine.engine} prepares pictures in its own way, so it is not known to which frame its "
            "boxes refer",
            "give --box_frame cropped for lmms:llava_hf, padded if the model class pads pictures, original otherwise",
        )


def check_questions(rows: RowsWanted, reading: Reading, judge: JudgeWanted) -> Sequence[TaskSpec]:
    """Refuse what cannot be asked; returns the tasks.

    Raises:
        PerpoError: Data that cannot be used, an unknown family, or a judge's setting that no task has use for.
    """
    if importlib.util.find_spec("lmms_eval") is None:
        raise PerpoError("lmms-eval, which perpo-eval needs, is not installed", "pip install 'perpo[eval]'")
    if harness := harness_specs(rows):
        return harness
    specs = select_tasks(rows.suite, rows.data, rows.tasks)
    check_swap(judge, {spec.benchmark for spec in specs})
    if reading.family is not None:
        family_of(reading.family)
    return specs


def note_missing(rows: RowsWanted, specs: Sequence[TaskSpec]) -> None:
    """Say what the data lack of a suite that is asked for as a whole."""
    if not rows.tasks and (missing := missing_tasks(rows.suite, rows.data, specs)):
        print(f"note: {missing}", file=sys.stderr)


def check_answering(
    engine: EngineWanted, reading: Reading, specs: Sequence[TaskSpec], decoding: DecodingWanted
) -> None:
    """Refuse what could not answer, or whose boxes could not be read.

    Raises:
        PerpoError: A model, an adapter or a setting that cannot be used.
    """
    check_engine(engine, reading, decoding)
    check_frame(engine, reading, specs)
    if engine.own:
        family = family_from(reading, config_of(engine))
        check_family(family, specs)
        templates_of(reading.prompt_style, specs, family)
    if engine.adapter is not None:
        read_record(engine.adapter)


def judge_meant(wanted: JudgeWanted, asks: Literal["model", "none"], suite: str, output: str) -> Judge | None:
    """Return who judges; None where nobody does.

    Args:
        wanted: The judge.
        asks: Whether it is asked now, or nobody is.
        suite: What is asked.
        output: The results folder.

    Raises:
        PerpoError: No judge is named where one is needed, or one is where none is asked.
    """
    names = wanted.given
    if suite != "judged" and (names or asks != "model"):
        raise PerpoError(
            f"--{(names or ['judge'])[0]} is for --suite judged", "leave it out: other suites do not ask a judge"
        )
    if asks == "none" and names:
        raise PerpoError(f"--{names[0]} has no effect with --judge none", "leave one of the two out")
    if suite != "judged" or asks == "none":
        return None
    return judge_of(wanted, output, otherwise=", or --judge none to keep the answers for perpo-eval judge")
