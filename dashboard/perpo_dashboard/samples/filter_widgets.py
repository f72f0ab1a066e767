"""Widgets that ask which samples are meant, keep that in the address, and make a filter of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

from perpo.benchmarks.base import BenchmarkInfo
from perpo.benchmarks.table import INFO
from perpo.records.run_record import SAMPLE_COLUMNS
from perpo_dashboard.samples import filters
from perpo_dashboard.samples.filters import Condition, Filter
from perpo_dashboard.samples.notes import Note
from perpo_dashboard.shared.outcomes import OUTCOMES
from perpo_dashboard.shared.pick import number, tell_misread, tell_unknown

_SELDOM = ("split", "noted", "unreadable", "column")
_NOTED = ("any", "flagged", "with a note")
_NUMBERS = ("tokens_out", "latency_ms", "image.width", "image.height")
_TEXTS = (
    "response",
    "prediction",
    "target",
    "prompt",
    "finish_reason",
    "error",
    "judge",
    "box_frame",
    "cluster_id",
    "image.path",
)
_COLUMNS = ("none", *_TEXTS, *_NUMBERS, *dict.fromkeys(f"scores.{info.right.measure}" for info in INFO.values()))
assert {name.split(".")[0] for name in (*_NUMBERS, *_TEXTS)} <= set(SAMPLE_COLUMNS)
_KNOWN = {"sort": filters.SORTS, "outcome": ("all", *OUTCOMES), "unreadable": filters.UNREADABLE}
_KNOWN |= {"noted": _NOTED, "column": _COLUMNS, "of": ("A", "B")}


def restart() -> None:
    """Show the first sample again, after another filter."""
    st.session_state["open"] = ""


def clear(span: tuple[float, float]) -> None:
    """Ask for all samples of the task again, in their order; `span` is what the scores can be."""
    state = {"q": "", "said": "", "outcome": "all", "split": "all", "noted": "any", "unreadable": "any"}
    for name, value in (state | dict.fromkeys(_range_keys(span), span) | {"column": "none"}).items():
        st.session_state[name] = value
    restart()


_BOUND: dict[str, Any] = {"bind": "query-params", "on_change": restart}


def which(scopes: Mapping[str, tuple[str, ...]], splits: Mapping[str, str]) -> tuple[str, str, Filter]:
    """Return the first row: the task, the order, and what is searched for.

    Args:
        scopes: The tasks of each choice.
        splits: The split of each task.

    Returns:
        The task's name, the order, and the filter so far.
    """
    tell_unknown("task", scopes, "which these runs do not share")
    for key, known in _KNOWN.items():
        tell_unknown(key, known, "which is none")
    for key in ("low", "high", *dict.fromkeys(key for info in INFO.values() for key in _range_keys(info.right.span))):
        tell_misread(key, number(), "a number")
    row = st.columns(4)
    task = row[0].selectbox("Task", list(scopes), key="task", **_BOUND)
    sort = row[1].selectbox("Sort by", filters.SORTS, key="sort", **_BOUND)
    question = row[2].text_input("Search questions", key="q", type="search", **_BOUND)
    answer = row[3].text_input("Search answers", key="said", type="search", **_BOUND)
    tell_unknown("split", ["all", *(splits[name] for name in scopes[task])], "which this task does not have")
    return task, sort, Filter(scopes[task], question=(question or "").strip(), answer=(answer or "").strip())


def narrowed(
    wanted: Filter, benchmarks: Mapping[str, BenchmarkInfo], splits: Mapping[str, str], notes: Mapping[str, Note]
) -> Filter:
    """Return the second row: the outcome, and what is asked for more rarely.

    Args:
        wanted: What the first row asks for.
        benchmarks: The benchmark of each task, where it is known.
        splits: The split of each task.
        notes: The notes by sample key.
    """
    outcome = st.segmented_control("Outcome", ["all", *OUTCOMES], default="all", required=True, key="outcome", **_BOUND)
    wanted = replace(wanted, outcome=outcome)
    present = _present(wanted, benchmarks)
    active = sum(name in st.query_params for name in (*_SELDOM, *_range_keys(span_of(present))))
    title = f"More filters ({active})" if active else "More filters"
    with st.popover(title, icon=":material/filter_list:", key="more-filters", width="content"):
        left, right = st.columns(2)
        with left:
            held = sorted({splits[task] for task in wanted.tasks})
            split = st.selectbox("Split", ["all", *held], key="split", **_BOUND)
            noted = st.selectbox("Notes", _NOTED, key="noted", **_BOUND)
        with right:
            unreadable = st.selectbox("Unreadable answer of", filters.UNREADABLE, key="unreadable", **_BOUND)
        ranges = _ranges(present)
        condition = _condition()
        clear_button(wanted, benchmarks, "clear")
    tasks = tuple(task for task in wanted.tasks if split in ("all", splits[task]))
    keys = None if noted == "any" else frozenset(k for k, note in notes.items() if note.flagged or noted != "flagged")
    if noted == "with a note":
        keys = frozenset(key for key, note in notes.items() if note.text)
    return replace(wanted, tasks=tasks, unreadable=unreadable, a=ranges[0], b=ranges[1], keys=keys, condition=condition)


def _present(wanted: Filter, benchmarks: Mapping[str, BenchmarkInfo]) -> list[BenchmarkInfo]:
    return [benchmarks[task] for task in wanted.tasks if task in benchmarks]


def span_of(benchmarks: Collection[BenchmarkInfo]) -> tuple[float, float]:
    """Return what the measures of some benchmarks can be at least and at most."""
    spans = [info.right.span for info in benchmarks] or [(0.0, 1.0)]
    return float(min(low for low, _ in spans)), float(max(high for _, high in spans))


def _range_keys(span: tuple[float, float]) -> tuple[str, str]:
    """What the ranges of A and B are called in the address: a range does not outlive its scale."""
    scale = "" if span == (0.0, 1.0) else f"{span[0]:g}-{span[1]:g}"
    return f"ra{scale}", f"rb{scale}"


def _ranges(benchmarks: Collection[BenchmarkInfo]) -> list[tuple[float, float] | None]:
    """Of the measure of A and of B, each over what the benchmarks' measures can be."""
    titles = {info.right.title for info in benchmarks}
    title = titles.pop() if len(titles) == 1 else "score"
    low, high = span = span_of(benchmarks)
    ranges = []
    for name, key in zip("AB", _range_keys(span), strict=True):
        label = f"{title[0].upper()}{title[1:]} of {name}"
        chosen = st.slider(label, low, high, span, 0.05 if high <= 1 else 1.0, key=key, **_BOUND)
        ranges.append(None if chosen == span else chosen)
    return ranges


def _condition() -> Condition | None:
    """One more column, whichever."""
    left, right = st.columns(2)
    with left:
        column = st.selectbox("Any column", _COLUMNS, key="column", **_BOUND)
    with right:
        run = st.selectbox("of", ["A", "B"], key="of", **_BOUND)
    if column == "none":
        return None
    if column in _TEXTS:
        holds = st.text_input("holds", key="holds", **_BOUND)
        return Condition("AB".index(run), column, holds=holds) if holds else None
    with left:
        low = st.number_input("at least", value=None, key="low", **_BOUND)
    with right:
        high = st.number_input("at most", value=None, key="high", **_BOUND)
    return Condition("AB".index(run), column, low, high) if (low, high) != (None, None) else None


def clear_button(wanted: Filter, benchmarks: Mapping[str, BenchmarkInfo], key: str) -> None:
    """Show a button for `clear`."""
    span = span_of(_present(wanted, benchmarks))
    st.button("Clear all filters", on_click=clear, args=(span,), icon=":material/filter_list_off:", key=key)
