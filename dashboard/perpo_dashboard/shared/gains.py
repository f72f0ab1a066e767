"""Gains with their intervals, as a chart."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from perpo.results.colours import PALETTE
from perpo.results.regression.report import Report
from perpo.results.regression.rows import directed

_VERDICTS = {
    "regressed": PALETTE[1],
    "changed": PALETTE[4],
    "improved": PALETTE[2],
    "unchanged": PALETTE[5],
    "identical": PALETTE[5],
    "inconclusive": PALETTE[6],
}
_ROW = 26  # pixels


def gains(report: Report) -> alt.LayerChart:
    """Return each task's gain in points with its 95% interval, by verdict; grey is what does not matter."""
    rows = []
    for row in report.rows:
        if row.gain is None:
            continue
        ends = directed(row, row.difference.interval)
        scale = 100 / getattr(row.metric, "scale", 1.0)
        rows.append(
            {"task": row.name, "metric": row.metric.title, "gain": scale * row.gain, "verdict": row.verdict}
            | {"threshold": scale * row.threshold, "negative": -scale * row.threshold}
            | ({"low": scale * ends[0], "high": scale * ends[1]} if ends else {"low": None, "high": None})
        )
    columns = ["task", "metric", "gain", "verdict", "threshold", "negative", "low", "high"]
    rows_of = alt.Chart(pd.DataFrame(rows, columns=columns)).encode(
        y=alt.Y("task:N", sort=None, title=None, axis=alt.Axis(labelLimit=200)),
    )
    name = "gain of B over A, points of 100"
    band = rows_of.mark_bar(color="#808080", opacity=0.3, height={"band": 1})
    band = band.encode(x=alt.X("negative:Q", title=name), x2="threshold:Q")
    base = rows_of.encode(
        color=alt.Color(
            "verdict:N", scale=alt.Scale(domain=list(_VERDICTS), range=list(_VERDICTS.values())),
            legend=alt.Legend(orient="top", title=None, columns=2),
        ),
        tooltip=["task", "metric", "verdict", *(alt.Tooltip(n, format="+.1f") for n in ("gain", "low", "high"))],
    )  # fmt: skip
    return (band + with_zero(base, "gain:Q", name)).properties(height=alt.Step(_ROW))


def with_zero(base: alt.Chart, value: str, title: str, scale: Any = alt.Undefined) -> alt.LayerChart:
    """Points with their intervals and a line at 0, a row each."""
    zero = alt.Chart(pd.DataFrame({"x": [0]})).mark_rule(strokeDash=[4, 4], color="#888888").encode(x="x:Q")
    x = alt.X(value, title=title, scale=scale)
    lines = base.mark_rule(strokeWidth=2, clip=True).encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q")
    points = base.mark_point(filled=True, size=70, opacity=1).encode(x=x)
    return (zero + lines + points).properties(height=alt.Step(_ROW))
