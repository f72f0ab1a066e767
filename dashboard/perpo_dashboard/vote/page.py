"""Blind votes: two answers to one question, names hidden, and what the votes add up to."""

import streamlit as st

from perpo.errors import PerpoError
from perpo_dashboard.shared.links import go
from perpo_dashboard.shared.text import escape, reason
from perpo_dashboard.vote import ballot, result, setup

try:
    ballots = ballot.ballots()
except PerpoError as error:
    st.error(reason(error))
    st.stop()
if ballots.unread:
    lines = "line makes" if ballots.unread == 1 else "lines make"
    st.warning(f"{ballots.unread} {lines} no sense in {escape(str(ballot.file()))} and did not count.")

asked, voter, shown = (st.query_params.get(name, "") for name in ("study", "voter", "show"))
study = ballots.studies.get(asked)
if study is None and asked:
    st.warning(f"This address names the vote {escape(asked)}, which is not in this folder.")
    if st.button("All votes"):
        go("vote")
elif study is None and (shown == "new" or not ballots.studies):
    setup.set_up(ballots)
elif study is None:
    setup.overview(ballots)
elif shown == "result":
    result.result(ballots, study, voter)
elif not voter.strip():
    ballot.greet(study)
else:
    ballot.ask(ballots, study, voter.strip())
