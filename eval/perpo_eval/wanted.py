"""The parts of what an evaluation is asked for, one for each of its steps. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from perpo.boxes import Frame, Order, Scale
from perpo.engines.served import ServersWanted
from perpo.engines.vllm_flags import VllmWanted
from perpo.errors import PerpoError
from perpo.models.checkpoints import EMBEDDED

Suite = Literal["grounding", "pope", "ocr", "paper", "judged"]
"""What --suite can be: a key of `perpo_eval.rows.suites.SUITES`."""

MOST_ERRORS = 0.01
"""The share of a run's questions that may go without an answer; with more the run is partial."""

_BATCH_SIZES = {"perpo": 16, "vllm": 64, "server": 64}
"""Models of lmms-eval's get 1, since some take no more."""

_TOLD_OTHERWISE = {"engine", "model", "adapter", "model_args", "batch_size", "dtype", "servers", "vllm"}
"""Fields of `EngineWanted` that identities hold by digests, or as what is usual where they are None."""

_NO_ANSWERS = {"device", "max_error_share"}
"""Those that no answer depends on."""


@dataclass(frozen=True, kw_only=True)
class RowsWanted:
    """The questions that are asked.

    Attributes:
        suite: A key of `perpo_eval.rows.suites.SUITES`, or `perpo.benchmarks.declared.TASKS_SUITE`.
        data: "tiny", "hub", or a folder.
        tasks: The tasks to run; empty for all of the suite that the data serve.
        limit: Only the first so many questions of each task; None for all.
        include_path: A folder of task files of one's own; None for none.
    """

    suite: str
    data: str
    tasks: tuple[str, ...]
    limit: int | None
    include_path: str | None = None


@dataclass(frozen=True, kw_only=True)
class EngineWanted:
    """The engine that answers; None is what is usual.

    Attributes:
        engine: "perpo", "vllm", "server", or "lmms:<model>".
        model: "tiny", "tiny-ocr", a folder, or a hub id.
        adapter: Folder of an adapter.
        model_args: "name=value,name=value", for a model of lmms-eval's.
        batch_size: Questions in one batch.
        dtype: Type of the weights.
        device: A torch device.
        max_error_share: The share of the questions that may go without an answer.
        servers: Those that have the model, for the engine "server".
        vllm: How vLLM is set up, for the engine "vllm".
    """

    engine: str
    model: str | None
    adapter: str | None
    model_args: str
    batch_size: int | None
    dtype: Literal["float32", "bfloat16", "float16"] | None
    device: str | None
    max_error_share: float
    servers: ServersWanted | None
    vllm: VllmWanted | None = None

    @property
    def own(self) -> bool:
        """Return whether one of perpo's engines answers, through our model class."""
        return self.engine in ("perpo", "vllm", "server")

    @property
    def checkpoint(self) -> str:
        """Return the checkpoint that our model class loads."""
        return self.model or "tiny"

    @property
    def embedded(self) -> bool:
        """Return whether an embedded checkpoint answers."""
        return self.own and self.checkpoint in EMBEDDED

    @property
    def questions_at_once(self) -> int:
        """Return how many questions go into one batch."""
        return self.batch_size or _BATCH_SIZES.get(self.engine, 1)

    @property
    def given_to_model(self) -> dict[str, str]:
        """Return what `model_args` says, by name."""
        return dict(part.partition("=")[::2] for part in self.model_args.split(",") if part)

    @property
    def besides(self) -> dict[str, Any]:
        """Return what belongs into an engine's identity by its own name: all fields but those that are told otherwise.

        A new field is one of them until it is named here.
        """
        return {name: value for name, value in vars(self).items() if name not in _TOLD_OTHERWISE | _NO_ANSWERS}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The way in which a model is asked for boxes, and writes them; None is what its family does.

    Attributes:
        family: A key of `perpo.models.families.FAMILIES`.
        scale: What numbers of boxes count.
        order: Which number is which.
        frame: The picture that boxes refer to.
        prompt_style: The paper's question for a box, or lmms-eval's.
    """

    family: str | None
    scale: Scale | None
    order: Order | None
    frame: Frame | None
    prompt_style: Literal["paper", "lmms_eval"]

    @property
    def declared(self) -> dict[str, Any]:
        """Return what is said of boxes, by part, as `perpo.models.families.with_declared` takes it."""
        return {"scale": self.scale, "order": self.order, "frame": self.frame}


@dataclass(frozen=True, kw_only=True)
class DecodingWanted:
    """The way in which tokens are chosen, and where answers are cut.

    Attributes:
        temperature: 0 takes the most probable token.
        top_p: The share of the probability that is drawn from.
        seed: Of what is drawn.
        max_new_tokens: As `perpo_eval.evaluate.token_limits` reads it.
        stop_on_repetition: Whether an answer ends where it loops.

    Raises:
        PerpoError: One that has no use.
    """

    temperature: float
    top_p: float
    seed: int
    max_new_tokens: int | str | None
    stop_on_repetition: bool

    def __post_init__(self) -> None:
        if self.temperature == 0 and (self.top_p < 1 or self.seed):
            raise PerpoError(
                "--top_p and --seed have no effect without --temperature",
                "give a --temperature above 0, or leave them out: without it all answers are greedy",
            )

    @property
    def drawn(self) -> bool:
        """Return whether answers are drawn."""
        return self.temperature > 0

    @property
    def stopping(self) -> dict[str, Any]:
        """Return what generation_kwargs say of loops: nothing where they are not stopped, as before they could be."""
        return {"stop_on_repetition": True} if self.stop_on_repetition else {}


@dataclass(frozen=True, kw_only=True)
class JudgeWanted:
    """The judge that is asked, and how; `perpo_eval.judge.from_flags.judge_of` checks it and makes the judge.

    Attributes:
        model: The judge's name at its server.
        base_url: Where the server is.
        votes: How often each answer is judged.
        swap: Whether LLaVA-Bench's two answers are shown in both orders.
        rps: At most so many calls are begun in a second; None for any number.
        concurrency: At most so many calls are open at once.
    """

    model: str | None = None
    base_url: str = "https://api.openai.com/v1"
    votes: int = 1
    swap: bool = False
    rps: float | None = None
    concurrency: int = 16

    @property
    def given(self) -> list[str]:
        """Return the flags that are not at their defaults."""
        return [f"judge_{each.name}" for each in fields(self) if getattr(self, each.name) != each.default]


@dataclass(frozen=True, kw_only=True)
class RunWanted:
    """The run that is stored.

    Attributes:
        name: What tables call it; None for what its model or the run before it is called.
        output: The results folder.
        command: The command line that would repeat it.
    """

    name: str | None
    output: str
    command: str
