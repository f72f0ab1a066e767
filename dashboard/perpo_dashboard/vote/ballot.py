"""A blind vote while it is going on. Nothing here may show a run's name, nor anything that tells which run it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from perpo.boxes import stored_box
from perpo.errors import PerpoError
from perpo.records.store import Run
from perpo.results.colours import PALETTE
from perpo_dashboard.shared import pictures, stored
from perpo_dashboard.shared.links import go
from perpo_dashboard.shared.pictures import Box
from perpo_dashboard.shared.settings import settings
from perpo_dashboard.shared.stored import Stamp, stamp
from perpo_dashboard.shared.text import escape, plain, reason
from perpo_dashboard.vote import votes
from perpo_dashboard.vote.votes import AskedSample, Ballots, Choice, Opened, Study, Vote

_BUTTONS: dict[Choice, tuple[str, str]] = {
    "left": ("A is better", "A"),
    "right": ("B is better", "B"),
    "tie": ("Tie", "T"),
    "both bad": ("Both bad", "N"),
}
_SHOWN = ("question", "image", "response", "prediction", "parse_ok", "box_frame")
_PICTURE, _TEXT = 300, 360
"""Pixels of height for a picture with a box, and for a long answer: both answers and the buttons fit on a screen."""
_LONG = 900
"""Characters of an answer that is scrolled."""


def file() -> Path:
    """Return where votes are kept: beside the records."""
    return settings().results / votes.VOTES_FILE


def ballots() -> Ballots:
    """Return the votes so far.

    Raises:
        PerpoError: The file cannot be read.
    """
    return _ballots(stamp(file()))


def runs_of(study: Study) -> tuple[Run, Run] | None:
    """Return the two runs, if they are here and have the samples that the study was made of."""
    here = {(run.record.run_id, run.record.samples.sha256): run for run in stored.measured() if run.record.samples}
    one, other = (here.get(each) for each in zip(study.runs, study.samples_sha256, strict=True))
    return None if one is None or other is None else (one, other)


def seen_here() -> set[str]:
    """Return ids of the studies whose result was opened in this browser's session."""
    return st.session_state.setdefault("results-seen", set())


def greet(study: Study) -> None:
    """Ask for the voter's name."""
    st.caption(f"Vote {study.id}: {len(study.questions)} questions of {', '.join(map(escape, study.tasks))}.")
    with st.form("voter", width=480):
        name = st.text_input(
            "Your name", max_chars=60, help="Separates voters. Enter the same name to continue your vote."
        )
        if st.form_submit_button("Begin", type="primary") and name.strip():
            go("vote", study=study.id, voter=name.strip())
    st.caption("Send others this page's address: each votes under their own name.")
    _way_back(study)


def ask(ballots: Ballots, study: Study, voter: str) -> None:
    """Ask the next question, or say that it was the last; `q` in the address is a question that is looked at again,
    from 1 on.
    """
    runs = runs_of(study)
    if runs is None:  # without saying which one
        st.error(
            "A run of this vote is no longer in this folder, or its samples have changed since the vote was set up."
        )
        return _way_back(study)
    if study.id in seen_here() and (study.id, voter) not in ballots.seen and kept(Opened(study.id, voter, votes.now())):
        st.rerun()
    order, done = votes.ballot(study, voter), ballots.of(study, voter)
    place = _place(len(order), votes.next_question(order, done))
    _progress(study, voter, len(done))
    if (study.id, voter) in ballots.seen:
        st.warning("You have seen the result of this vote. Your further votes are kept, but they do not count.")
    if place is None:
        _end(study, voter, len(order))
        return
    question, first_left = order[place]
    try:
        _answers(question, runs if first_left else (runs[1], runs[0]))
    except PerpoError:  # its message names the run
        st.error("The samples of a run of this vote are missing or damaged.")
        return _way_back(study)
    given = done.get(question)
    _buttons(study, voter, place, question, study.runs[0 if first_left else 1], given.choice if given else None)


def _place(count: int, following: int | None) -> int | None:
    again = st.query_params.get("q", "")
    return int(again) - 1 if again.isdecimal() and 1 <= int(again) <= count else following


def _progress(study: Study, voter: str, done: int) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(done / len(study.questions), f"{done} of {len(study.questions)} answered", width="stretch")
        st.toggle("All pixels", key="whole", bind="query-params", help="Otherwise large pictures are shown smaller.")
        st.text(f"Voter: {voter}", width="content")
        if st.button(
            "Pause", icon=":material/pause:", help="Every vote is kept. Enter the same name to continue here."
        ):
            go("vote")


def _answers(question: AskedSample, runs: tuple[Run, Run]) -> None:
    said = [_sample(run, question.sample_key) for run in runs]
    image = said[0]["image"]
    picture = pictures.find(image)
    st.markdown(f"**{escape(said[0]['question'] or '')}**")
    boxes = [stored_box(each["prediction"]) if each["parse_ok"] and each["box_frame"] else None for each in said]
    framed = any(each["box_frame"] is not None for each in said)
    if picture is None:
        st.caption("The picture is not in a folder that this dashboard may read (--media).")
    columns = st.columns(2) if framed or picture is None else st.columns([3, 4, 4])
    if picture is not None and not framed:
        with columns[0]:
            _show(picture, image, None, "The picture that is asked about")
    for name, each, box, column in zip("AB", said, boxes, columns[-2:], strict=True):
        with column.container(border=True):
            st.markdown(f"**{name}**")
            if picture is not None and framed:
                drawn = [Box(box, PALETTE[4])] if box else []
                _show(picture, image, drawn, f"The picture with the box of answer {name}")
            text = each["response"] or ""
            plain(text.strip(), height=_TEXT if len(text) > _LONG else "content")
            if framed and box is None:
                st.caption("No box could be read from this answer.")


def _show(picture: Path, image: Mapping[str, Any], boxes: list[Box] | None, what: str) -> None:
    """The picture as wide as its place, or with `boxes` as high as both answers leave room for."""
    whole = bool(st.session_state.get("whole"))
    try:
        width, height = pictures.size(picture)
        drawn = pictures.with_boxes(picture, image, boxes or [], whole=whole)
    except PerpoError:
        st.caption("The picture cannot be read.")
    else:
        st.image(drawn, alt=what, width="stretch" if boxes is None else max(120, round(_PICTURE * width / height)))


def _sample(run: Run, key: str) -> dict[str, Any]:
    keys = stored.scores(run).keys
    place = int(np.searchsorted(keys, key))
    if place == len(keys) or keys[place] != key:
        raise PerpoError(f"{run.path} has no sample {key}", "set up another vote")
    return stored.sample(run, place, _SHOWN)


def _buttons(study: Study, voter: str, place: int, question: AskedSample, left: str, given: Choice | None) -> None:
    """In their own place at the bottom, the same for every question; the keys are those on the buttons."""

    def cast(choice: Choice) -> None:
        if kept(Vote(study.id, voter, question.task, question.sample_key, left, choice, votes.now())):
            st.query_params.pop("q", None)

    with st.bottom, st.container(horizontal=True, horizontal_alignment="center"):
        if st.button("Back", icon=":material/undo:", shortcut="Left", disabled=place == 0, key=f"back-{place}"):
            st.query_params["q"] = str(place)
            st.rerun()
        for choice, (label, key) in _BUTTONS.items():
            st.button(
                label,
                key=f"vote-{place}-{choice}",  # a press that comes late is none on the next question
                shortcut=key,
                on_click=cast,
                args=(choice,),
                type="primary" if choice == given else "secondary",
            )
        if given is not None and st.button("Go on", icon=":material/redo:", shortcut="Right", key=f"on-{place}"):
            if place + 1 < len(study.questions):
                st.query_params["q"] = str(place + 2)
            else:
                st.query_params.pop("q", None)
            st.rerun()


def _end(study: Study, voter: str, count: int) -> None:
    st.success(f"All {count} questions are answered. Thank you!", icon=":material/check_circle:")
    with st.container(horizontal=True):
        if st.button("Open the result", type="primary", icon=":material/bar_chart:"):
            go("vote", study=study.id, voter=voter, show="result")
        if st.button("Look at the answers again", shortcut="Left", icon=":material/undo:"):
            st.query_params["q"] = str(count)
            st.rerun()


def _way_back(study: Study) -> None:
    with st.container(horizontal=True):
        if st.button("All votes", icon=":material/arrow_back:", type="tertiary"):
            go("vote")
        if st.button("Result", icon=":material/bar_chart:", type="tertiary"):
            go("vote", study=study.id, show="result")


def kept(row: Study | Vote | Opened) -> bool:
    """Add a line to the file; where that fails, say so and return False."""
    try:
        votes.add(file(), row)
    except PerpoError as error:
        st.error(reason(error))
        return False
    return True


@st.cache_resource(max_entries=4, show_spinner=False)
def _ballots(file: Stamp) -> Ballots:
    return votes.read(Path(file[0]))
