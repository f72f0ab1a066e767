"""The errors of two runs on pages: lines that they drop, add, change, move and repeat, and answers in a loop."""

from __future__ import annotations

import json
from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from perpo.records.store import SAMPLES_FILE, Run
from perpo.results.colours import BASELINE, CANDIDATE
from perpo.texts.line_errors import ERRORS, LineKind, line_errors
from perpo.texts.repetition import ends_in_loop
from perpo_dashboard.shared import stored
from perpo_dashboard.shared.outcomes import Pair

MOST = 300
"""Pages that are looked at: all of them would take too long while somebody waits."""


@dataclass(frozen=True)
class PageErrors:
    """The errors of a run in its answers to some pages.

    Attributes:
        lines: Lines of the truths.
        wrong: Lines of each kind of error.
        loops: Answers that end in a loop.
        answers: Answers that were given.
    """

    lines: int
    wrong: dict[LineKind, int]
    loops: int
    answers: int


def show(a: Run, b: Run, pair: Pair, scope: str, mask: NDArray[np.bool_]) -> None:
    """Show the errors of two runs by line, of at most 300 pages that both have."""
    places = np.flatnonzero(mask)
    chosen = places[np.linspace(0, len(places) - 1, min(MOST, len(places))).round().astype(int)] if len(places) else []
    if not len(chosen):
        return
    stamps = tuple(stored.stamp(run.path / SAMPLES_FILE) for run in (a, b))
    sides = [_errors((*stamps, scope, side), run, pair.places[side, chosen]) for side, run in enumerate((a, b))]
    if not all(each.lines for each in sides):
        return
    st.altair_chart(_chart(sides), alt="Wrong lines of A and B by kind of error")
    loops = [f"{name} {each.loops:,} of {each.answers:,}" for name, each in zip("AB", sides, strict=True)]
    among = f"{len(chosen):,} of the {len(places):,}" if len(places) > len(chosen) else f"all {len(places):,}"
    st.caption(f"Over {among} pages. Answers that end in a loop: {', '.join(loops)}.")


@st.cache_resource(max_entries=32, show_spinner="Comparing pages line by line")
def _errors(asked: tuple, _run: Run, _places: NDArray[np.intp]) -> PageErrors:
    held = stored.rows(_run, _places, ("target", "prediction", "response"))
    return errors_of(*(held[name].to_pylist() for name in ("target", "prediction", "response")))


def errors_of(targets: list[str | None], read: list[str | None], responses: list[str | None]) -> PageErrors:
    """Count the errors of answers to pages; a page without an answer or a truth does not count.

    Args:
        targets: Truths, as JSON.
        read: What was read of the answers, as JSON; None where that is all that was said.
        responses: What was said.
    """
    lines, loops, answers = 0, 0, 0
    wrong: dict[LineKind, int] = dict.fromkeys(ERRORS, 0)
    for target, prediction, said in zip(targets, read, responses, strict=True):
        truth = None if target is None else json.loads(target)
        if said is None or not isinstance(truth, str):
            continue
        counts = line_errors(truth, said if prediction is None else json.loads(prediction)).counts()
        lines += sum(counts[kind] for kind in ("same", "changed", "dropped", "moved"))
        answers, loops = answers + 1, loops + ends_in_loop(said)
        wrong = {kind: number + counts[kind] for kind, number in wrong.items()}
    return PageErrors(lines, wrong, loops, answers)


def _chart(sides: list[PageErrors]) -> alt.Chart:
    table = pd.DataFrame(
        {"kind": kind, "run": name, "lines": side.wrong[kind], "share": 100 * side.wrong[kind] / side.lines}
        for name, side in zip("AB", sides, strict=True)
        for kind in ERRORS
    )
    return alt.Chart(table).mark_bar().encode(
        y=alt.Y("kind:N", sort=list(ERRORS), title=None),
        yOffset="run:N",
        x=alt.X("share:Q", title="lines in 100 lines of the pages"),
        color=alt.Color(
            "run:N", scale=alt.Scale(domain=["A", "B"], range=[BASELINE, CANDIDATE]),
            legend=alt.Legend(orient="top", title=None),
        ),
        tooltip=["kind", "run", alt.Tooltip("lines", format=","), alt.Tooltip("share", format=".2f")],
    ).properties(height=alt.Step(14))  # fmt: skip
