"""The pages of the dashboard and links to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from perpo.records.store import Run


@dataclass(frozen=True)
class PageInfo:
    """A page: its file beside app.py, its name for people, and its icon."""

    file: str
    title: str
    icon: str


PAGES = {
    "leaderboard": PageInfo("leaderboard/page.py", "Leaderboard", ":material/leaderboard:"),
    "compare": PageInfo("compare/page.py", "Compare A and B", ":material/balance:"),
    "samples": PageInfo("samples/page.py", "Samples", ":material/photo_library:"),
    "training": PageInfo("training/page.py", "Training", ":material/show_chart:"),
    "vote": PageInfo("vote/page.py", "Blind vote", ":material/how_to_vote:"),
    "regressions": PageInfo("regressions/page.py", "Regressions", ":material/rule:"),
}
"""By the last part of their address, which no link should outlive."""


def go(page: str, **state: str | Sequence[str]) -> None:
    """Open another page in a state, as its address would."""
    st.switch_page(PAGES[page].file, query_params=dict(state))


def label_of(run: Run) -> str:
    """Return what tells a run from all others in a list and in an address: its name and the end of its id."""
    return f"{run.record.name} ({run.record.run_id[-6:]})"
