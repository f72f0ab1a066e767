"""A batch in several forward passes, none of them over more tokens than a budget.

A preference loss depends on the candidates' log-probabilities s alone. So a step may compute all s without
gradients, take c = dL/ds, and back-propagate the sum of c s over a few candidates at a time: the gradient is the
whole one, and the memory that of a few candidates, however many a list has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from perpo.errors import PerpoError
from perpo.models.logps import candidate_logps
from perpo.models.prefix import Packed, pack, unpack
from perpo.train.lists import TokenizedList


@dataclass(frozen=True)
class CandidateSpan:
    """Candidates `start` to `stop` of the list `row` of a batch."""

    row: int
    start: int
    stop: int


@dataclass(frozen=True)
class Pass:
    """The input of one forward pass: each span of candidates with its prefix.

    Attributes:
        packed: The spans' prefixes and candidates.
        images: Of each span's list.
        spans: Which candidates they are.
        counts: Whether they count; False in a pass that just keeps this process in step with others.
    """

    packed: Packed
    images: list[Mapping[str, Tensor]]
    spans: list[CandidateSpan]
    counts: bool = True

    def logps(self, model: Any) -> Tensor:
        """(R, M) log-probabilities of the R spans' up to M candidates."""
        return candidate_logps(model, self.packed, self.images, candidates=self._most)

    def put(self, values: Tensor, into: Tensor) -> None:
        """Write (R, M) values to their places in a batch's (B, N)."""
        for span, row in zip(self.spans, values, strict=True):
            into[span.row, span.start : span.stop] = row[: span.stop - span.start]

    def take(self, values: Tensor) -> Tensor:
        """(R, M) of a batch's (B, N) values; 0 where there is none, and everywhere in a pass that does not count."""
        rows = values.new_zeros(len(self.spans), self._most)
        if self.counts:
            for span, row in zip(self.spans, rows, strict=True):
                row[: span.stop - span.start] = values[span.row, span.start : span.stop]
        return rows

    @property
    def _most(self) -> int:
        return max(span.stop - span.start for span in self.spans)


def split(packed: Packed, images: Sequence[Mapping[str, Tensor]], budget: int, longest: int | None) -> list[Pass]:
    """Share a batch's candidates out to passes, in their order.

    Args:
        packed: What `pack` gave for all lists.
        images: For each list what the processor made of its image.
        budget: The most tokens of a pass, padding included; just a single candidate may take more.
        longest: See `perpo.models.prefix.longest_shared`.
    """
    prefixes, answers = unpack(packed)
    groups: list[list[CandidateSpan]] = []
    for row, candidates in enumerate(answers):
        for place in range(len(candidates)):
            grown = _grown(groups[-1], row, place) if groups else []
            if grown and _tokens(grown, prefixes, answers, longest) <= budget:
                groups[-1] = grown
            else:
                groups.append([CandidateSpan(row, place, place + 1)])
    pad_id, device = int(packed["answer_ids"][0, -1]), packed["answer_ids"].device
    passes = []
    for spans in groups:
        each = pack([prefixes[r.row] for r in spans], [answers[r.row][r.start : r.stop] for r in spans], pad_id)
        moved: Any = {name: tensor.to(device) for name, tensor in each.items()}  # type: ignore[attr-defined]
        passes.append(Pass(moved, [images[span.row] for span in spans], spans))
    return passes


def check_budget(lists: Sequence[TokenizedList], budget: int) -> None:
    """See that each candidate fits into a pass.

    Raises:
        PerpoError: One does not.
    """
    for each in lists:
        answer = max(map(len, each.answers))
        if each.prefix_tokens + answer > budget:
            raise PerpoError(
                f"record {each.number}: image and prompt ({each.prefix_tokens} tokens) and its longest answer "
                f"({answer}) exceed --max_tokens_per_pass {budget}",
                f"give --max_tokens_per_pass {each.prefix_tokens + answer} or more, or leave the record out; nothing "
                "is truncated",
            )


def _grown(spans: list[CandidateSpan], row: int, place: int) -> list[CandidateSpan]:
    last = spans[-1]
    if last.row == row:
        return [*spans[:-1], CandidateSpan(row, last.start, place + 1)]
    return [*spans, CandidateSpan(row, place, place + 1)]


def _tokens(
    spans: list[CandidateSpan], prefixes: list[list[int]], answers: list[list[list[int]]], longest: int | None
) -> int:
    """Tokens of a pass: those of its widest row in every row."""
    prefix = max(len(prefixes[span.row]) for span in spans)
    lengths = [[len(ids) for ids in answers[span.row][span.start : span.stop]] for span in spans]
    alone = prefix + max(map(max, lengths))
    if longest is not None and alone > longest:  # then each candidate is a row
        return alone * sum(map(len, lengths))
    return len(spans) * (prefix + max(map(sum, lengths)))
