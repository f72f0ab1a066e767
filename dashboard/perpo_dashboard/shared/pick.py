"""Boxes to pick runs and values from, kept in the address."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import streamlit as st

from perpo.records.store import Run
from perpo_dashboard.shared.links import label_of
from perpo_dashboard.shared.text import escape


def pick_run(title: str, key: str, runs: Sequence[Run], default: Run | None) -> Run | None:
    """Return a list to choose a run from, always kept in the address: another default elsewhere does not change a link.

    Args:
        title: What is above the list.
        key: Its name in the address.
        runs: What can be chosen.
        default: What is chosen where the address does not say.

    Returns:
        The run; None where the address names one that is not here, which is said.
    """
    known = {label_of(run): run for run in runs}
    chosen = pick(title, key, list(known), None if default is None else label_of(default), what="the run")
    return None if chosen is None else known[chosen]


def pick(
    title: str,
    key: str,
    options: Sequence[str],
    default: str | None,
    *,
    what: str,
    why: str = "which is not in this folder",
    shown: Callable[[str], str] = str,
    segments: bool = False,
) -> str | None:
    """Return a list to choose from that is always kept in the address, as for `pick_run`.

    Args:
        title: What is above the list.
        key: Its name in the address.
        options: What can be chosen.
        default: What is chosen where the address does not say.
        what: What an option is, such as "the run".
        why: What is wrong with an option that there is not.
        shown: What people see of an option.
        segments: Whether the options stand side by side.

    Returns:
        The choice; None where the address names one that is not here, which is said.
    """
    widget, seen, asked = f"pick-{key}", f"seen-{key}", st.query_params.get(key)
    if asked is not None and (asked != st.session_state.get(seen) or widget not in st.session_state):
        st.session_state[widget] = asked if asked in options else None  # a link, or the browser's back button
        st.session_state[seen] = asked
    elif widget not in st.session_state:
        st.session_state[widget] = default
    if segments:
        chosen = st.segmented_control(title, options, key=widget, format_func=shown, required=True)
    else:
        chosen = st.selectbox(title, options, index=None, key=widget, format_func=shown)
    if chosen is None:
        if asked is not None:
            st.warning(f"This address names {what} {escape(asked)}, {why}.")
        return None
    st.session_state[seen] = chosen
    if chosen != asked:
        st.query_params[key] = chosen
    return chosen


def tell_unknown(key: str, options: Collection[str], why: str = "which is not in this folder") -> None:
    """Say which values of a bound widget the address names that cannot be chosen: Streamlit drops them silently."""
    lost = [value for value in st.query_params.get_all(key) if value not in options]
    if lost:
        st.warning(f"This address names {', '.join(map(escape, lost))} ({escape(key)}), {why}.")


def tell_misread(key: str, read: Callable[[str], object], expected: str) -> None:
    """Say which values of a bound widget the address has that are none, as `tell_unknown` does.

    Args:
        key: The widget's.
        read: Reads a value; raises ValueError where it is none.
        expected: What a value is, such as "a day".
    """
    for value in st.query_params.get_all(key):
        try:
            read(value)
        except ValueError:
            st.warning(f"This address has {escape(value)} ({escape(key)}), which is not {expected}.")


def number(low: float = -math.inf, high: float = math.inf) -> Callable[[str], float]:
    """Return a reader for `tell_misread`: a number within bounds."""

    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def pick_runs(title: str, key: str, runs: Sequence[Run], most: int | None = None) -> list[Run]:
    """Return a list to choose several runs from, kept in the address as `pick_run` keeps one; none at first.

    Args:
        title: What is above the list.
        key: Its name in the address.
        runs: What can be chosen.
        most: How many at most.

    Returns:
        The runs in the order of the choice; those of the address that are not here are named and left out.
    """
    known = {label_of(run): run for run in runs}
    return [known[name] for name in pick_many(title, key, list(known), most=most, what="runs")]


def pick_many(
    title: str,
    key: str,
    options: Sequence[str],
    default: Sequence[str] = (),
    *,
    most: int | None = None,
    what: str,
    shown: Callable[[str], str] = str,
) -> list[str]:
    """Return a list to choose several things from that is kept in the address, as for `pick_runs`.

    Args:
        title: What is above the list.
        key: Its name in the address.
        options: What can be chosen.
        default: What is chosen where the address names nothing at first.
        most: How many at most.
        what: What options are, such as "runs".
        shown: What people see of an option.

    Returns:
        The choice, in its order.
    """
    widget, seen, asked = f"pick-{key}", f"seen-{key}", st.query_params.get_all(key)
    here = [name for name in asked if name in options][:most]
    if asked != st.session_state.get(seen) or widget not in st.session_state:
        st.session_state[widget] = here if asked else list(default)
        st.session_state[seen] = asked
    chosen = st.multiselect(title, options, key=widget, max_selections=most, format_func=shown)
    if chosen != here:
        st.query_params[key] = st.session_state[seen] = chosen
    elif absent := [name for name in asked if name not in options]:
        st.warning(f"This address names {what} that are not in this folder: {escape(', '.join(absent))}.")
    return chosen
