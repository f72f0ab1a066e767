"""Not built yet."""

from perpo_dashboard import stored
from perpo_dashboard.show import empty

if not stored.runs():
    empty("There are no runs in this folder.", "perpo-demo && perpo-dashboard --results runs")
