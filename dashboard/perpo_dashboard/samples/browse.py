"""The samples page: what is asked for, the list of what was found, and one of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from perpo.benchmarks.base import BenchmarkInfo
from perpo.benchmarks.declared import infos
from perpo.errors import PerpoError
from perpo.records.store import SAMPLES_FILE, Run
from perpo_dashboard.samples import cards, filter_widgets, filters
from perpo_dashboard.samples.filters import Filter
from perpo_dashboard.samples.notes import NOTES_FILE, Note, read_notes, write_note
from perpo_dashboard.shared import outcomes, stored
from perpo_dashboard.shared.outcomes import OUTCOMES, Pair
from perpo_dashboard.shared.settings import settings
from perpo_dashboard.shared.text import escape, reason
from perpo_dashboard.shared.two_runs import shared

_PAGE = 25
_PREFIX = 16
_STEPS = 470  # pixels that the buttons and the key take, which stay together on narrow windows


def show(a: Run, b: Run, more: list[Run]) -> None:
    """Show the page below the choice of runs."""
    pair = shared(a, b)
    if pair is None:
        return
    scopes = outcomes.scopes(a.record, pair.names)
    notes, benchmarks = _known_notes(), _infos(a)
    splits = {result.task: result.split for result in a.record.tasks}
    task, sort, wanted = filter_widgets.which(scopes, splits)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = filter_widgets.narrowed(wanted, benchmarks, splits, notes)
        order = _order((_stamp(a), _stamp(b)), repr(wanted), sort, wanted, a, b)
        st.space("stretch")
        with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="right", width=_STEPS):
            place = _walk(pair, order)
    _told(pair, pair.among(scopes[task]), order, place)
    if not len(order):
        filter_widgets.clear_button(wanted, benchmarks, "clear-too")
    if place is not None:
        _one(pair, place, a, b, more, notes)
    _list(pair, order, place, a, b)


def _infos(run: Run) -> dict[str, BenchmarkInfo]:
    """What is known of the benchmarks of a run's tasks, by task."""
    known = infos(run.record.tasks)
    return {task.task: known[task.benchmark] for task in run.record.tasks if task.benchmark in known}


def _stamp(run: Run) -> stored.Stamp:
    return stored.stamp(run.path / SAMPLES_FILE)


@st.cache_resource(max_entries=32, show_spinner=False)
def _order(runs: tuple[stored.Stamp, stored.Stamp], asked: str, sort: str, _wanted: Filter, _a: Run, _b: Run) -> Any:
    pair = stored.pair(_a, _b)
    column = partial(stored.paired_column, _a, _b)
    return filters.ordered(pair, filters.chosen(pair, _wanted, column), sort, column)


def _walk(pair: Pair, order: NDArray[np.intp]) -> int | None:
    """The buttons, and the place of the sample that is open; its key is always in the address."""
    asked = st.query_params.get("key", "")
    if asked != st.session_state.get("seen-key") or "open" not in st.session_state:
        st.session_state["open"] = asked  # a link, or the browser's back button
    wanted = str(st.session_state["open"]).strip().lower()
    matches = pair.find(wanted) if wanted else order[:1]
    place = int(matches[0]) if len(matches) else None
    position = _position(order, place)
    if place is not None:
        st.session_state["open"] = str(pair.keys[place])[: max(_PREFIX, len(wanted))]
    _step("Previous", "Left", pair, order, position - 1, ":material/chevron_left:")
    _step("Next", "Right", pair, order, position + 1, ":material/chevron_right:")
    shown = st.text_input(
        "Sample key", key="open", width=200, help="Enter the first letters of a sample's key to open that sample."
    )
    st.session_state["seen-key"] = shown
    if shown != asked:
        st.query_params["key"] = shown
    return place


def _position(order: NDArray[np.intp], place: int | None) -> int:
    """Where a sample stands in the list; -1 where it is not in it."""
    at: NDArray[np.intp] = np.flatnonzero(order == (-1 if place is None else place))
    return int(at[0]) if len(at) else -1


def _told(pair: Pair, mask: NDArray[np.bool_], order: NDArray[np.intp], place: int | None) -> None:
    """Where we are, in words; `mask` holds the samples of the chosen task."""
    counts = pair.counts(mask)
    outcome = " · ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    position, key = _position(order, place), str(st.session_state["open"])
    if position >= 0:
        st.caption(f"**{position + 1:,} of {len(order):,}** · of all {sum(counts.values()):,} in this task: {outcome}")
    elif place is not None:
        st.info("This sample does not match the filters.")
    elif key:
        st.warning(f"No sample of these runs has a key that begins with {escape(key)}.")
    if not len(order):
        st.info("No sample matches these filters.")
    if key and len(matches := pair.find(key)) > 1:
        st.warning(f"{len(matches):,} samples have keys that begin with these letters; this is the first.")


def _step(label: str, shortcut: str, pair: Pair, order: NDArray[np.intp], to: int, icon: str) -> None:
    possible = 0 <= to < len(order)
    key = str(pair.keys[order[to]])[:_PREFIX] if possible else ""
    st.button(label, icon=icon, shortcut=shortcut, disabled=not possible, on_click=_open, args=(key,), key=label)


def _open(key: str) -> None:
    st.session_state["open"] = key


def _one(pair: Pair, place: int, a: Run, b: Run, more: list[Run], notes: dict[str, Note]) -> None:
    task = pair.names[pair.tasks[place]]
    answers = [
        cards.answer("A", a, int(pair.places[0, place]), int(pair.right[0, place])),
        *([cards.answer("B", b, int(pair.places[1, place]), int(pair.right[1, place]))] if b != a else []),
    ]
    for name, run in zip(cards.NAMES[2:], more, strict=False):
        try:
            other = stored.pair(a, run)
            matches = other.find(str(pair.keys[place]))
            if len(matches):
                at = int(matches[0])
                answers.append(cards.answer(name, run, int(other.places[1, at]), int(other.right[1, at])))
            else:
                st.caption(f"{name}, {escape(run.record.name)}, has no such sample.")
        except PerpoError as error:
            st.warning(f"{name}: {reason(error)}")
    cards.show_sample(answers, _infos(a).get(task))
    key = str(pair.keys[place])
    _remember(key, task, [each.run.record.run_id for each in answers], notes.get(key, Note(False, "")))
    cards.show_stored(answers)


def _known_notes() -> dict[str, Note]:
    folder = settings().results
    try:
        notes, damaged = _notes(stored.stamp(folder / NOTES_FILE), folder)
    except PerpoError as error:
        st.error(reason(error))
        return {}
    if damaged:
        st.warning(f"{damaged} lines of {NOTES_FILE} are damaged and hold no note.")
    return notes


@st.cache_resource(max_entries=2, show_spinner=False)
def _notes(file: stored.Stamp, folder: Path) -> tuple[dict[str, Note], int]:
    return read_notes(folder)


def _remember(key: str, task: str, runs: list[str], note: Note) -> None:
    """What people want to remember of the open sample."""
    short = key[:_PREFIX]

    def save(flagged: bool) -> None:
        text = str(st.session_state.get(f"note-{short}", note.text))
        try:
            write_note(settings().results, key, Note(flagged, text), task=task, runs=runs)
        except PerpoError as error:
            st.session_state["note-failed"] = error.message

    with st.container(horizontal=True, vertical_alignment="bottom"):
        icon = ":material/flag:" if note.flagged else ":material/outlined_flag:"
        st.button(
            "Flagged" if note.flagged else "Flag", icon=icon, shortcut="F", key=f"flag-{short}",
            type="primary" if note.flagged else "secondary", on_click=save, args=(not note.flagged,),
        )  # fmt: skip
        st.text_input(
            "Note", note.text, key=f"note-{short}", on_change=save, args=(note.flagged,),
            placeholder=f"kept in {NOTES_FILE} beside the runs",
        )  # fmt: skip
    if failed := st.session_state.pop("note-failed", None):
        st.error(escape(failed))


def _list(pair: Pair, order: NDArray[np.intp], place: int | None, a: Run, b: Run) -> None:
    """The part of the list that holds the open sample."""
    start = max(0, _position(order, place)) // _PAGE * _PAGE
    part = order[start : start + _PAGE]
    if not len(part):
        return
    told = np.array([*OUTCOMES, "not scored"])
    right = pair.right[:, part]
    outcome = np.where((right < 0).any(0), 4, 2 * (1 - right[0]) + (1 - right[1]))
    ours = stored.rows(a, pair.places[0, part], cards.COLUMNS)
    theirs = stored.rows(b, pair.places[1, part], cards.COLUMNS)
    prompts = {result.task: (result.prompt or "").partition("{")[0] for result in a.record.tasks}
    names = [pair.names[number] for number in pair.tasks[part]]
    asked = zip(ours["question"].to_pylist(), names, strict=True)
    texts = {
        "question": [(question or "").removeprefix(prompts.get(name, "")) for question, name in asked],
        "answer of A": ours["response"].to_pylist(),
        "answer of B": theirs["response"].to_pylist(),
    }
    table = pd.DataFrame(
        {
            "open": [f"{'▸ ' if at == place else ''}{start + n + 1:,}" for n, at in enumerate(part)],
            "task": names,
            "outcome": told[outcome],
            "A": pair.measure[0, part],
            "B": pair.measure[1, part],
        }
        | {name: [" ".join((text or "")[:300].split()) for text in column] for name, column in texts.items()}
    )
    keys = [str(key)[:_PREFIX] for key in pair.keys[part]]
    number = st.column_config.NumberColumn(format="%.3f", width="small")
    st.dataframe(
        table, hide_index=True, height="content",
        column_config={
            "open": st.column_config.ButtonColumn(
                "", key="row", on_click=_open_row, args=(keys,), width="small", pinned=True
            ),
            "A": number, "B": number,
        },
        alt="Samples that are asked for, a page of 25",
    )  # fmt: skip


def _open_row(keys: list[str]) -> None:
    _open(keys[st.session_state["row"].row])
