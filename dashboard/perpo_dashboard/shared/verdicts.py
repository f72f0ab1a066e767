"""A regression report on a page: the verdict, the gains with their intervals, the samples that lost most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from perpo.benchmarks.table import answer_kind
from perpo.boxes import stored_box
from perpo.errors import PerpoError
from perpo.results.colours import BASELINE, CANDIDATE, TRUTH
from perpo.results.regression.flips import Flip
from perpo.results.regression.report import Report
from perpo.results.regression.text import others_table, short, table, truth_of
from perpo_dashboard.shared import gains, pictures
from perpo_dashboard.shared.links import PAGES, label_of
from perpo_dashboard.shared.pictures import Box
from perpo_dashboard.shared.text import escape, plain, reason

_COLOURS = {
    "regressed": "orange",
    "changed": "violet",
    "improved": "green",
    "unchanged": "blue",
    "identical": "blue",
    "inconclusive": "gray",
}
_HELP = {
    "gain": (
        "Candidate minus baseline; above 0 if the candidate is better. In points of 100, unless another unit is given"
    ),
    "95% interval": "95% interval of the gain, paired by sample and clustered by image",
    "p (adjusted)": "p value of no difference, adjusted for all rows together (Westfall and Young, Holm)",
    "threshold": "Smaller gains and losses are treated as no change",
    "verdict": "regressed or improved (changed, if neither direction is better): p below 0.05, beyond the threshold; "
    "identical: every response is the same; "
    "unchanged: an interval that allows for what so few images cannot show lies within the threshold; inconclusive: "
    "anything else, with the effect that would have been seen",
}
_BADGES = {"truth": "green", "baseline": "blue", "candidate": "orange"}


def refused(error: PerpoError) -> None:
    """Say why two runs cannot be compared, and what to do."""
    st.warning(reason(error), icon=":material/block:")


def show(report: Report, columns: Sequence[str]) -> None:
    """Show the verdict and its rows.

    Args:
        report: The report.
        columns: Which columns of `perpo.results.regression.text.table` are shown, in this order.
    """
    entries = (report.candidate_entry, report.baseline_entry)
    names = " against ".join(escape(short(entry.name)) for entry in entries)
    st.subheader(f":{_COLOURS[report.verdict]}[{report.verdict}]: {names}")
    counts = Counter(row.verdict for row in report.rows)
    st.markdown(" ".join(f":{_COLOURS[verdict]}-badge[{count} {verdict}]" for verdict, count in counts.items()))
    told = table(report)
    tiles = st.grid("auto", min_column_width=400)
    tiles.altair_chart(gains.gains(report), alt="Gain of B over A by task, with 95% intervals")
    config = {name: st.column_config.TextColumn(help=text) for name, text in _HELP.items()}
    tiles.cell(column_span=2).dataframe(
        pd.DataFrame(told.rows, columns=told.header),
        hide_index=True,
        height="content",
        column_order=columns,
        column_config=config | {"task": st.column_config.TextColumn(pinned=True)},
        alt="Paired differences by task",
    )
    if report.others:
        others = others_table(report)
        with st.expander(f"{len(report.others)} other metrics, only told"):
            st.dataframe(
                pd.DataFrame(others.rows, columns=others.header),
                hide_index=True,
                column_order=columns,
                column_config=config | {"task": st.column_config.TextColumn(pinned=True)},
                alt="Paired differences in other metrics",
            )
    with st.expander("How to read this"):
        for note in told.notes:
            st.text(note)


def show_flips(report: Report, flips: Sequence[Flip]) -> None:
    """Show samples that lost: the picture with the boxes, what was said, and the way to all of the sample."""
    with st.grid("auto", min_column_width=300, border=True):
        for flip in flips:
            with st.container():
                _flip(report, flip)


def _flip(report: Report, flip: Flip) -> None:
    file = pictures.find(flip.image)
    boxes = _boxes(flip) if answer_kind(flip.benchmark) == "box" else []
    if file is None:
        st.caption(f"no picture: {escape(str(flip.image.get('path') or 'not named'))}")
    else:
        try:
            drawn = pictures.with_boxes(file, flip.image, boxes)
            st.image(drawn, alt=f"Picture of {flip.task}", width=280)
        except PerpoError as error:
            st.caption(escape(error.message))
    st.caption(escape(flip.task))
    plain(flip.question, height=_height(flip.question))
    for name, said in (("truth", truth_of(flip)), ("baseline", flip.baseline), ("candidate", flip.candidate)):
        st.markdown(f":{_BADGES[name]}-badge[{name}]")
        plain(said, height=_height(said))
    state = {"a": label_of(report.baseline), "b": label_of(report.candidate), "task": flip.task}
    st.page_link(
        PAGES["samples"].file,
        label="Open this sample",
        icon=":material/open_in_new:",
        query_params=state | {"key": flip.sample_key[:16]},
    )


def _height(said: str | None) -> int | str:
    return 120 if len(said or "") > 200 else "content"


def _boxes(flip: Flip) -> list[Box]:
    texts = ((flip.target, TRUTH), (flip.baseline_prediction, BASELINE), (flip.candidate_prediction, CANDIDATE))
    return [Box(corners, colour) for text, colour in texts if (corners := stored_box(text)) is not None]
