"""Two runs against each other: how sure the difference is, who is right where, and what was set differently."""

import pandas as pd
import streamlit as st

from perpo_dashboard.compare import parts
from perpo_dashboard.compare.setups import configuration_differences
from perpo_dashboard.shared import stored
from perpo_dashboard.shared.outcomes import default_pair
from perpo_dashboard.shared.pick import pick_run
from perpo_dashboard.shared.text import empty

runs = stored.measured()
if not runs:
    empty("There are no runs with samples in this folder.", "perpo-demo && perpo-dashboard --results runs")

first, last = default_pair(runs)
left, right = st.columns(2)
with left:
    a = pick_run("A (baseline)", "a", runs, first)
with right:
    b = pick_run("B (candidate)", "b", runs, last)
if a is None or b is None:
    st.info("Choose two runs.")
    st.stop()
if a == b:
    st.info("A and B are the same run. Choose another run to see differences.")

verdicts = st.container()
parts.show_outcomes(a, b)
st.subheader("Settings that differ")
differences = configuration_differences(a.record, b.record)
if differences:
    table = pd.DataFrame(differences, columns=["setting", "A", "B"])
    st.dataframe(table, hide_index=True, alt="Settings in which the two runs differ")
else:
    st.caption("No differences: the questions, the weights and the programs are the same.")
with verdicts.skeleton(height=260):  # last, because many samples take seconds
    parts.show_verdicts(a, b, verdicts)
