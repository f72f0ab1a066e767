"""The arguments of perpo-sample, checked as they are made. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from perpo.boxes import Frame, Order, Scale
from perpo.common.arguments import arg
from perpo.common.numbers import Count, Seed64, Share, ShareAboveZero, ZeroOrMore, check_numbers
from perpo.engines.base import Decoding
from perpo.engines.server_flags import ServerFlags, check_servers
from perpo.engines.vllm_flags import VllmFlags, check_vllm
from perpo.errors import PerpoError
from perpo.rewards.table import box_rewards, named, without_boxes


@dataclass(frozen=True, kw_only=True)
class SamplingFlags:
    """Flags that say what is asked, how, and what becomes of the answers; see each field's help."""

    output: str = arg(help="file of preference records to write (.jsonl); a journal is kept beside it")
    model: str = arg("tiny", "tiny or tiny-ocr (embedded models), a folder in the Hugging Face layout, or a hub id")
    adapter: str | None = arg(None, "folder of a trained adapter to sample from")
    questions: str = arg(
        "tiny",
        "tiny (500 training questions), tiny-pages (500 pages), a JSON, CSV or Parquet file, or a Hugging Face "
        "dataset[:split]",
    )
    image_root: str | None = arg(None, "folder that image paths start from (default: the folder of the questions file)")
    num_candidates: Count = arg(20, "candidates per question")
    temperature: ZeroOrMore = arg(1.0, "temperature of sampling; 0 takes the most probable token")
    top_p: ShareAboveZero = arg(
        1.0, "sample from the fewest tokens whose probabilities sum to this; 1 means all tokens"
    )
    seed: Seed64 = arg(0, "seed of the random numbers, from 0 to 2^64 - 1")
    max_new_tokens: Count = arg(64, "most tokens of an answer; an answer that is cut is marked")
    stop_on_repetition: bool = arg(
        False, "end an answer where it loops; it counts as cut. Answers that end in a loop are counted anyhow"
    )
    batch_size: Count = arg(
        16,
        "questions per batch; halved where memory runs out. In float32 no answer depends on it; in half "
        "precision some do",
    )
    reward: str = arg("iou", f"{named(explained=True)} of yours")
    box_scale: Scale | None = arg(None, "unit of the numbers in answered boxes (default: that of the model's family)")
    box_order: Order | None = arg(
        None,
        "order of the four numbers: corners, corners with y first, or corner with width and height (default: "
        "that of the model's family)",
    )
    box_frame: Frame | None = arg(None, "picture that the boxes refer to (default: that of the model's family)")
    truth_scale: Scale | None = arg(
        None, "like --box_scale, for the true boxes (default: as the rows say, else as for the answers)"
    )
    truth_order: Order | None = arg(None, "like --box_order, for the true boxes")
    truth_frame: Frame | None = arg(None, "like --box_frame, for the true boxes")
    min_margin: Share = arg(
        0.0, "keep a question if the rewards of its best and worst finished answers differ by at least this"
    )
    duplicates: Literal["keep", "drop"] = arg("keep", "keep or drop equal answers to one question")
    limit: Count | None = arg(None, "use only the first N questions")
    dtype: Literal["float32", "bfloat16", "float16"] | None = arg(
        None, "type of the weights (default: bfloat16 on a GPU, float32 on the CPU)"
    )
    device: str | None = arg(None, "torch device, such as cpu or cuda:0 (default: a GPU if there is one, else the CPU)")
    estimate: str | None = arg(
        None, "GPU, such as H100: tell what this would cost (tokens, FLOPs, memory, hours) and run nothing"
    )
    processes: Count = arg(
        1,
        "processes that share the questions, each on a GPU of its own; several machines: torchrun -m perpo.cli.sample",
    )
    engine: Literal["hf", "vllm", "server"] = arg(
        "hf",
        "what answers: hf loads the model here; vllm loads it here into vLLM, which must be installed; server asks "
        "OpenAI-compatible servers that have it",
    )


@dataclass(frozen=True, kw_only=True)
class SampleArguments(VllmFlags, ServerFlags, SamplingFlags):
    """Arguments of perpo-sample."""

    def __post_init__(self) -> None:
        """Refuse values that no run could use.

        Raises:
            PerpoError: A value is out of its range, or two contradict each other.
        """
        check_numbers(self)
        unused = {name: getattr(self, name) or None for name in ("adapter", "dtype", "device", "stop_on_repetition")}
        check_servers(self.engine, self, unused)
        check_vllm(self.engine, self, unused, runs=self.estimate is None)
        if self.processes > 1 and (self.engine == "server" or self.device is not None):
            hint = (
                "give --concurrency" if self.engine == "server" else "leave --device out: each takes a GPU of its own"
            )
            raise PerpoError("--processes is for models that are loaded here, each on its own device", hint)
        decoding = self.decoding
        for part in ("box_scale", "box_order", "box_frame", "truth_scale", "truth_order", "truth_frame"):
            if getattr(self, part) is not None and without_boxes(self.reward):
                hint = f"leave --{part} out, or choose {box_rewards()}"
                raise PerpoError(f"--{part} has no effect with --reward {self.reward}", hint)
        if decoding.temperature == 0 and (decoding.num_candidates > 1 or decoding.top_p < 1):
            raise PerpoError(
                "--temperature 0 gives the same answer every time, so several candidates would be equal",
                "give --num_candidates 1 without --top_p, or a --temperature above 0",
            )

    @property
    def decoding(self) -> Decoding:
        """Return how tokens are chosen."""
        return Decoding(
            max_new_tokens=self.max_new_tokens,
            num_candidates=self.num_candidates,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop_on_repetition=self.stop_on_repetition,
        )

    @property
    def box_parts(self) -> dict[str, Any]:
        """Return what is declared of how answers write boxes; None is nothing."""
        return {"scale": self.box_scale, "order": self.box_order, "frame": self.box_frame}

    @property
    def truth_parts(self) -> dict[str, Any]:
        """Return what is declared of how truths write boxes; None is nothing."""
        return {"scale": self.truth_scale, "order": self.truth_order, "frame": self.truth_frame}
