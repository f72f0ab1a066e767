"""The upper half of the page of trainings: which ones, what they were, and their curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from perpo.errors import PerpoError
from perpo.results.colours import RUNS
from perpo_dashboard.shared.pick import pick_many
from perpo_dashboard.shared.settings import settings
from perpo_dashboard.shared.text import escape, reason
from perpo_dashboard.training import charts, stored, trainings
from perpo_dashboard.training.trainings import METRICS, Training

Trainings = dict[str, Training]
"""Those that are looked at, by the names that people see, in the order of the choice."""

_DOT = "⬤"


def known() -> dict[str, Path]:
    """Return the folders of all trainings, by their paths below the results folder."""
    return trainings.names_of(stored.training_folders(), settings().results)


def choose(folders: dict[str, Path]) -> Trainings:
    """Pick some; those that cannot be read are named with their reasons."""
    short = trainings.short_names(list(folders))
    names = pick_many(
        "Trainings",
        "t",
        list(folders),
        list(folders)[: len(RUNS)],
        most=len(RUNS),
        what="trainings",
        shown=short.__getitem__,
    )
    chosen: Trainings = {}
    for name in names:
        try:
            chosen[short[name]] = stored.training(folders[name])
        except PerpoError as error:
            st.warning(reason(error))
    if not names:
        st.info("Choose a training.", icon=":material/info:")
    return chosen


def summary(chosen: Trainings) -> None:
    """Show a row for each, which is also the legend of all charts below; and the arguments in which they differ."""
    table = pd.DataFrame([_row(name, each) for name, each in chosen.items()]).dropna(axis="columns", how="all")
    colours = [f"color: {RUNS[place]}" for place in range(len(table))]
    st.dataframe(
        table.style.apply(lambda _: colours, subset=[_DOT]),
        hide_index=True,
        placeholder="",
        column_config={
            _DOT: st.column_config.TextColumn(width=40, help="The colour of this training in the charts below."),
            "began": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm", help="UTC"),
            "minutes": st.column_config.NumberColumn(format="%.1f", help="Time of the last process of this training."),
            "lists": st.column_config.NumberColumn(
                help="Lists of candidates, or answers, that were used for training."
            ),
            "loss": st.column_config.NumberColumn(format="%.3f", help="The last value in the log."),
            "pair accuracy": st.column_config.NumberColumn(format="%.1f%%", help=METRICS["pair_accuracy"].help),
            "KL": st.column_config.NumberColumn(format="%.2f", help="nats per answer; the last value in the log"),
            "best validation": st.column_config.NumberColumn(
                format="%.3f", help="The highest mean reward on held-out questions; that model is in best/."
            ),
        },
    )
    for name, each in chosen.items():
        if each.record["status"] == "failed":
            st.error(f"{escape(name)} failed: {escape(each.record['error'] or 'no reason is recorded')}")
    _differences(chosen)


def _row(name: str, each: Training) -> dict[str, Any]:
    record, counts = each.record, each.record["data"]["counts"] or {}
    validation, accuracy = record["validation"] or {}, each.last("pair_accuracy")
    status = "running, or was killed" if record["status"] == "running" else record["status"]
    return {
        _DOT: _DOT,
        "training": name,
        "method": each.argument("method"),
        "began": pd.to_datetime(record["created_utc"], utc=True, errors="coerce"),
        "status": status,
        "lists": counts.get("lists", counts.get("records")),
        "candidates": counts.get("candidates"),
        "steps": record["steps"],
        "minutes": None if record["duration_s"] is None else record["duration_s"] / 60,
        "loss": each.last("loss"),
        "pair accuracy": None if accuracy is None else 100 * accuracy,
        "KL": each.last("kl"),
        "best validation": (validation.get("best") or {}).get("reward"),
    }


def _differences(chosen: Trainings) -> None:
    if len(chosen) < 2:
        return
    differing = trainings.differing({name: each.record for name, each in chosen.items()})
    with st.expander(f"Arguments that differ ({len(differing)})", icon=":material/difference:"):
        rows = [
            {"argument": argument, **{name: None if value is None else str(value) for name, value in row.items()}}
            for argument, row in differing.items()
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True, placeholder="")


def curves(chosen: Trainings) -> None:
    """Show every metric that one of them has, over steps or epochs."""
    st.subheader("Curves", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        over = st.segmented_control(
            "Over", ["step", "epoch"], default="step", required=True, key="x", bind="query-params"
        )
        weight = st.slider(
            "Smoothing", 0.0, 0.95, 0.0, 0.05, key="smooth", bind="query-params", width=300,
            help="Weight of an exponential moving average. The exact numbers stay visible as faint lines.",
        )  # fmt: skip
    curves_by_metric = {
        metric: {name: curve for name, each in chosen.items() if len((curve := each.curve(metric, over or "step"))[0])}
        for metric in METRICS
    }
    if not any(curves_by_metric.values()):
        st.info("Nothing is logged yet: the first entry comes after --logging_steps.", icon=":material/info:")
        return
    colour = charts.colours(list(chosen), RUNS)
    with st.grid(3, min_column_width=260):
        for name in METRICS:
            if curves_by_metric[name]:
                # a schedule has no noise
                _curve(curves_by_metric[name], name, over or "step", 0.0 if name == "learning_rate" else weight, colour)


def _curve(curves_by_training: dict[str, charts.Curve], name: str, over: str, weight: float, colour: Any) -> None:
    metric = METRICS[name]
    with st.container(gap="xxsmall"):
        st.markdown(f"**{metric.title}**", help=metric.help)
        chart = charts.curves(curves_by_training, metric, over, weight, colour)
        st.altair_chart(chart, alt=f"{metric.title} of {', '.join(curves_by_training)}")
