"""The parts of the page that holds two runs against each other."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from streamlit.delta_generator import DeltaGenerator

from perpo.benchmarks.base import BenchmarkInfo, Rule
from perpo.benchmarks.declared import infos
from perpo.errors import PerpoError
from perpo.records.store import SAMPLES_FILE, Run
from perpo_dashboard.compare import breakdown, charts, page_errors
from perpo_dashboard.compare.breakdown import KindRow
from perpo_dashboard.shared import outcomes, stored, verdicts
from perpo_dashboard.shared.links import go, label_of
from perpo_dashboard.shared.outcomes import OUTCOMES, Pair
from perpo_dashboard.shared.pick import pick, tell_unknown
from perpo_dashboard.shared.text import escape
from perpo_dashboard.shared.two_runs import shared

_BOUND: dict[str, Any] = {"bind": "query-params"}


def show_verdicts(a: Run, b: Run, place: DeltaGenerator) -> None:
    """Show the paired differences of all tasks with their verdicts, or why there are none where the runs allow none."""
    common = bool(st.session_state.get("common"))
    try:
        report = stored.difference(a, b, common)
    except PerpoError as error:
        with place:
            verdicts.refused(error)
            st.toggle("Compare only what both runs have", key="common", **_BOUND)
        return
    with place:
        if common or st.session_state.get("common") is not None:
            st.toggle("Compare only what both runs have", key="common", **_BOUND)
        order = ["task", "verdict", "gain", "95% interval", "baseline", "candidate", "p (adjusted)", "metric"]
        verdicts.show(report, order)


def show_outcomes(a: Run, b: Run) -> None:
    """Show who is right where: counts as buttons, the scores of the samples, and kinds of samples."""
    st.subheader("Who is right where")
    pair = shared(a, b)
    if pair is None:
        return
    scopes = outcomes.scopes(a.record, pair.names)
    tell_unknown("part", scopes, "which these runs do not share")
    task = st.selectbox("Task", list(scopes), key="part", width=360, **_BOUND)
    benchmarks = outcomes.benchmarks_of(a.record)
    present = dict.fromkeys(benchmarks[name] for name in scopes[task])
    for benchmark in present:
        members = tuple(name for name in scopes[task] if benchmarks[name] == benchmark)
        if len(present) > 1:
            st.markdown(f"**{escape(benchmark)}**")
        _benchmark(a, b, pair, benchmark, members, task if len(present) == 1 else _scope_of(scopes, members))


def _scope_of(scopes: dict[str, tuple[str, ...]], members: tuple[str, ...]) -> str:
    return next(name for name, tasks in scopes.items() if tasks == members)


def _benchmark(a: Run, b: Run, pair: Pair, benchmark: str, members: tuple[str, ...], scope: str) -> None:
    info = infos(a.record.tasks).get(benchmark)
    if info is None:
        st.info("It is not known when an answer of this benchmark is right.")
        return
    rule = info.right
    mask = pair.among(members)
    measured = _measured(rule)
    grid = st.grid(3, min_column_width=300)
    with grid.cell():
        _square(a, b, pair.counts(mask), scope, rule.says)
    if measured:
        grid.altair_chart(
            charts.plane(breakdown.plane(pair, mask, rule.span), rule.title, rule.span),
            alt=f"How many samples have which {rule.title} in A and in B",
        )
        grid.altair_chart(
            charts.heights(breakdown.heights(pair, mask, rule.span), rule.title),
            alt=f"How many samples of each run have which {rule.title}",
        )
    if info.answer == "page":
        page_errors.show(a, b, pair, scope, mask)
    _kinds(a, b, info, scope, mask)


def _measured(rule: Rule) -> bool:
    """Whether there is more to see of a sample than right or wrong."""
    return (rule.score, rule.least) != (rule.measure, 1.0)


def _square(a: Run, b: Run, counts: dict[str, int], scope: str, says: str) -> None:
    total = max(1, sum(counts[name] for name in OUTCOMES))
    for pair_of_names in (OUTCOMES[:2], OUTCOMES[2:]):
        for column, name in zip(st.columns(2), pair_of_names, strict=True):
            with column:
                label = f"**{counts[name]:,}** · {counts[name] / total:.1%}  \n{name}"
                if st.button(label, key=f"{scope}-{name}", width="stretch", disabled=not counts[name], wrap=True):
                    go("samples", a=label_of(a), b=label_of(b), task=scope, outcome=name)
    missing = f" Without a score: {counts['not scored']:,}." if counts["not scored"] else ""
    st.caption(f"Right: {escape(says)}. A button opens its samples.{missing}")


def _kinds(a: Run, b: Run, info: BenchmarkInfo, scope: str, mask: NDArray[np.bool_]) -> None:
    benchmark, rule = info.name, info.right
    kinds = breakdown.kinds(info, list(stored.scores(a).values))
    values = ["share right", f"mean {rule.title}"]
    segments = partial(pick, why="which is none", segments=True)
    with st.container(horizontal=True):
        kind = segments("B minus A by", f"by-{benchmark}", kinds, kinds[0], what="the kind")
        value: str | None = values[0]
        if _measured(rule):
            value = segments("of", f"of-{benchmark}", values, values[0], what="the value")
    if kind is None or value is None:
        return
    share = value == values[0]
    span = (0.0, 1.0) if share else rule.span
    stamps = tuple(stored.stamp(run.path / SAMPLES_FILE) for run in (a, b))
    rows = _rows((*stamps, scope, benchmark, kind, share), info, a, b, mask, span)
    if rows:
        chart = charts.kinds(rows, span)
        st.altair_chart(chart, alt=f"B minus A by {kind}, with 95% intervals")
    else:
        st.caption(f"No sample has a known {kind}.")


@st.cache_resource(max_entries=64, show_spinner=False)
def _rows(
    asked: tuple[Any, ...],
    _info: BenchmarkInfo,
    _a: Run,
    _b: Run,
    _mask: NDArray[np.bool_],
    _span: tuple[float, float],
) -> list[KindRow]:
    """What `breakdown.by_kind` finds; `asked` holds all that it depends on."""
    *_, kind, share = asked
    pair, (ours, theirs) = stored.pair(_a, _b), (partial(stored.paired_column, _a, _b, of) for of in (0, 1))
    column = breakdown.first_known(ours, theirs)
    labels = breakdown.labels(kind, _info, pair, _mask, _a.record, column, stored.scores(_a).values)
    return breakdown.by_kind(pair, breakdown.right_share(pair) if share else pair.measure, labels, _span)
