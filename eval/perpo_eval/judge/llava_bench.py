"""Ask LLaVA-Bench's judge and read what it says: it rates the model's answer beside a reference answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from perpo.benchmarks.llava_bench import LLAVA_BENCH
from perpo.records.run_record import Metric
from perpo_eval.judge.base import Judging, Messages, Vote, alone
from perpo_eval.judge.messages import llava_messages
from perpo_eval.judge.ratings import official_pair_rating, pair_flags, parse_pair_rating


def _messages(question: str, target: Mapping[str, Any], answer: str, swapped: bool) -> Messages:
    parts = (target["category"], target["caption"], target["reference"])
    return llava_messages(question, *parts, answer, swapped=swapped)


def _scores(votes: Sequence[Vote]) -> list[dict[str, float]]:
    """A vote that was asked in both orders counts where both can be read; its ratings are the means of the two."""
    orders = len({vote["swapped"] for vote in votes})
    scores = []
    for number in sorted({vote["vote"] for vote in votes}):
        pairs = [_model_first(vote) for vote in votes if vote["vote"] == number and vote["rating"] is not None]
        if len(pairs) == orders:
            model, reference = (fmean(side) for side in zip(*pairs, strict=True))
            scores.append({"model": model, "reference": reference})
    return scores


def _model_first(vote: Vote) -> tuple[float, float]:
    first, second = vote["rating"]
    return (first, second) if vote["swapped"] else (second, first)


def _official_metrics(said: Sequence[Any]) -> list[Metric]:
    reference, model = (sum(side) for side in zip(*said, strict=True))
    return [alone("relative_score:official", model / reference if reference else None, len(said), True, "fraction")]


JUDGING = Judging(
    info=LLAVA_BENCH,
    pairs=True,
    messages=_messages,
    parse=parse_pair_rating,
    official=official_pair_rating,
    flags=pair_flags,
    scores=_scores,
    official_metrics=_official_metrics,
)
