"""Draw the curves of a build of the embedded checkpoint: python tools/plot_build.py LOG.jsonl CURVE.svg."""

from __future__ import annotations

import sys

import altair as alt
import pandas as pd


def main(log: str, curve: str) -> None:
    """Plot two panels over the steps: the training losses, and the checks on the validation split."""
    rows = pd.read_json(log, lines=True)
    panels = [
        alt.Chart(rows[["step", *names]].melt("step").dropna(), title=title, width=360, height=220)
        .mark_line(point=title == "validation")
        .encode(x="step", y=alt.Y("value", title=None), color=alt.Color("variable", title=None))
        for title, names in {
            "training losses": ["box", "yes_no", "text", "pointer", "dense", "letters"],
            "validation": ["accuracy", "mean_iou", "objects_f1", "edit_distance"],
        }.items()
    ]
    alt.hconcat(*panels).resolve_scale(color="independent").save(curve)


if __name__ == "__main__":
    main(*sys.argv[1:])
