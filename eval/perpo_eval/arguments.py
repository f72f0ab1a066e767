"""What perpo-eval and its judge take; what is unused; the command that would repeat a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from perpo.boxes import Frame, Order, Scale
from perpo.common.arguments import arg, command_line, default_of
from perpo.common.numbers import AboveZero, Count, Seed64, Share, ShareAboveZero, ZeroOrMore
from perpo.common.redact import without_secrets
from perpo.errors import PerpoError
from perpo_eval.wanted import (
    MOST_ERRORS,
    DecodingWanted,
    EngineWanted,
    JudgeWanted,
    Reading,
    RowsWanted,
    RunWanted,
)

BOX_FLAGS = ("box_scale", "box_order", "box_frame")


@dataclass(frozen=True, kw_only=True)
class AnswerFlags:
    """What is asked, of whom, and what becomes of it."""

    suite: Literal["grounding", "pope", "ocr", "paper", "judged"] = arg("grounding", "which tasks and scores")
    model: str | None = arg(None, "tiny (the embedded checkpoint; default), a Hugging Face folder, or a hub id")
    adapter: str | None = arg(None, "folder of an adapter that perpo-train wrote")
    data: str = arg("tiny", "tiny (the embedded world), hub, or a folder: what perpo-data wrote, or published files")
    tasks: list[str] = arg(
        [],
        "tasks to run, by spaces or commas (default: all of the suite that the data serve); other names are tasks, "
        "groups and tags of lmms-eval",
    )
    include_path: str | None = arg(None, "folder with lmms-eval task files of your own, to be named in --tasks")
    limit: Count | None = arg(None, "only the first so many samples of each task")
    batch_size: Count | None = arg(
        None, "questions in one batch (default: 16; 1 for lmms:<model>); some answers in half precision depend on it"
    )
    max_new_tokens: int | str | None = arg(
        None,
        "where answers are cut: 2048 for all, or by task or benchmark: pope=1024,refcoco_val=512; models that think "
        "need more (default: by benchmark, 64 for boxes to 2048 a page)",
    )
    temperature: ZeroOrMore = arg(0.0, "0 takes the most probable token, more draws")
    top_p: ShareAboveZero = arg(1.0, "share of the probability that is drawn from")
    seed: Seed64 = arg(0, "what is drawn depends on it, the question and the image alone; from 0 to 2^64 - 1")
    prompt_style: Literal["paper", "lmms_eval"] = arg("paper", "grounding question: the paper's, or lmms-eval's longer")
    engine: str = arg("perpo", "perpo, or lmms:<model> for any model that lmms-eval knows")
    model_args: str = arg("", "for --engine lmms:<model>: name=value,name=value")
    max_error_share: Share = arg(
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

    @property
    def rows_wanted(self) -> RowsWanted:
        """Return which questions are asked."""
        tasks = tuple(name for given in self.tasks for name in given.split(",") if name)
        return RowsWanted(
            suite=self.suite, data=self.data, tasks=tasks, limit=self.limit, include_path=self.include_path
        )

    @property
    def engine_wanted(self) -> EngineWanted:
        """Return what is to answer."""
        return EngineWanted(**{each.name: getattr(self, each.name) for each in fields(EngineWanted)})

    @property
    def reading(self) -> Reading:
        """Return how a model is asked for boxes, and how it writes them."""
        return Reading(
            family=self.family,
            scale=self.box_scale,
            order=self.box_order,
            frame=self.box_frame,
            prompt_style=self.prompt_style,
        )

    @property
    def decoding_wanted(self) -> DecodingWanted:
        """Return how tokens are chosen, and where answers are cut."""
        return DecodingWanted(**{each.name: getattr(self, each.name) for each in fields(DecodingWanted)})


@dataclass(frozen=True, kw_only=True)
class JudgeFlags:
    """Which judge is asked, and how. Its key is taken from the environment alone."""

    judge_model: str | None = arg(
        JudgeWanted.model,
        "who judges, by the name it has at --judge_base_url; its key: PERPO_JUDGE_API_KEY, else OPENAI_API_KEY",
    )
    judge_base_url: str = arg(JudgeWanted.base_url, "an OpenAI-compatible server, such as one's own vLLM")
    judge_votes: Count = arg(
        JudgeWanted.votes, "how often each answer is judged; more give a standard error of the judge"
    )
    judge_swap: bool = arg(
        JudgeWanted.swap, "show LLaVA-Bench's two answers in both orders (not the published protocol)"
    )
    judge_rps: AboveZero | None = arg(JudgeWanted.rps, "at most so many calls are begun in a second")
    judge_concurrency: Count = arg(JudgeWanted.concurrency, "at most so many calls are open at once")

    @property
    def judge_wanted(self) -> JudgeWanted:
        """Return which judge is asked, and how."""
        return JudgeWanted(**{each.name: getattr(self, f"judge_{each.name}") for each in fields(JudgeWanted)})


@dataclass(frozen=True, kw_only=True)
class EvalArguments(JudgeFlags, AnswerFlags):
    """What perpo-eval takes."""

    judge: Literal["model", "none"] = arg(
        "model", "for --suite judged: model asks --judge_model; none keeps the answers, for perpo-eval judge"
    )

    @property
    def run_wanted(self) -> RunWanted:
        """Return the run that is to be stored."""
        return RunWanted(name=self.name, output=self.output, command=_command(self))


@dataclass(frozen=True, kw_only=True)
class JudgeArguments(JudgeFlags):
    """What perpo-eval judge takes."""

    run: str = arg(help="a run's folder, a folder of runs (its newest), or the id or name of a run in --output")
    output: str = arg("results", "results folder, for the new run and for what judges answered")
    name: str | None = arg(None, "what tables call the new run (default: as the old one)")
    json: bool = arg(False, "print run.json's content on stdout instead of the tables")

    @property
    def run_wanted(self) -> RunWanted:
        """Return the run that is to be stored."""
        return RunWanted(name=self.name, output=self.output, command=_command(self, "judge"))


def check_unused(args: EvalArguments, used: Sequence[str]) -> None:
    """Refuse arguments that would be ignored."""
    mode = next(name for name in ("rescore", "responses", "questions") if getattr(args, name) is not None)
    for field in fields(args):
        default = default_of(field)
        if field.name not in (*used, mode) and getattr(args, field.name) != default:
            raise PerpoError(f"--{field.name} has no use with --{mode}", f"leave --{field.name} out")


def check_foreign(args: EvalArguments) -> None:
    """Refuse arguments that tasks of lmms-eval have no use for: they ask and score as their files say."""
    for field in fields(args):
        unused = field.name in ("suite", "prompt_style", "family", *BOX_FLAGS)
        if unused and getattr(args, field.name) != default_of(field):
            raise PerpoError(
                f"--{field.name} has no use with tasks of lmms-eval, which ask and score as their files say",
                f"leave --{field.name} out",
            )


def _command(args: EvalArguments | JudgeArguments, *subcommand: str) -> str:
    """The command line that would repeat a run, without its secrets."""
    words = shlex.split(command_line("perpo-eval", args, *subcommand))
    return shlex.join(without_secrets(word) for word in words)
