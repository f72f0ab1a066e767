"""The training methods, a row each. Needs no torch.

A new method is a row here, its loss in `perpo.losses`, and an entry in the table of losses in `perpo.train.trainer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal

Rewards = Sequence[float]
"""Of the usable candidates of one record, in the data's order."""


def best(rewards: Rewards) -> list[int]:
    """Return the place of the best candidate, the first of equals."""
    return [rewards.index(max(rewards))]


def best_and_worst(rewards: Rewards) -> list[int]:
    """Return the places of the best and the worst candidate in the data's order; the first two where all are equal."""
    pair = {rewards.index(max(rewards)), rewards.index(min(rewards))}
    return sorted(pair) if len(pair) == 2 else [0, 1]


def every(rewards: Rewards) -> list[int]:
    """Return the places of all candidates."""
    return list(range(len(rewards)))


@dataclass(frozen=True)
class Method:
    """The facts about one training method.

    Attributes:
        name: What `--method` calls it.
        title: What tables call it.
        takes: The arguments that it has a use for, of those that not all methods have a use for.
        picks: Which of a record's candidates it learns; None where it learns the data's own answers instead.
        ranks: Whether it compares candidates by their rewards, against a reference; else it learns one answer.
        described: What a model card says of it; `{paper}` stands for the link to its source.
        paper: The arXiv number of its source.
        colour: Its place in `perpo.results.colours.PALETTE`.
    """

    name: str
    title: str
    takes: tuple[str, ...]
    _: KW_ONLY
    picks: Callable[[Rewards], list[int]] | None = None
    ranks: bool = False
    described: str
    paper: str | None = None
    colour: int

    @property
    def samples(self) -> bool:
        """Return whether it learns sampled candidates, and not the data's own answers."""
        return self.picks is not None

    @property
    def card_line(self) -> str:
        """Return what a model card says of it, with the link to its paper."""
        return self.described.format(paper=f"[arXiv {self.paper}](https://arxiv.org/abs/{self.paper})")


_CANDIDATES = ("allow_other_sampler", "num_candidates", "keep_truncated")
_REFERENCE = ("beta", "reference", "precompute_reference", *_CANDIDATES)
_ROWS = (
    Method("sft", "SFT", ("lora_dropout",), described="supervised training on the answers given", colour=5),
    Method(
        "rft",
        "RFT",
        ("lora_dropout", *_CANDIDATES),
        picks=best,
        described="supervised training on the best candidate",
        colour=4,
    ),
    Method(
        "dpo",
        "DPO",
        _REFERENCE,
        picks=best_and_worst,
        ranks=True,
        described="DPO ({paper}) on the best and the worst candidate",
        paper="2305.18290",
        colour=0,
    ),
    Method(
        "lipo",
        "LiPO",
        _REFERENCE,
        picks=every,
        ranks=True,
        described="a listwise preference loss in which all pairs weigh the same (PerPO's, {paper}, at gamma 0)",
        paper="2502.04371",
        colour=3,
    ),
    Method(
        "perpo",
        "PerPO",
        ("gamma", *_REFERENCE),
        picks=every,
        ranks=True,
        described="PerPO ({paper}): listwise, pairs weighed by their margins",
        paper="2502.04371",
        colour=1,
    ),
)
METHODS = {row.name: row for row in _ROWS}
"""The methods by name, in the order of tables."""

UNTRAINED = "base"
"""What tables call a model that was not trained."""

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]
    """The type of an argument that names a method: any other word is refused."""


def unused_by(name: str) -> list[str]:
    """Return the arguments that a method has no use for and that another has; all of them of a method unknown."""
    used = {argument for row in METHODS.values() if row.name == name for argument in row.takes}
    of_any = dict.fromkeys(argument for row in METHODS.values() for argument in row.takes)
    return [argument for argument in of_any if argument not in used]


def which(holds: Callable[[Method], bool]) -> str:
    """Return the names of the methods for which something holds, in words: "dpo, lipo and perpo"."""
    *others, last = [row.name for row in METHODS.values() if holds(row)]
    return f"{', '.join(others)} and {last}" if others else last
