"""The arguments of perpo-sample, checked as they are made. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from perpo.boxes import Frame, Order, Scale
from perpo.common.arguments import arg
from perpo.common.numbers import Count, Seed64, Share, ShareAboveZero, ZeroOrMore, check_numbers
from perpo.engines.base import Decoding
from perpo.errors import PerpoError
from perpo.rewards.table import box_rewards, named, truth_of


@dataclass(kw_only=True)
class SampleArguments:
    """Arguments of perpo-sample; see each field's help."""

    output: str = arg(help="preference records to write (.jsonl); a journal is kept beside it")
    model: str = arg("tiny", "tiny (the embedded checkpoint), a directory in the Hugging Face layout, or a hub id")
    adapter: str | None = arg(None, "directory of a trained adapter to sample from")
    questions: str = arg(
        "tiny",
        "tiny (500 training questions), a JSON, CSV or Parquet file, or a Hugging Face dataset[:split]",
    )
    image_root: str | None = arg(None, "folder that image paths start from; by default that of the questions file")
    num_candidates: Count = arg(20, "candidates per question")
    temperature: ZeroOrMore = arg(1.0, "divides the logits; 0 takes the most probable token")
    top_p: ShareAboveZero = arg(1.0, "draw from the fewest tokens whose probabilities reach this; 1 is all")
    seed: Seed64 = arg(0, "seed of the random numbers, from 0 to 2^64 - 1")
    max_new_tokens: Count = arg(64, "longest answer in tokens; one that is cut is marked")
    batch_size: Count = arg(
        16,
        "questions per batch, halved where memory runs out; in float32 no answer depends on it, in half precision some",
    )
    reward: str = arg("iou", f"{named(explained=True)} of yours")
    box_scale: Scale | None = arg(None, "what numbers of the answers' boxes count; by default as the model's family")
    box_order: Order | None = arg(None, "which number is which: corners, y first, or width and height; by default same")
    box_frame: Frame | None = arg(None, "picture that they refer to; by default the model family's")
    truth_scale: Scale | None = arg(None, "as --box_scale, of the truths; by default as rows say it, else as answers")
    truth_order: Order | None = arg(None, "as --box_order, of the truths")
    truth_frame: Frame | None = arg(None, "as --box_frame, of the truths")
    min_margin: Share = arg(0.0, "keep questions whose best and worst finished answers differ by at least this reward")
    duplicates: Literal["keep", "drop"] = arg("keep", "what to do with equal answers to one question")
    limit: Count | None = arg(None, "use the first questions only")
    dtype: Literal["float32", "bfloat16", "float16"] | None = arg(
        None, "type of the weights; by default bfloat16 on a GPU, float32 on the CPU"
    )
    device: str | None = arg(None, "such as cpu or cuda:0; by default a GPU where there is one")

    def __post_init__(self) -> None:
        """Refuse values that no run could use.

        Raises:
            PerpoError: A value is out of its range, or two contradict each other.
        """
        check_numbers(self)
        decoding = self.decoding
        for part in ("box_scale", "box_order", "box_frame", "truth_scale", "truth_order", "truth_frame"):
            if getattr(self, part) is not None and truth_of(self.reward) == "text":
                hint = f"leave --{part} out, or choose {box_rewards()}"
                raise PerpoError(f"--reward {self.reward} has no use for --{part}", hint)
        if decoding.temperature == 0 and (decoding.num_candidates > 1 or decoding.top_p < 1):
            raise PerpoError(
                "--temperature 0 gives the same answer every time, so there is nothing to draw",
                "give --num_candidates 1 and no --top_p, or a temperature above 0",
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
        )

    @property
    def box_parts(self) -> dict[str, Any]:
        """Return what is declared of how answers write boxes; None is nothing."""
        return {"scale": self.box_scale, "order": self.box_order, "frame": self.box_frame}

    @property
    def truth_parts(self) -> dict[str, Any]:
        """Return what is declared of how truths write boxes; None is nothing."""
        return {"scale": self.truth_scale, "order": self.truth_order, "frame": self.truth_frame}
