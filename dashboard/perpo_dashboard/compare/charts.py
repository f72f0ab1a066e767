"""Pictures of two runs: gains with their intervals, and where the samples' scores lie. Altair, no Streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from perpo.results.colours import BASELINE, CANDIDATE
from perpo_dashboard.compare.breakdown import KindRow
from perpo_dashboard.shared.gains import with_zero


def kinds(rows: Sequence[KindRow], span: tuple[float, float]) -> alt.LayerChart:
    """B minus A by kind, with 95% intervals; the axis ends where no difference can be.

    Args:
        rows: The kinds, at least one.
        span: What the mean of a run can be at least and at most; shares are shown as points of 100.
    """
    width = span[1] - span[0]
    scale, unit = (100, ", points of 100") if width == 1 else (1, "")
    table = [
        {"kind": f"{row.name} ({row.n:,})", "A": scale * row.a, "B": scale * row.b, "images": row.difference.n_clusters}
        | {"difference": scale * (row.b - row.a)}
        | {name: scale * end for name, end in zip(("low", "high"), row.difference.interval or (), strict=False)}
        for row in rows
    ]
    columns = ["kind", "A", "B", "images", "difference", "low", "high"]
    base = alt.Chart(pd.DataFrame(table, columns=columns)).encode(
        y=alt.Y("kind:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)),
        tooltip=[
            "kind",
            "images",
            *(alt.Tooltip(name, format=".2f") for name in ("A", "B", "difference", "low", "high")),
        ],
        color=alt.value(CANDIDATE),
    )
    ends = [0.0, *(end for row in rows for end in (row.b - row.a, *(row.difference.interval or ())))]
    domain = [scale * max(-width, min(ends)), scale * min(width, max(ends))]
    return with_zero(base, "difference:Q", f"B minus A{unit}", alt.Scale(domain=domain))


def plane(cells: dict[str, Any], title: str, span: tuple[float, float]) -> alt.LayerChart:
    """Return where the samples lie: A's measure across, B's up; what is above the line is better or worse in B."""
    domain = alt.Scale(domain=list(span) if span[1] - span[0] <= 1 else [span[0] - 0.5, span[1] + 0.5], nice=False)
    rects = alt.Chart(pd.DataFrame(cells)).mark_rect().encode(
        x=alt.X("a:Q", title=f"{title} of A", scale=domain), x2="a_end:Q",
        y=alt.Y("b:Q", title=f"{title} of B", scale=domain), y2="b_end:Q",
        color=alt.Color("samples:Q", scale=alt.Scale(type="symlog", scheme="viridis"), title="samples"),
        tooltip=[alt.Tooltip("a", format=".2f", title="A from"), alt.Tooltip("b", format=".2f", title="B from"),
                 alt.Tooltip("samples", format=",")],
    )  # fmt: skip
    ends = pd.DataFrame({"x": list(span), "y": list(span)})
    same = alt.Chart(ends).mark_line(color="#888888", strokeDash=[4, 4]).encode(x="x:Q", y="y:Q")
    return (rects + same).properties(height=340)


def heights(bins: dict[str, Any], title: str) -> alt.Chart:
    """Return how many samples of A and B have which measure."""
    table = pd.DataFrame(bins).melt(["from", "to"], ["A", "B"], "run", "samples")
    return alt.Chart(table).mark_bar(opacity=0.55).encode(
        x=alt.X("from:Q", title=title, bin="binned", scale=alt.Scale(nice=False)), x2="to:Q",
        y=alt.Y("samples:Q", title="samples", stack=None),
        color=alt.Color(
            "run:N", scale=alt.Scale(domain=["A", "B"], range=[BASELINE, CANDIDATE]),
            legend=alt.Legend(orient="top", title=None),
        ),
        tooltip=["run", alt.Tooltip("from", format=".2f"), alt.Tooltip("to", format=".2f"),
                 alt.Tooltip("samples", format=",")],
    ).properties(height=340)  # fmt: skip
