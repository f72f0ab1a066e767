"""The samples that two runs share."""

from __future__ import annotations

import streamlit as st

from perpo.errors import PerpoError
from perpo.records.store import Run
from perpo_dashboard.shared import stored
from perpo_dashboard.shared.outcomes import Pair
from perpo_dashboard.shared.text import reason


def shared(a: Run, b: Run) -> Pair | None:
    """Return two runs side by side; None, and why is said, where their samples cannot be read or none is of both."""
    try:
        pair = stored.pair(a, b)
    except PerpoError as error:
        st.error(reason(error))
        return None
    if not len(pair.keys):
        st.warning("These two runs have no sample in common.")
        return None
    return pair
