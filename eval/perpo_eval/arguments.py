"""The arguments of perpo-eval and its judge; which of them are unused; the command that would repeat a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from perpo.boxes import Frame, Order, Scale
from perpo.common.arguments import arg, command_line, default_of
from perpo.common.numbers import AboveZero, Count, Seed64, Share, ShareAboveZero, ZeroOrMore
from perpo.common.redact import without_secrets
from perpo.engines.server_flags import ServerFlags
from perpo.engines.vllm_flags import VllmFlags, vllm_wanted
from perpo.errors import PerpoError
from perpo_eval.wanted import (
    MOST_ERRORS,
    DecodingWanted,
    EngineWanted,
    JudgeWanted,
    Reading,
    RowsWanted,
    RunWanted,
    Suite,
)

BOX_FLAGS = ("box_scale", "box_order", "box_frame")


@dataclass(frozen=True, kw_only=True)
class AnswerFlags:
    """Flags that say what is asked, of whom, and what becomes of it."""

    suite: Suite = arg("grounding", "group of tasks to run")
    model: str | None = arg(
        None,
        "tiny (default) or tiny-ocr (embedded models), a folder in the Hugging Face layout, or a hub id",
    )
    adapter: str | None = arg(None, "folder of an adapter that perpo-train wrote")
    data: str = arg("tiny", "tiny (the embedded world), hub, or a folder with files of perpo-data or published files")
    tasks: list[str] = arg(
        [],
        "tasks to run, separated by spaces or commas (default: all tasks of the suite that the data hold). Other names "
        "are tasks, groups and tags of lmms-eval",
    )
    include_path: str | None = arg(None, "folder with lmms-eval task files of your own, to be named in --tasks")
    limit: Count | None = arg(None, "use only the first N samples of each task")
    batch_size: Count | None = arg(
        None,
        "questions per batch (default: 16; 64 for vllm and server; 1 for lmms:<model>). In half precision some answers "
        "depend on it",
    )
    max_new_tokens: int | str | None = arg(
        None,
        "most tokens of an answer: one number for all, or one for a task or benchmark, such as "
        "pope=1024,refcoco_val=512. Models that think need more (default: by benchmark, from 64 for boxes to "
        "2048 for pages)",
    )
    temperature: ZeroOrMore = arg(0.0, "temperature of sampling; 0 takes the most probable token")
    top_p: ShareAboveZero = arg(
        1.0, "sample from the fewest tokens whose probabilities sum to this; 1 means all tokens"
    )
    seed: Seed64 = arg(
        0, "seed of sampling; an answer depends on the seed, the question and the image only; from 0 to 2^64 - 1"
    )
    stop_on_repetition: bool = arg(
        False,
        "for --engine perpo: end an answer where it loops; it counts as cut. Answers that end in a loop are counted "
        "anyhow",
    )
    prompt_style: Literal["paper", "lmms_eval"] = arg(
        "paper", "question for grounding: the paper's, or the longer one of lmms-eval"
    )
    engine: str = arg(
        "perpo",
        "perpo loads the model here; vllm loads it here into vLLM, which must be installed; server asks "
        "OpenAI-compatible servers that have it; lmms:<model> is a model class of lmms-eval",
    )
    model_args: str = arg("", "for --engine lmms:<model>: name=value,name=value")
    max_error_share: Share = arg(
        MOST_ERRORS,
        "for --engine vllm, server and lmms:<model>: if a larger share of requests fails, the run is partial (exit "
        "code 3)",
    )
    family: str | None = arg(
        None,
        "model family, which says how boxes are written; for --engine lmms:<model>, --responses and model "
        "types without a known family",
    )
    box_scale: Scale | None = arg(
        None, "unit of the numbers in boxes (default: that of the family; required if there is no family)"
    )
    box_order: Order | None = arg(
        None,
        "order of the four numbers: corners, corners with y first, or corner with width and height (default: "
        "that of the family)",
    )
    box_frame: Frame | None = arg(None, "picture that boxes refer to (default: that of the family, for --engine perpo)")
    reviewed_labels: str | None = arg(
        None,
        "hub, or a folder with the public review of RefCOCO's labels: also gives Acc@0.5 on right and on wrong labels",
    )
    name: str | None = arg(None, "name of this run in tables (default: the model and adapter)")
    dtype: Literal["float32", "bfloat16", "float16"] | None = arg(
        None, "type of the weights (default: bfloat16 on a GPU, float32 on the CPU)"
    )
    device: str | None = arg(None, "torch device, such as cpu or cuda:0 (default: a GPU if there is one, else the CPU)")
    estimate: str | None = arg(
        None, "GPU, such as H100: tell what this would cost (tokens, FLOPs, memory, hours) and run nothing"
    )
    output: str = arg("results", "results folder; the run is written to <output>/<model>/<run_id>")
    questions: Path | None = arg(None, "write the questions to this JSON lines file and stop, without asking a model")
    responses: Path | None = arg(
        None, "score the answers in this JSON lines file, with sample_key and response, without asking a model"
    )
    rescore: Path | None = arg(None, "score the responses of this stored run again, without model and data")
    json: bool = arg(False, "print run.json instead of the table")

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
        of_others = ("servers", "vllm")
        given = {each.name: getattr(self, each.name) for each in fields(EngineWanted) if each.name not in of_others}
        return EngineWanted(**given, servers=None)

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
    """Flags that say which judge is asked, and how. Its key is taken from the environment alone."""

    judge_model: str | None = arg(
        JudgeWanted.model,
        "name of the judge model at --judge_base_url; its key is read from PERPO_JUDGE_API_KEY, else OPENAI_API_KEY",
    )
    judge_base_url: str = arg(JudgeWanted.base_url, "address of an OpenAI-compatible server, such as your own vLLM")
    judge_votes: Count = arg(
        JudgeWanted.votes, "how often each answer is judged; with more than 1, the judge's standard error is given"
    )
    judge_swap: bool = arg(
        JudgeWanted.swap, "show LLaVA-Bench's two answers in both orders (not the published protocol)"
    )
    judge_rps: AboveZero | None = arg(JudgeWanted.rps, "most calls to the judge that are started per second")
    judge_concurrency: Count = arg(JudgeWanted.concurrency, "most calls to the judge at the same time")

    @property
    def judge_wanted(self) -> JudgeWanted:
        """Return which judge is asked, and how."""
        return JudgeWanted(**{each.name: getattr(self, f"judge_{each.name}") for each in fields(JudgeWanted)})


@dataclass(frozen=True, kw_only=True)
class EvalArguments(JudgeFlags, VllmFlags, ServerFlags, AnswerFlags):
    """The arguments of perpo-eval."""

    judge: Literal["model", "none"] = arg(
        "model", "for --suite judged. model: ask --judge_model. none: only keep the answers, for perpo-eval judge later"
    )

    @property
    def engine_wanted(self) -> EngineWanted:
        """Return what is to answer."""
        wanted = super().engine_wanted
        servers = self.servers if self.engine == "server" else None
        return replace(wanted, servers=servers, vllm=vllm_wanted(self.vllm_args) if self.engine == "vllm" else None)

    @property
    def run_wanted(self) -> RunWanted:
        """Return the run that is to be stored."""
        return RunWanted(name=self.name, output=self.output, command=_command(self))


@dataclass(frozen=True, kw_only=True)
class JudgeArguments(JudgeFlags):
    """The arguments of perpo-eval judge."""

    run: str = arg(
        help="folder of a run, a folder of runs (its newest is used), or the id or name of a run in --output"
    )
    output: str = arg("results", "results folder for the new run and for the judge's answers")
    name: str | None = arg(None, "name of the new run in tables (default: that of the old run)")
    json: bool = arg(False, "print run.json instead of the tables")

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
            raise PerpoError(f"--{field.name} has no effect with --{mode}", f"leave --{field.name} out")


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
