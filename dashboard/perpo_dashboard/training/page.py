"""Training runs: their curves, what they learnt from, and one list looked at."""

from perpo_dashboard.shared.text import empty
from perpo_dashboard.training import rewards, summary

known = summary.known()
if not known:
    empty("There are no trainings in this folder.", "perpo-demo && perpo-dashboard --results runs")
chosen = summary.choose(known)
if chosen:
    summary.summary(chosen)
    summary.curves(chosen)
    rewards.data(chosen)
    rewards.one_list(chosen)
