"""Samples, side by side: which ones, in which order, and one of them in full."""

import streamlit as st

from perpo_dashboard.samples import browse
from perpo_dashboard.shared import stored
from perpo_dashboard.shared.outcomes import default_pair
from perpo_dashboard.shared.pick import pick_run, pick_runs
from perpo_dashboard.shared.text import empty

runs = stored.measured()
if not runs:
    empty("There are no runs with samples in this folder.", "perpo-demo && perpo-dashboard --results runs")

first, last = default_pair(runs)
columns = st.columns((3, 3, 4))
with columns[0]:
    a = pick_run("A (baseline)", "a", runs, first)
with columns[1]:
    b = pick_run("B (candidate)", "b", runs, last)
with columns[2]:
    more = pick_runs("More runs", "more", [run for run in runs if run not in (a, b)], most=3)
if a is None or b is None:
    st.info("Choose two runs.")
    st.stop()
browse.show(a, b, more)
