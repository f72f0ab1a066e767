"""Is one run worse than another: perpo-report's verdicts on any two, its files, and a metric over time."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
import streamlit as st

from perpo.benchmarks.base import BenchmarkInfo
from perpo.benchmarks.declared import infos
from perpo.errors import PerpoError
from perpo.records.approval import standing_of
from perpo.records.store import Run
from perpo.results import trend
from perpo.results.regression import extras, junit, page, report_json, text
from perpo.results.regression.extras import Extras
from perpo.results.regression.report import Report
from perpo.results.regression.rows import THRESHOLD
from perpo_dashboard.shared import stored, verdicts
from perpo_dashboard.shared.links import go, label_of
from perpo_dashboard.shared.outcomes import default_pair
from perpo_dashboard.shared.pick import number, pick, pick_run, tell_misread, tell_unknown
from perpo_dashboard.shared.settings import settings
from perpo_dashboard.shared.text import empty, escape

COLUMNS = ("task", "verdict", "gain", "95% interval", "baseline", "candidate", "p (adjusted)", "threshold", "metric")
FIRST = 4  # samples that are shown until somebody asks for all


def files(report: Report) -> None:
    """Offer the files that perpo-report writes."""
    kinds = (
        ("HTML", "html", "text/html", partial(page.page, report, settings().roots)),
        ("Markdown", "md", "text/markdown", partial(text.markdown, report)),
        ("JUnit", "xml", "application/xml", partial(junit.junit, report)),
        ("JSON", "json", "application/json", lambda: json.dumps(report_json.as_json(report), indent=1)),
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        for name, suffix, mime, made in kinds:
            st.download_button(
                name, made, file_name=f"report.{suffix}", mime=mime, icon=":material/download:", on_click="ignore"
            )
        if st.button("Compare these", icon=":material/balance:"):
            go("compare", a=label_of(report.baseline), b=label_of(report.candidate))


def show_report(a: Run, b: Run, threshold: float, common: bool) -> None:
    """Show the report of two runs, or why there is none."""
    try:
        report = stored.difference(a, b, common, threshold)
    except PerpoError as error:
        verdicts.refused(error)
        return
    report = replace(report, extras=Extras(standing=[standing_of(a)]))  # not kept: an approval changes no samples
    verdicts.show(report, COLUMNS)
    for note in extras.notes(report.extras):
        st.caption(escape(note))
    files(report)
    if not report.flips:
        st.caption("No sample lost anything.")
        return
    st.subheader("Samples that lost most")
    more = len(report.flips) > FIRST and st.toggle(f"Show all {len(report.flips)}", key="all", bind="query-params")
    verdicts.show_flips(report, report.flips if more else report.flips[:FIRST])


def followed(runs: Sequence[Run]) -> dict[str, tuple[str, BenchmarkInfo, str]]:
    """Return what can be followed: task or group, benchmark and metric, by what it is called; averages and main ones
    first.
    """
    choices: dict[str, tuple[str, BenchmarkInfo, str]] = {}
    for run in reversed(runs):
        known = infos(run.record.tasks)
        parts = [(group.name, group.benchmark, group.metrics) for group in run.record.groups]
        parts += [(task.task, task.benchmark, task.metrics) for task in run.record.tasks]
        for name, benchmark, metrics in parts:
            info = known.get(benchmark)
            if info is None:
                continue
            for metric in metrics:
                metric_title = metric.name if ":" in metric.name else info.title(metric.name)
                if metric.value is not None:
                    choices.setdefault(f"{name} · {metric_title}", (name, info, metric.name))
    return dict(sorted(choices.items(), key=lambda item: item[1][2] != item[1][1].primary))


def show_trend(runs: Sequence[Run]) -> None:
    """Show a metric over time: picture and table."""
    options = followed(runs)
    names = sorted({run.record.name for run in runs})
    tell_unknown("names", names)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = pick("Metric", "trend", list(options), next(iter(options)), what="the metric")
        wanted = st.multiselect("Runs named", names, key="names", bind="query-params", placeholder="all", width=420)
    if chosen is None:
        return
    task, info, metric = options[chosen]
    try:
        history = trend.history([run for run in runs if not wanted or run.record.name in wanted], task, metric)
    except PerpoError as error:
        st.info(escape(error.message))
        return
    st.altair_chart(trend.picture(history, chosen).properties(height=320), alt=f"{chosen} over time")
    told = trend.text(history, chosen)
    st.caption("  \n".join(escape(note) for note in [f"{chosen}: {info.meaning(metric)}.", *told.notes]))
    st.dataframe(
        pd.DataFrame(told.rows[::-1], columns=told.header), hide_index=True, alt=f"{chosen} over time, the newest first"
    )


runs = stored.measured()
if not runs:
    empty("There are no runs with samples in this folder.", "perpo-demo && perpo-dashboard --results runs")
tell_misread("threshold", number(0.1, 100), "a number from 0.1 to 100")
first, last = default_pair(runs)
left, right, narrow = st.columns((4, 4, 3), vertical_alignment="bottom")
with left:
    a = pick_run("A (baseline)", "a", runs, first)
with right:
    b = pick_run("B (candidate)", "b", runs, last)
threshold = narrow.number_input(
    "Threshold, points of 100", 0.1, 100.0, THRESHOLD, 0.1, key="threshold", bind="query-params", format="%.1f",
    help="Smaller gains and losses are treated as no change. For ratings, 1 point is a hundredth of their scale.",
)  # fmt: skip
common = st.toggle(
    "Compare only what both runs have, if they differ in tasks or samples", key="common", bind="query-params"
)
place = st.container()
st.subheader("A metric over time")
show_trend(runs)
if a is None or b is None:
    place.info("Choose two runs.")
elif a == b:
    place.info("A and B are the same run. Choose another run to compare.")
else:
    with place.skeleton(height=260), place:  # last, because many samples take seconds
        show_report(a, b, threshold, common)
