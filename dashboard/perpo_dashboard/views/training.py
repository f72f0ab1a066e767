"""Training runs: their curves, what they learnt from, and one list looked at."""

from perpo_dashboard import training_lists, training_runs
from perpo_dashboard.shared.text import empty

known = training_runs.known()
if not known:
    empty("There are no trainings in this folder.", "perpo-demo && perpo-dashboard --results runs")
chosen = training_runs.choose(known)
if chosen:
    training_runs.summary(chosen)
    training_runs.curves(chosen)
    training_lists.data(chosen)
    training_lists.one_list(chosen)
