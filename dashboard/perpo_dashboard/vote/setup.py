"""Show the blind votes that there are, and set up a new one: names are shown here, before anybody votes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from perpo.errors import PerpoError
from perpo.records.store import SAMPLES_FILE, Run
from perpo_dashboard.shared import stored
from perpo_dashboard.shared.links import go
from perpo_dashboard.shared.outcomes import default_pair
from perpo_dashboard.shared.pick import pick_run, tell_unknown
from perpo_dashboard.shared.stored import Stamp, stamp
from perpo_dashboard.shared.text import empty, reason
from perpo_dashboard.vote import ballot, votes
from perpo_dashboard.vote.votes import Ballots, Pool

_MOST_QUESTIONS = 1000


def overview(ballots: Ballots) -> None:
    """Show the studies so far, newest first, and a way to a new one."""
    st.caption(
        "Compare two answers to one question, side by side. The names of the runs stay hidden until the result "
        "is opened."
    )
    if st.button("Set up a vote", icon=":material/add:", type="primary"):
        go("vote", show="new")
    for study in reversed(ballots.studies.values()):
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            voters = ballots.votes.get(study.id, {})
            given = sum(map(len, voters.values()))
            st.text(
                f"Vote {study.id} of {study.day}: {len(study.questions)} questions of "
                f"{', '.join(study.tasks)}. Voters: {len(voters)}, votes: {given}",
                width="stretch",
            )
            if st.button("Vote", key=f"open-{study.id}", icon=":material/how_to_vote:"):
                go("vote", study=study.id)
            if st.button("Result", key=f"result-{study.id}", icon=":material/bar_chart:"):
                go("vote", study=study.id, show="result")


def set_up(ballots: Ballots) -> None:
    """Choose two runs and what is asked; the only part that shows names before a result."""
    runs = stored.measured()
    if len(runs) < 2:
        empty("A vote needs two runs with samples in this folder.", "perpo-demo && perpo-dashboard --results runs")
    st.caption(
        "Choose two runs and the number of questions. Voters see neither the names nor which side is which. "
        "Two answers with the same text need no vote."
    )
    first, last = default_pair(runs)
    columns = st.columns(2)
    with columns[0]:
        one = pick_run("One run", "a", runs, first)
    with columns[1]:
        other = pick_run("The other run", "b", runs, last)
    if one is None or other is None:
        return
    if one.record.run_id == other.record.run_id:
        st.info("Choose two different runs.")
        return
    try:
        pool = _pool(tuple(stamp(run.path / SAMPLES_FILE) for run in (one, other)), (one, other))
    except PerpoError as error:
        st.warning(reason(error))
        return
    _questions(pool, (one, other))
    if ballots.studies and st.button("All votes", icon=":material/arrow_back:", type="tertiary"):
        go("vote")


def _questions(pool: Pool, runs: tuple[Run, Run]) -> None:
    known = sorted(set(pool.tasks.tolist()))
    tell_unknown("tasks", known, "which these runs do not share")
    columns = st.columns([3, 1, 1])
    tasks = columns[0].multiselect("Tasks", known, key="tasks", bind="query-params", placeholder="All tasks")
    count = columns[1].number_input("Questions at most", 1, _MOST_QUESTIONS, 50, key="count", bind="query-params")
    seed = columns[2].number_input(
        "Seed",
        0,
        2**31,
        0,
        key="seed",
        bind="query-params",
        help="Seed for choosing the questions, their order and the sides.",
    )
    ask_alike = st.toggle(
        "Also ask where both answers have the same text",
        key="alike",
        bind="query-params",
        help="They can only be ties.",
    )
    chosen = pool.take(np.isin(pool.tasks, tasks)) if tasks else pool
    alike = int(chosen.alike.sum())
    left = len(chosen.keys) - (0 if ask_alike else alike)
    st.caption(
        f"Both runs answered {len(chosen.keys):,} questions; {alike:,} answers have the same text. "
        f"{min(left, count):,} of the remaining {left:,} questions are asked: equally many of each task, "
        "different images first."
    )
    if st.button("Begin the vote", type="primary", icon=":material/how_to_vote:", disabled=left == 0):
        ids = tuple(run.record.run_id for run in runs)
        digests = tuple(run.record.samples.sha256 for run in runs if run.record.samples)
        study = votes.new_study(ids, digests, chosen, count=count, seed=seed, ask_alike=ask_alike)  # type: ignore[arg-type]
        if ballot.kept(study):
            go("vote", study=study.id)


@st.cache_resource(max_entries=4, show_spinner=False)
def _pool(files: Sequence[Stamp], _runs: tuple[Run, Run]) -> Pool:
    one, other = _runs
    said = stored.column(one, "response"), stored.column(other, "response")
    return votes.pool_of(stored.scores(one), stored.scores(other), said)
