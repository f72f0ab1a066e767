"""Numbers beside a judged number: the official script's reading, the judge's own error, its bias."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import sqrt
from statistics import fmean, variance

from perpo.benchmarks.base import Definition
from perpo.records.run_record import Metric
from perpo.stats import bootstrap_ratio
from perpo_eval.judge.base import Judging, Vote, alone
from perpo_eval.judge.ratings import out_of_scale
from perpo_eval.judge.table import JUDGINGS

_OF_TEN = "points of 10"


def readings(benchmark: str, judgements: Sequence[str | None], clusters: Sequence[str]) -> list[Metric]:
    """Metrics whose names end in a key of `perpo.benchmarks.metrics.JUDGE_READINGS`; none of what does not apply.

    `:out_of_scale` where the judge did not keep to the scale of LLaVA-Bench: the share of such pairs, which count.
    `:official` where the official script reads any text in another way than we do: its number over all samples,
    failures included as it includes them. `:judge_stderr` with several votes: the standard error that comes of the
    judge alone, another draw of whose votes would move the number by so much. `first_advantage` with both orders.

    Args:
        benchmark: A judged one.
        judgements: The samples' `judge` column.
        clusters: Their images.
    """
    samples = [[] if text is None else json.loads(text) for text in judgements]
    judging = JUDGINGS[benchmark]
    metrics = _official(judging, samples)
    totals = [metric for metric in judging.info.metrics if ":" not in metric.name and metric.name != "missing"]
    metrics += [metric for total in totals for metric in _judge_stderr(judging, total, samples)]
    return [*_off_the_scale(samples), *metrics, *_first_advantage(samples, clusters)] if judging.pairs else metrics


def _official(judging: Judging, samples: Sequence[Sequence[Vote]]) -> list[Metric]:
    # An official script asks once, and shows the reference first.
    asked = [vote for votes in samples for vote in votes if vote["vote"] == 0 and not vote["swapped"]]
    counted = [vote for vote in asked if vote["official"] is not None]
    if all(vote["official"] == vote["rating"] for vote in counted):
        return []
    return judging.official_metrics([vote["official"] for vote in counted])


def _off_the_scale(samples: Sequence[Sequence[Vote]]) -> list[Metric]:
    pairs = [vote["rating"] for votes in samples for vote in votes if vote["rating"] is not None]
    count = sum(map(out_of_scale, pairs))
    return [alone("relative_score:out_of_scale", count / len(pairs), len(pairs), None, "fraction")] if count else []


def _judge_stderr(judging: Judging, metric: Definition, samples: Sequence[Sequence[Vote]]) -> list[Metric]:
    """The ratio linearised in each sample's votes, which are independent draws (Cochran 1977, section 6.3).

    se^2 = sum_i var_v(a_iv - R b_iv) / K_i / B^2. Samples of one readable vote are taken to vary as the others.
    """
    rated = [ratings for ratings in map(judging.scores, samples) if ratings]
    several = [ratings for ratings in rated if len(ratings) > 1]
    if not several:
        return []

    def parts(rating: dict[str, float]) -> tuple[float, float]:
        above = sum(weight * rating[name] for name, weight in (metric.top or {metric.name: 1.0}).items())
        return above, sum(weight * rating[name] for name, weight in metric.bottom.items()) if metric.bottom else 1.0

    means = [[fmean(side) for side in zip(*map(parts, ratings), strict=True)] for ratings in rated]
    above, below = (sum(side) for side in zip(*means, strict=True))
    if not below > 0:  # the judge said 0 of every reference
        return []
    spread = 0.0
    for ratings in several:
        residuals = [a - above / below * b for a, b in map(parts, ratings)]
        spread += variance(residuals) / len(residuals)
    value = sqrt(spread * len(rated) / len(several)) / below
    return [alone(f"{metric.name}:judge_stderr", value, len(rated), None, metric.unit)]


def _first_advantage(samples: Sequence[Sequence[Vote]], clusters: Sequence[str]) -> list[Metric]:
    """The mean lead of the answer that is shown first, over both orders, in which the better answer's cancels out."""
    values, where = [], []
    for votes, cluster in zip(samples, clusters, strict=True):
        read = {(vote["vote"], vote["swapped"]): vote["rating"] for vote in votes if vote["rating"] is not None}
        leads = [first - second for (number, swapped), (first, second) in read.items() if (number, not swapped) in read]
        if leads:
            values.append(fmean(leads))
            where.append(cluster)
    if not values:
        return []
    bounds = min(-9.0, *values), max(9.0, *values)  # wider where the judge did not keep to its scale
    e = bootstrap_ratio(values, [1.0] * len(values), where, bounds=bounds)
    numbers = (e.value, e.stderr, e.ci_low, e.ci_high, e.ci_method, e.n, e.n_clusters)
    return [Metric("rating:first_advantage", *numbers, higher_is_better=None, unit=_OF_TEN)]
