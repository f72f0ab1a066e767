"""Ask MMHal-Bench's judge and read what it says: it rates how much of an answer is made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from perpo.benchmarks.mmhal import MMHAL
from perpo.records.run_record import Metric
from perpo_eval.judge.base import Judging, Messages, Vote, alone
from perpo_eval.judge.messages import mmhal_messages
from perpo_eval.judge.ratings import mmhal_flags, official_mmhal_rating, parse_mmhal_rating

HALLUCINATION_BELOW = 3
"""Scores below it say that the answer holds a hallucination."""


def _messages(question: str, target: Mapping[str, Any], answer: str, swapped: bool) -> Messages:
    return mmhal_messages(question, target["image_content"], target["reference"], answer)


def _scores(votes: Sequence[Vote]) -> list[dict[str, float]]:
    said = [float(vote["rating"]) for vote in votes if vote["rating"] is not None]
    return [{"score": rating, "hallucination_rate": float(rating < HALLUCINATION_BELOW)} for rating in said]


def _official_metrics(said: Sequence[Any]) -> list[Metric]:
    rate = fmean(score < HALLUCINATION_BELOW for score in said)
    return [
        alone("score:official", fmean(said), len(said), True, "points of 6"),
        alone("hallucination_rate:official", rate, len(said), False, "fraction"),
    ]


JUDGING = Judging(
    info=MMHAL,
    pairs=False,
    messages=_messages,
    parse=parse_mmhal_rating,
    official=official_mmhal_rating,
    flags=mmhal_flags,
    scores=_scores,
    official_metrics=_official_metrics,
)
