"""The result of a blind vote: the only part of it that shows which run is which."""

from __future__ import annotations

from urllib.parse import urlencode

import altair as alt
import pandas as pd
import streamlit as st

from perpo.errors import PerpoError
from perpo.records.store import Run
from perpo.results.colours import BASELINE, CANDIDATE, PALETTE
from perpo_dashboard.shared.links import go, label_of
from perpo_dashboard.shared.text import escape, reason
from perpo_dashboard.vote import ballot, tally, votes
from perpo_dashboard.vote.tally import Share, Tally
from perpo_dashboard.vote.votes import AskedSample, Ballots, Opened, Outcome, Study

_ALL = "all questions"
_COLOURS = (BASELINE, CANDIDATE, PALETTE[6], PALETTE[4])
_BAR = 16


def result(ballots: Ballots, study: Study, voter: str) -> None:
    """Show counts, shares with intervals, agreement, and every question."""
    if not _may_open(ballots, study, voter):
        return
    ballot.seen_here().add(study.id)
    voters = {name: said for name, said in ballots.outcomes(study).items() if said}
    runs = ballot.runs_of(study)
    names = _names(study, runs)
    st.subheader(f"{escape(names['first'])} against {escape(names['second'])}", anchor=False)
    st.caption(f"Vote {study.id}, set up on {study.day}, seed {study.seed}.{_left_out(ballots, study)}")
    if runs is None:
        st.warning(
            "A run of this vote is no longer in this folder, or its samples have changed since the vote was set up."
        )
    if not voters:
        st.info("Nobody has voted yet.", icon=":material/info:")
        st.code(f"?study={study.id}", language=None)
        return _back(study, voter)
    decided = tally.by_question(voters)
    tallies = {_ALL: tally.tally(list(decided.values()))}
    if len(study.tasks) > 1:
        tallies |= {task: tally.tally([o for q, o in decided.items() if q.task == task]) for task in study.tasks}
    _headline(names, tallies[_ALL], len(voters), len(study.questions))
    _bars(names, {scope: each for scope, each in tallies.items() if each.preferred.n or each.shares["tie"].n})
    _table(names, tallies)
    _agreement(names, voters)
    _every_question(names, voters, decided, runs)
    _back(study, voter)


def _may_open(ballots: Ballots, study: Study, voter: str) -> bool:
    """Whether the names may be shown; a voter who sees them is on record from then on."""
    if not voter or (study.id, voter) in ballots.seen:
        return True
    missing = len(study.questions) - len(ballots.of(study, voter))
    if missing:
        st.warning(
            f"{missing} of your {len(study.questions)} questions are not answered yet. Votes that you give after "
            "you have seen the result do not count."
        )
        go_on, open_it = st.columns([1, 4])
        if go_on.button("Go on voting", type="primary"):
            go("vote", study=study.id, voter=voter)
        if not open_it.button("Open the result anyway"):
            return False
    try:
        votes.add(ballot.file(), Opened(study.id, voter, votes.now()))
    except PerpoError as error:
        st.error(reason(error))
        return False
    return True


def _names(study: Study, runs: tuple[Run, Run] | None) -> dict[Outcome, str]:
    first, second = study.runs if runs is None else map(label_of, runs)
    return {"first": first, "second": second, "tie": "tie", "both bad": "both bad"}


def _left_out(ballots: Ballots, study: Study) -> str:
    text = ""
    if study.alike:
        text += f" {study.alike:,} questions of these tasks were not asked, because both answers were the same."
    if late := ballots.late[study.id]:
        text += f" {late} votes do not count, because their voters had seen the result before."
    return text


def _headline(names: dict[Outcome, str], overall: Tally, voters: int, questions: int) -> None:
    with st.grid(4, min_column_width=150, border=True):
        for outcome, each in overall.shares.items():
            title = f"{names[outcome]} wins" if outcome in ("first", "second") else names[outcome].capitalize()
            st.metric(escape(title), _percent(each.value), _interval(each), delta_color="off", delta_arrow="off")
    preferred = overall.preferred
    st.caption(
        f"{overall.shares['tie'].n} of {questions} questions are answered, by {_plural(voters, 'voter')}. "
        f"Where one run was better, it was {escape(names['second'])} in {_percent(preferred.value) or 'none'} "
        f"{_interval(preferred)} of {preferred.n} questions. Intervals are Wilson's, 95%. Each question counts "
        "once, with the choice of most of its voters. If the voters are split, it counts as a tie."
    )


def _bars(names: dict[Outcome, str], tallies: dict[str, Tally]) -> None:
    """A bar per outcome, in groups; each has a line of its own, since Vega puts whiskers beside offset bars."""
    rows = [
        {"line": f"{place}/{scope}", "scope": scope, "outcome": names[outcome], "share": each.value}
        | {"low": each.low, "high": each.high, "count": each.count, "n": each.n}
        for scope, scope_tally in tallies.items()
        for place, (outcome, each) in enumerate(scope_tally.shares.items())
    ]
    lines = [f"{place}/{scope}" for scope in tallies for place in range(len(names) + 1)]  # the last one is a gap
    base = alt.Chart(pd.DataFrame(rows)).encode(
        y=alt.Y(
            "line:N",
            scale=alt.Scale(domain=lines[:-1], paddingInner=0.15),
            axis=alt.Axis(
                title=None,
                labelExpr="substring(datum.value, 0, 2) === '1/' ? substring(datum.value, 2) : ''",
                labelLimit=160,
                labelOverlap=False,
                domain=False,
                ticks=False,
            ),
        ),
        tooltip=[
            alt.Tooltip("scope:N", title="Questions of"),
            alt.Tooltip("outcome:N", title="Outcome"),
            alt.Tooltip("share:Q", format=".1%", title="Share"),
            alt.Tooltip("low:Q", format=".1%", title="From"),
            alt.Tooltip("high:Q", format=".1%", title="To"),
            alt.Tooltip("count:Q", title="Count"),
            alt.Tooltip("n:Q", title="Of"),
        ],
    )
    order = list(names.values())
    bars = base.mark_bar().encode(
        x=alt.X(
            "share:Q",
            title="share of the questions",
            axis=alt.Axis(format="%", tickCount=5),
            scale=alt.Scale(domain=[0, 1]),
        ),
        color=alt.Color(
            "outcome:N",
            sort=order,
            scale=alt.Scale(domain=order, range=list(_COLOURS)),
            legend=alt.Legend(orient="top", title=None, labelLimit=300),
        ),
    )
    whiskers = base.mark_rule(strokeWidth=2, color="#808080").encode(x="low:Q", x2="high:Q")
    ends = [base.mark_tick(size=8, thickness=2, color="#808080").encode(x=f"{end}:Q") for end in ("low", "high")]
    chart = alt.layer(bars, whiskers, *ends).properties(height=alt.Step(_BAR))
    st.altair_chart(chart, alt="Share of questions that each run won, that were ties, and where both were bad")


def _table(names: dict[Outcome, str], tallies: dict[str, Tally]) -> None:
    rows = []
    for scope, scope_tally in tallies.items():
        row: dict[str, object] = {"questions of": scope, "answered": scope_tally.shares["tie"].n}
        for outcome, each in scope_tally.shares.items():
            row[names[outcome]] = f"{each.count} ({_percent(each.value)} {_interval(each)})" if each.n else None
        row["preference"] = (
            f"{_percent(scope_tally.preferred.value)} {_interval(scope_tally.preferred)}"
            if scope_tally.preferred.n
            else None
        )
        rows.append(row)
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        placeholder="",
        column_config={
            "preference": st.column_config.TextColumn(
                f"prefer {names['second']}", help="Share of the second run's wins in all wins, without ties."
            )
        },
    )


def _agreement(names: dict[Outcome, str], voters: dict[str, dict[AskedSample, Outcome]]) -> None:
    st.subheader("Voters", anchor=False)
    columns = st.columns(2)
    columns[0].dataframe(
        pd.DataFrame(
            {"voter": name, "votes": len(said)} | {names[each]: [*said.values()].count(each) for each in votes.OUTCOMES}
            for name, said in voters.items()
        ),
        hide_index=True,
        placeholder="",
    )
    pairs = tally.agreements(voters)
    if not pairs:
        columns[1].info("Agreement needs a second voter.", icon=":material/info:")
        return
    columns[1].dataframe(
        pd.DataFrame(
            {
                "voters": " and ".join(pair.voters),
                "questions": pair.questions,
                "agree": f"{_percent(pair.agreed.value)} {_interval(pair.agreed)}" if pair.questions else None,
                "kappa": pair.kappa,
            }
            for pair in pairs
        ),
        hide_index=True,
        placeholder="",
        column_config={
            "kappa": st.column_config.NumberColumn(format="%.2f", help="Cohen's kappa: 0 is chance, 1 full.")
        },
    )
    units = {question for said in voters.values() for question in said}
    alpha = tally.krippendorff_alpha([[said[q] for said in voters.values() if q in said] for q in units])
    value = "undefined: too few shared answers, or all are the same" if alpha is None else f"{alpha:.2f}"
    columns[1].caption(f"All voters together, Krippendorff's alpha: {value} (0 is chance, 1 full agreement).")


def _every_question(
    names: dict[Outcome, str],
    voters: dict[str, dict[AskedSample, Outcome]],
    decided: dict[AskedSample, Outcome],
    runs: tuple[Run, Run] | None,
) -> None:
    rows = []
    for question, outcome in sorted(decided.items()):
        said = {name: names[mine[question]] if question in mine else None for name, mine in voters.items()}
        row = {"task": question.task, "sample": question.sample_key[:8], "outcome": names[outcome]}
        if runs is not None:
            link = {"a": label_of(runs[0]), "b": label_of(runs[1]), "key": question.sample_key[:16]}
            row["open"] = f"/samples?{urlencode(link)}"
        rows.append({**row, **{f"vote of {name}": each for name, each in said.items()}})
    with st.expander(f"Every question ({len(rows)})", icon=":material/list:"):
        st.dataframe(
            pd.DataFrame(rows),
            hide_index=True,
            placeholder="",
            column_config={"open": st.column_config.LinkColumn("side by side", display_text="open")},
        )


def _back(study: Study, voter: str) -> None:
    with st.container(horizontal=True):
        if st.button("All votes", icon=":material/arrow_back:", type="tertiary"):
            go("vote")
        if voter and st.button("Look at my answers", type="tertiary"):
            go("vote", study=study.id, voter=voter, q="1")


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}%"


def _interval(share: Share) -> str:
    return "" if share.low is None or share.high is None else f"[{100 * share.low:.0f}, {100 * share.high:.0f}]"
