"""Filter and sum up the candidates that were sampled for each question. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class AnswerSet:
    """The N sampled answers to one question, in the order of sampling.

    Attributes:
        id: Index of the question in its file.
        answers: N texts.
        rewards: N numbers in [0, 1]; 0 where the answer could not be read.
        readable: Whether the reward could read each answer.
        truncated: Whether each answer was cut: by the token limit, or where it looped.
        looped: Whether each answer ends in a loop (`perpo.texts.repetition`).
        reference_logps: Sum of each answer's token log-probabilities (nats, at temperature 1, with
            the end token unless truncated); None where the text does not give the sampled tokens back.
    """

    id: int
    answers: list[str]
    rewards: list[float]
    readable: list[bool]
    truncated: list[bool]
    looped: list[bool]
    reference_logps: list[float | None]

    def distinct(self) -> AnswerSet:
        """Return one of each answer: the first with a log-probability, or else the first.

        They stay in the order in which each was first seen. One that was cut is another than the same text
        finished.
        """
        logps = self.reference_logps
        chosen: dict[tuple[str, bool], int] = {}
        for place, key in enumerate(zip(self.answers, self.truncated, strict=True)):
            before = chosen.setdefault(key, place)
            if logps[before] is None and logps[place] is not None:
                chosen[key] = place
        columns = {name: [value[k] for k in chosen.values()] for name, value in vars(self).items() if name != "id"}
        return AnswerSet(id=self.id, **columns)

    def margin(self) -> float:
        """Best minus worst reward of the finished answers, which are what training uses by default."""
        finished = [reward for reward, cut in zip(self.rewards, self.truncated, strict=True) if not cut]
        return max(finished) - min(finished) if finished else 0.0


@dataclass(frozen=True)
class Summary:
    """A summary of what a run sampled, before filters, and of how much the filters kept.

    Attributes:
        questions: Number of questions.
        kept: Number of questions that became preference records.
        candidates: Number of sampled answers.
        distinct: Number of answers that differ from all others to their question.
        unreadable: Number of answers that the reward could not read.
        truncated: Number of answers that were cut: by the token limit, or where they looped.
        looped: Number of answers that end in a loop.
        looped_truncated: Number of those that were cut.
        mean_reward: Mean over all answers.
        best_of_n: Mean over questions of the best reward.
        histogram: Number of answers with a reward in [0, 0.1), [0.1, 0.2), ..., [0.9, 1].
    """

    questions: int
    kept: int
    candidates: int
    distinct: int
    unreadable: int
    truncated: int
    looped: int
    looped_truncated: int
    mean_reward: float
    best_of_n: float
    histogram: list[int]

    def __str__(self) -> str:
        def part(count: int, total: int) -> str:
            return f"{count} ({count / total:.1%})"

        top = max(self.histogram)
        bars = [
            f"  {step / 10:.1f}-{(step + 1) / 10:.1f}  {count:>8}  {'#' * round(40 * count / top)}".rstrip()
            for step, count in enumerate(self.histogram)
        ]
        lines = [
            f"questions            {self.questions}",
            f"candidates           {self.candidates}, {part(self.distinct, self.candidates)} distinct",
            f"unreadable           {part(self.unreadable, self.candidates)}",
            f"cut                  {part(self.truncated, self.candidates)}",
            f"end in a loop        {part(self.looped, self.candidates)}, {self.looped_truncated} of them cut",
            f"mean reward          {self.mean_reward:.3f}",
            f"best of N            {self.best_of_n:.3f}",
            f"kept                 {part(self.kept, self.questions)} of the questions",
            "rewards",
            *bars,
        ]
        return "\n".join(lines)


def summarise(sets: Sequence[AnswerSet], kept: int) -> Summary:
    """Sum up a run.

    Args:
        sets: The answers to every question, before filters; at least one.
        kept: Number of questions that the filters left.
    """
    rewards = np.concatenate([answers.rewards for answers in sets])
    return Summary(
        questions=len(sets),
        kept=kept,
        candidates=len(rewards),
        distinct=sum(len(answers.distinct().answers) for answers in sets),
        unreadable=sum(answers.readable.count(False) for answers in sets),
        truncated=sum(answers.truncated.count(True) for answers in sets),
        looped=sum(answers.looped.count(True) for answers in sets),
        looped_truncated=sum(map(all, (each for s in sets for each in zip(s.looped, s.truncated, strict=True)))),
        mean_reward=float(rewards.mean()),
        best_of_n=float(np.mean([max(answers.rewards) for answers in sets])),
        histogram=np.histogram(rewards, bins=10, range=(0.0, 1.0))[0].tolist(),
    )
