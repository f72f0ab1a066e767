"""Sum up votes: shares with Wilson intervals, and how far voters agree. numpy and scipy only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from perpo_dashboard.vote.votes import OUTCOMES, AskedSample, Outcome, majority


@dataclass(frozen=True)
class Share:
    """`count` of `n`, with the 95% interval of Wilson (1927); None where n is 0."""

    count: int
    n: int
    value: float | None
    low: float | None
    high: float | None


def share(count: int, n: int) -> Share:
    """Return a share with its interval."""
    if n == 0:
        return Share(0, 0, None, None, None)
    from scipy.stats import binomtest

    interval = binomtest(count, n).proportion_ci(confidence_level=0.95, method="wilson")
    return Share(count, n, count / n, float(interval.low), float(interval.high))


@dataclass(frozen=True)
class Tally:
    """The outcome of some questions.

    Attributes:
        shares: Of the questions, each outcome.
        preferred: Of the questions that one of the runs won, those that the second run did.
    """

    shares: dict[Outcome, Share]
    preferred: Share


def tally(outcomes: Sequence[Outcome]) -> Tally:
    """Counts with intervals; one outcome a question, so that each counts once however many people voted on it."""
    counts = Counter(outcomes)
    shares = {each: share(counts[each], len(outcomes)) for each in OUTCOMES}
    return Tally(shares, share(counts["second"], counts["first"] + counts["second"]))


def by_question(voters: Mapping[str, Mapping[AskedSample, Outcome]]) -> dict[AskedSample, Outcome]:
    """Return what the majority of its voters says of each question that has a vote."""
    said: dict[AskedSample, list[Outcome]] = {}
    for votes in voters.values():
        for question, outcome in votes.items():
            said.setdefault(question, []).append(outcome)
    return {question: majority(outcomes) for question, outcomes in said.items()}


def cohen_kappa(one: Sequence[Hashable], other: Sequence[Hashable]) -> float | None:
    """Return the agreement of two voters beyond chance (Cohen 1960): (p_o - p_e) / (1 - p_e).

    Args:
        one: A voter's answers.
        other: Another one's to the same questions.

    Returns:
        1 for the same answers, 0 for what chance would give; None where it is undefined: no questions, or both gave
        one and the same answer throughout.
    """
    n = len(one)
    ours, theirs = Counter(one), Counter(other)
    expected = sum(ours[label] * theirs[label] for label in ours)  # times n squared: whole numbers know when they meet
    if n == 0 or expected == n * n:
        return None
    agreed = sum(a == b for a, b in zip(one, other, strict=True))
    return (agreed * n - expected) / (n * n - expected)


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float | None:
    """Return the agreement of any number of voters beyond chance, not all of whom need have answered everything.

    Nominal alpha (Krippendorff 2011, "Computing Krippendorff's alpha-reliability"): 1 - D_o / D_e over the questions
    that at least two answered.

    Args:
        units: Per question the answers to it.

    Returns:
        1 for full agreement, 0 for what chance would give; None where it is undefined: no question has two answers, or
        all answers are the same.
    """
    shared = [Counter(unit) for unit in units if len(unit) > 1]
    totals: Counter[Hashable] = sum(shared, Counter())
    n = totals.total()
    expected = n * n - sum(count * count for count in totals.values())
    if expected == 0:
        return None
    observed = sum(
        (unit.total() ** 2 - sum(count * count for count in unit.values())) / (unit.total() - 1) for unit in shared
    )
    return 1 - (n - 1) * observed / expected


@dataclass(frozen=True)
class Agreement:
    """The agreement of two voters on the questions that both answered; `kappa` is None where it is undefined."""

    voters: tuple[str, str]
    questions: int
    agreed: Share
    kappa: float | None


def agreements(voters: Mapping[str, Mapping[AskedSample, Outcome]]) -> list[Agreement]:
    """Return every pair of voters."""
    names = list(voters)
    return [_agreement(voters, one, other) for place, one in enumerate(names) for other in names[place + 1 :]]


def _agreement(voters: Mapping[str, Mapping[AskedSample, Outcome]], one: str, other: str) -> Agreement:
    both = [question for question in voters[one] if question in voters[other]]
    ours, theirs = ([voters[name][question] for question in both] for name in (one, other))
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return Agreement((one, other), len(both), share(same, len(both)), cohen_kappa(ours, theirs))
