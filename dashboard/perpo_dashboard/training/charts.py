"""Pictures of trainings: curves, rewards, best-of-N, log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perpo.results.colours import BASELINE, CANDIDATE
from perpo_dashboard.training.candidates import BestOf, Candidate
from perpo_dashboard.training.trainings import LoggedMetric, smoothed, thinned

_HEIGHT = 220
_FEW = 40
"""Points of a curve that are drawn as such."""

Curve = tuple[NDArray, NDArray]
Layers = alt.LayerChart | alt.FacetChart


def colours(names: Sequence[str], palette: Sequence[str]) -> alt.Color:
    """Return a colour for each name; the table above the charts is their legend."""
    scale = alt.Scale(domain=list(names), range=[palette[place % len(palette)] for place in range(len(names))])
    return alt.Color("training:N", scale=scale, legend=None)


def curves(
    curves_by_training: Mapping[str, Curve], metric: LoggedMetric, over: str, weight: float, colour: alt.Color
) -> Layers:
    """Return a metric of several trainings; where it is smoothed, its numbers lie faintly behind."""
    parts, few = [], max(len(places) for places, _ in curves_by_training.values()) <= _FEW
    for name, (places, values) in curves_by_training.items():
        at, means, _ = thinned(places, values)
        parts.append(pd.DataFrame({"training": name, "x": at, "value": means, "smooth": smoothed(means, weight)}))
    base = alt.Chart(pd.concat(parts)).encode(
        x=alt.X("x:Q", title=over, axis=alt.Axis(tickCount=5, grid=False), scale=alt.Scale(zero=False)),
        color=colour,
        tooltip=[
            alt.Tooltip("training:N", title="Training"),
            alt.Tooltip("x:Q", title=over.capitalize()),
            alt.Tooltip("value:Q", title=metric.title, format=".4g"),
        ],
    )

    def y(field: str) -> alt.Y:
        axis = alt.Axis(tickCount=5, format="~%" if metric.fraction else "~g")
        return alt.Y(f"{field}:Q", title=metric.unit, axis=axis, scale=alt.Scale(zero=False))

    lines = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=28) if few else False)
    layers = [lines.encode(y=y("smooth"))]
    if weight:
        layers.insert(0, base.mark_line(strokeWidth=1, opacity=0.25).encode(y=y("value")))
    return alt.layer(*layers).properties(height=_HEIGHT)


def rewards(histograms: Mapping[str, tuple[NDArray, NDArray]], reward: str, colour: alt.Color) -> alt.Chart:
    """Return how the rewards of data sets spread: shares of the candidates, as steps over the edges of the bins."""
    parts = []
    for name, (edges, shares) in histograms.items():
        ends = [f"{low:.2f} to {high:.2f}" for low, high in pairwise(edges)]
        parts.append(
            pd.DataFrame(
                {"training": name, "x": edges, "share": np.append(shares, shares[-1]), "bin": [*ends, ends[-1]]}
            )
        )
    return (
        alt.Chart(pd.concat(parts))
        .mark_area(interpolate="step-after", line={"strokeWidth": 2}, fillOpacity=0.06)
        .encode(
            x=alt.X("x:Q", title=f"reward ({reward})", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(grid=False)),
            y=alt.Y("share:Q", title="share of the candidates", axis=alt.Axis(format=".0%", tickCount=5), stack=None),
            color=colour,
            tooltip=[
                alt.Tooltip("training:N", title="Training"),
                alt.Tooltip("bin:N", title="Reward"),
                alt.Tooltip("share:Q", title="Share", format=".1%"),
            ],
        )
        .properties(height=_HEIGHT + 40)
    )


def best_of(best_by_training: Mapping[str, BestOf], reward: str, colour: alt.Color) -> Layers:
    """Expected reward of the best and the worst of n candidates."""
    parts = []
    for name, each in best_by_training.items():
        n = np.arange(1, len(each.best) + 1)
        parts.append(
            pd.DataFrame(
                {"training": name, "n": n, "best": each.best, "low": each.low, "high": each.high, "worst": each.worst}
            )
        )
    base = alt.Chart(pd.concat(parts)).encode(
        x=alt.X("n:Q", title="n candidates", axis=alt.Axis(tickMinStep=1, grid=False), scale=alt.Scale(zero=False)),
        color=colour,
        tooltip=[
            alt.Tooltip("training:N", title="Training"),
            alt.Tooltip("n:Q", title="n"),
            alt.Tooltip("best:Q", title="Best of n", format=".3f"),
            alt.Tooltip("low:Q", title="from", format=".3f"),
            alt.Tooltip("high:Q", title="to", format=".3f"),
            alt.Tooltip("worst:Q", title="Worst of n", format=".3f"),
        ],
    )

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title=f"mean reward ({reward})", scale=alt.Scale(zero=False))

    return alt.layer(
        base.mark_area(opacity=0.2).encode(y=y("low"), y2="high:Q"),
        base.mark_line(strokeWidth=2).encode(y=y("best")),
        base.mark_line(strokeWidth=1.5, strokeDash=[4, 3]).encode(y=y("worst")),
    ).properties(height=_HEIGHT + 40)


def log_probabilities(ranking: Sequence[Candidate]) -> Layers:
    """Return what training did to each candidate's log-probability: from a ring to a dot, the best candidate on top."""
    rows: list[dict[str, Any]] = [
        {"rank": place, "reward": each.reward, "before": each.before, "after": each.after, "answer": each.answer[:120]}
        | {"training": "more likely" if each.change is not None and each.change > 0 else "less likely"}
        for place, each in enumerate(ranking, start=1)
        if each.before is not None
    ]
    base = alt.Chart(pd.DataFrame(rows)).encode(
        y=alt.Y("rank:O", title="candidate, the best first"),
        color=alt.Color(
            "training:N",
            scale=alt.Scale(domain=["more likely", "less likely"], range=[BASELINE, CANDIDATE]),
            legend=alt.Legend(title=None, orient="top"),
        ),
        tooltip=[
            alt.Tooltip("rank:O", title="Rank"),
            alt.Tooltip("reward:Q", title="Reward", format=".3f"),
            alt.Tooltip("before:Q", title="Before", format=".2f"),
            alt.Tooltip("after:Q", title="After", format=".2f"),
            alt.Tooltip("answer:N", title="Answer"),
        ],
    )

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", title="log-probability (nats): ring before, dot after", scale=alt.Scale(zero=False))

    return alt.layer(
        base.mark_rule(strokeWidth=2).encode(x=x("before"), x2="after:Q"),
        base.mark_point(size=60, filled=False, strokeWidth=2).encode(x=x("before")),
        base.mark_point(size=80, filled=True, opacity=1).encode(x=x("after")),
    ).properties(height=alt.Step(22))
