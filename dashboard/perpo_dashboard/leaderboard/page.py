"""Who is best at what: measured and reported runs as tables and bars, their differences to a baseline, and files."""

import dataclasses
import shlex
from collections.abc import Sequence
from datetime import date
from functools import partial
from typing import Any

import streamlit as st

from perpo.records.store import SAMPLES_FILE, Run, slug
from perpo.results import colours
from perpo.results.leaderboard import board as leaderboard
from perpo.results.leaderboard import files
from perpo.results.leaderboard import views as board_views
from perpo.results.leaderboard.board import Board, Column
from perpo.stats import Difference
from perpo_dashboard.leaderboard import boards, tables
from perpo_dashboard.shared import stored
from perpo_dashboard.shared.links import go, label_of
from perpo_dashboard.shared.pick import tell_misread, tell_unknown
from perpo_dashboard.shared.text import empty, escape

OWN_BASE = "each run's own base"
ROW = 35  # pixels of a table's row; the header has two
MOST_ROWS = 30  # of a table that shows all of its own


@st.cache_resource(max_entries=20_000, show_spinner=False)
def _difference(one: stored.Stamp, other: stored.Stamp, column: Column, _runs: tuple[Run, Run]) -> Difference | None:
    return leaderboard.difference(*_runs, column, stored.scores)


def differ(one: Run, other: Run, column: Column) -> Difference | None:
    """Return what `perpo.results.leaderboard.board.difference` gives, taken once."""
    mine, theirs = (stored.stamp(run.path / SAMPLES_FILE) for run in (one, other))
    return _difference(mine, theirs, column, (one, other))


def choose(runs: Sequence[Run]) -> boards.RunChoice:
    """Return the filters."""
    methods = {leaderboard.method_of(run.record) for run in runs}
    facets = {
        "base": ("Base model", sorted({run.record.model.id for run in runs})),
        "method": ("Method", sorted(methods, key=lambda name: [*colours.BY_METHOD, name].index(name))),
        "judge": ("Judge", sorted({boards.judge_of(run.record) for run in runs})),
        "source": ("Source", ["measured", "reported"]),
    }
    for key, (_, options) in facets.items():
        tell_unknown(key, options)
    for key in ("since", "until"):
        tell_misread(key, date.fromisoformat, "a day such as 2026-01-31")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        base, method, judge, source = (
            st.multiselect(title, options, key=key, bind="query-params", placeholder="all", width=172)
            for key, (title, options) in facets.items()
        )
        since, until = (
            st.date_input(f"{title} (UTC)", None, key=key, bind="query-params", format="YYYY-MM-DD", width=130)
            for title, key in (("From", "since"), ("To", "until"))
        )
    return boards.RunChoice(base, method, judge, source, since, until)


def ask(all_boards: Sequence[Board]) -> tuple[list[str], str | None, str]:
    """Ask in which form they are wanted: topics of columns, what differences are taken to, and an order."""
    topics = boards.benchmarks(all_boards)
    runs = [label_of(row.run) for board in all_boards for row in board.rows]
    orders = [*boards.ORDERS, *dict.fromkeys(column.title for board in all_boards for column in board.columns)]
    for key, options in (("columns", topics), ("to", [OWN_BASE, *runs]), ("sort", orders)):
        tell_unknown(key, options)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.multiselect(
            "Columns about", topics, key="columns", bind="query-params", placeholder="all", width=232
        )
        to = st.selectbox(
            "Difference to",
            [OWN_BASE, *runs],
            index=None,
            key="to",
            bind="query-params",
            placeholder="show values",
            help="Difference between each run and this one, paired by sample where both were measured.",
            width=232,
        )
        return wanted, to, st.selectbox("Sort by", orders, key="sort", bind="query-params", width=232)


def formed(all_boards: Sequence[Board], topics: Sequence[str], to: str | None, order: str) -> list[Board]:
    """Return the leaderboards in that form."""
    rows = {label_of(row.run): row for board in all_boards for row in board.rows}
    views = []
    for board in all_boards:
        view = boards.only(boards.ordered(board, order), topics)  # by values, also where differences are shown
        if to is not None:
            baselines = board_views.own_bases(view) if to == OWN_BASE else [rows[to]] * len(view.rows)
            view = board_views.against(view, baselines, to, differ)
        views.append(view)
    return [view for view in views if view.columns]


def table(board: Board, *, early: bool = False) -> list[Run]:
    """Return the table; returns the runs whose rows are chosen, of which an early one knows none."""
    styler, first = tables.styled(board)
    widest = max(map(len, files.names(board)))
    config: dict[Any, Any] = {
        1: st.column_config.TextColumn("run", pinned=True, width=min(320, 40 + 7 * widest)),
        2: st.column_config.MultiselectColumn(
            "source",
            options=["measured", "reported"],
            color=["blue", "gray"],
            help="measured: from answers in this folder; reported: numbers published by others, without intervals",
        ),
        3: st.column_config.DatetimeColumn("date", format="YYYY-MM-DD", help="Day of the evaluation (UTC)"),
    }
    for place, column in enumerate(board.columns, first + 1):
        config[place] = st.column_config.NumberColumn(help=escape(tables.help_of(board, column)))
    key = f"{'early' if early else 'board'}-{board.title}"
    st.dataframe(
        styler,
        hide_index=True,
        column_config=config,
        height="content" if len(board.rows) <= MOST_ROWS else ROW * (2 + MOST_ROWS),
        placeholder="",
        key=key,
        on_select="ignore" if early else "rerun",
        selection_mode="multi-row",
        alt=f"Leaderboard: {board.title}",
    )
    if early:
        return []
    chosen = st.session_state[key].selection.rows
    return [board.rows[n].run for n in chosen if n < len(board.rows)]


def actions(board: Board, chosen: Sequence[Run]) -> None:
    """Offer files of what is shown, and ways to go on with the chosen rows."""
    with st.container(horizontal=True, vertical_alignment="center"):
        for name, kind, suffix, mime in (
            ("CSV", "csv", "csv", "text/csv"),
            ("Markdown", "markdown", "md", "text/markdown"),
            ("LaTeX", "latex", "tex", "text/x-tex"),
        ):
            st.download_button(
                name,
                partial(files.render, board, kind),
                file_name=f"{slug(board.title.lower())}.{suffix}",
                mime=mime,
                icon=":material/download:",
                key=f"{board.title}-{kind}",
                on_click="ignore",
            )
        pair = {name: label_of(run) for name, run in zip("ab", chosen, strict=False)}
        measured = [run for run in chosen if run.record.samples is not None]
        if len(measured) == 2 == len(chosen):
            for page, name, icon in (
                ("compare", "Compare", "balance"),
                ("samples", "Samples", "photo_library"),
                ("regressions", "Report", "rule"),
            ):
                if st.button(name, icon=f":material/{icon}:", type="primary", key=f"{board.title}-{page}"):
                    go(page, **pair)
        else:
            st.caption("Choose two measured rows to compare them.")


def draw(views: Sequence[Board]) -> None:
    """Draw bars with intervals: a picture for each column of a part of a table."""
    parts: dict[str, list[tuple[Board, Column, str]]] = {}
    for view in views:
        for column, (head, name) in zip(view.columns, tables.headers(view.columns), strict=True):
            parts.setdefault(f"{view.title} · {head}", []).append((view, column, name))
    tell_unknown("bars", list(parts))
    part = st.selectbox("Bars of", list(parts), key="bars", bind="query-params", width=576)
    with st.grid("auto", min_column_width=340):
        for view, column, name in parts[part]:
            lines = boards.bars(view, [column])
            if not lines.empty:
                title = name if name in column.name else column.title
                whole = view.baseline is None and column.unit == "fraction"
                unit = column.unit if column.unit != "fraction" else "%" if whole else "points of 100"
                spec = _bars(unit, whole) | {"title": title}
                st.vega_lite_chart(lines, spec, alt=f"Bars with intervals: {column.title}")


@st.cache_data(max_entries=100, show_spinner=False)
def _bars(unit: str, whole: bool) -> dict[str, object]:
    """The picture without its data: Altair takes as long to check one as a page may take for all of them."""
    import altair as alt

    y = alt.Y("run:N", title=None, sort=None, axis=alt.Axis(labelLimit=220))
    base = alt.Chart().encode(y=y, tooltip=["run:N", "source:N", alt.Tooltip("text:N", title="value")])
    scale = alt.Scale(domain=list(colours.BY_METHOD), range=list(colours.BY_METHOD.values()))
    bars = base.mark_bar(height={"band": 0.72}).encode(
        x=alt.X(
            "value:Q",
            title=unit,
            axis=alt.Axis(tickCount=6),
            scale=alt.Scale(domain=[0, 100]) if whole else alt.Scale(zero=True),
        ),
        color=alt.Color("method:N", scale=scale, legend=None),
        opacity=alt.condition("datum.source === 'reported'", alt.value(0.55), alt.value(1)),
    )
    halo = base.mark_rule(color="white", strokeWidth=4, opacity=0.9).encode(x="low:Q", x2="high:Q")
    rule = base.mark_rule(color="#222222", strokeWidth=1.6).encode(x="low:Q", x2="high:Q")
    return (bars + halo + rule).properties(height=alt.Step(22)).to_dict()


def show_all(views: Sequence[Board]) -> None:
    """Show all tables with what belongs to them."""
    for view in views:
        st.subheader(escape(view.title))
        actions(view, table(view))
        told = files.notes(view)
        if view.baseline is not None and any(row.run.record.source == "measured" for row in view.rows):
            told.append("Where the 95% interval does not include 0, green is better and orange is worse.")
        st.caption("  \n".join(map(escape, told)))


@st.cache_resource(show_spinner=False)
def _compared() -> set[tuple[stored.Stamp, ...]]:
    return set()  # the runs whose differences somebody has waited for


def without_marks(all_boards: Sequence[Board]) -> None:
    """Show the tables as they are before anything is compared, for which samples must be read."""
    for view in all_boards:
        st.subheader(escape(view.title))
        table(view, early=True)


runs = stored.runs()
if not runs:
    empty("There are no runs in this folder.", "perpo-demo && perpo-dashboard --results runs")
choice = choose(runs)
held = [run for run in runs if choice.holds(run)]
if not held:
    empty(
        "No run matches these filters.",
        shlex.join(["perpo-eval", "list", "--results", str(stored.settings().results)]),
    )
plain = [dataclasses.replace(board, marks={}) for board in leaderboard.boards(held, lambda *_: None)]
parts = [part for board in plain for part in boards.split(board)]
topics, to, order = ask(parts)
place, stamps = st.empty(), tuple(stored.stamp(run.path / SAMPLES_FILE) for run in held)
if stamps not in _compared() and to is None:
    with place.container():
        without_marks(formed(parts, topics, None, order))
all_boards = [part for board in leaderboard.boards(held, differ) for part in boards.split(board)]
views = formed(all_boards, topics, to, order)
_compared().add(stamps)
with place.container():
    if reasons := stored.damaged(held):
        st.warning("  \n".join(["Not compared with other runs:", *map(escape, reasons)]))
    show_all(views)
draw(views)
