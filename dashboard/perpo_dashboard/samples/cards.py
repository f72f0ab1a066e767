"""One sample: its picture with the boxes, the question and the truth, and a card for each run's answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from perpo.benchmarks.base import BenchmarkInfo
from perpo.boxes import stored_box
from perpo.errors import PerpoError
from perpo.records.run_record import SAMPLE_COLUMNS
from perpo.records.store import Run
from perpo.results.colours import RUNS, TRUTH
from perpo.results.regression.text import short
from perpo.texts.line_errors import MOST_LINES, line_errors
from perpo.texts.repetition import ends_in_loop
from perpo_dashboard.samples import line_table, word_diff
from perpo_dashboard.shared import pictures, stored
from perpo_dashboard.shared.pictures import Box
from perpo_dashboard.shared.text import escape, plain

NAMES = "ABCDEF"
MARKS = ("blue", "orange", "violet", "yellow", "gray")
"""Streamlit's names for the colours of the runs, in their order; `COLOURS` are what is drawn."""
COLOURS = (*RUNS[:4], RUNS[5])
COLUMNS = tuple(name for name in SAMPLE_COLUMNS if name != "prompt")
_LONG = 400  # characters: what is longer gets a field of its own height
_HEIGHT = 320
_OWN_OF_VOTE = ("text", "swapped", "vote", "id")


@dataclass(frozen=True)
class ShownAnswer:
    """An answer of one run to the sample that is shown; columns as in `perpo.records.run_record.SAMPLE_COLUMNS`.

    Attributes:
        name: A, B and so on.
        run: The run.
        place: Where the sample stands in its columns.
        data: Its columns.
        scores: The scores that the sample has.
        right: 1 right, 0 wrong, -1 cannot be told.
    """

    name: str
    run: Run
    place: int
    data: dict[str, Any]
    scores: dict[str, float]
    right: int

    @property
    def mark(self) -> str:
        """Markdown of its name in its colour."""
        return f":{MARKS[NAMES.index(self.name)]}-badge[{self.name}]"

    @property
    def colour(self) -> str:
        """Return the colour that it is drawn in."""
        return COLOURS[NAMES.index(self.name)]


def answer(name: str, run: Run, place: int, right: int) -> ShownAnswer:
    """Read what a run said."""
    data = stored.sample(run, place, COLUMNS)
    scores = {key: value for key, value in (data["scores"] or {}).items() if value is not None}
    return ShownAnswer(name, run, place, data, scores, right)


def show_sample(answers: Sequence[ShownAnswer], info: BenchmarkInfo | None) -> None:
    """Show everything about one sample.

    Args:
        answers: Of each run, at least one; what they share is read from the first.
        info: Its benchmark, which decides how it is shown; None where nothing is known of it.
    """
    first = answers[0]
    about = first.data
    truth = _value(about["target"])
    kind = None if info is None else info.answer
    left, right = st.columns((4, 7) if kind == "page" else (5, 6), gap="medium")
    with left:
        _picture(about, answers, boxes=kind == "box")
    with right:
        st.caption("Question")
        plain(about["question"], height=_height(about["question"]))
        _truth(truth, folded=kind == "page")
        if kind == "page":
            st.segmented_control(
                "Differences by", ["words", "lines"], default="words", required=True, key="differences",
                bind="query-params",
            )  # fmt: skip
        if kind != "open":
            _cards(answers, info, truth)
    if kind == "open":  # too wide for a place beside the picture
        _cards(answers, info, truth)


def _truth(truth: Any, *, folded: bool) -> None:
    """The truth; of a judged question the reference answer, and what the judge is told of the picture."""
    rest: dict[str, Any] = {}
    title = "truth"
    if isinstance(truth, dict) and "reference" in truth:
        rest = {name: value for name, value in truth.items() if name != "reference"}
        truth, title = truth["reference"], "reference answer"
    told = _readable(truth)
    with st.expander("Truth", key="truth") if folded else st.container():
        if not folded:
            category = f" :gray-badge[{escape(str(rest.pop('category')))}]" if "category" in rest else ""
            st.markdown(f":green-badge[{title}]{category}")
        plain(told, height=_height(told), missing="no truth is stored")
    if rest:
        with st.expander("Description of the picture for the judge", key="told"):
            for value in rest.values():
                plain(_readable(value), height=_height(_readable(value)))


def show_stored(answers: Sequence[ShownAnswer]) -> None:
    """Show every column of the sample, for each run."""
    with st.expander("Everything that is stored of this sample", key="stored", on_change="rerun") as opened:
        if not opened.open:
            return
        rows = {each.name: stored.sample(each.run, each.place, tuple(SAMPLE_COLUMNS)) for each in answers}
        scores = {name: row.pop("scores") or {} for name, row in rows.items()}
        names = [name for name in SAMPLE_COLUMNS if name != "scores"]
        table = {name: [_readable(rows[run][name]) for run in rows] for name in names}
        held = dict.fromkeys(name for values in scores.values() for name, value in values.items() if value is not None)
        table |= {name: [_number(scores[run].get(name)) for run in rows] for name in held}
        frame = pd.DataFrame.from_dict(table, orient="index", columns=list(rows), dtype="string")
        st.dataframe(frame, height="content", row_height=36, alt="Columns of the sample for each run")
        plain(rows[answers[0].name]["prompt"], missing="no prompt is stored")


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _cards(answers: Sequence[ShownAnswer], info: BenchmarkInfo | None, truth: Any) -> None:
    grid = st.grid(min(len(answers), 2), min_column_width=250)
    for each in answers:
        with grid.cell(), st.container(border=True, height="stretch"):
            _card(each, info, truth)


def _card(each: ShownAnswer, info: BenchmarkInfo | None, truth: Any) -> None:
    verdict = {1: ":green[:material/check:] right", 0: ":red[:material/close:] wrong", -1: "not scored"}[each.right]
    st.markdown(f"{each.mark} **{escape(short(each.run.record.name))}** · {verdict}")
    if line := _score_line(each, info):
        st.caption(line)
    if each.data["error"]:
        st.error("This sample failed.", icon=":material/error:")
        plain(each.data["error"], height=_height(each.data["error"]))
    if each.data["parse_ok"] is False:
        st.markdown(":red-badge[no answer could be read]")
    if each.data["finish_reason"] == "length":
        st.markdown(":orange-badge[cut at the token limit]")
    if each.data["response"] is not None and ends_in_loop(each.data["response"]):
        st.markdown(":orange-badge[ends in a loop]")
    said = each.data["response"]
    if info is not None and info.answer == "page" and isinstance(truth, str) and said is not None:
        response = str(_value(each.data["prediction"]) or said)
        if st.session_state.get("differences") == "lines":
            _line_differences(each, truth, response)
        else:
            _word_differences(each, truth, response)
        with st.expander("Raw response", key=f"raw-{each.name}"):
            plain(said, height=_height(said))
    else:
        plain(said, height=_height(said), missing="no response is stored")
    if each.data["judge"]:
        _judge(each)


def _score_line(each: ShownAnswer, info: BenchmarkInfo | None) -> str:
    """The scores that are told of an answer, in Markdown."""
    if info is None:
        return ""
    if info.answer == "yes_no":
        return f"read as {escape(str(_value(each.data['prediction'])))}" if each.data["prediction"] else ""
    titles = {name: info.title(name) for name in info.told_scores} | {info.right.measure: info.right.title}
    texts = [f"{titles[name]} {each.scores[name]:.3g}" for name in info.told_scores if name in each.scores]
    return escape(" · ".join(texts))


def _line_differences(each: ShownAnswer, truth: str, response: str) -> None:
    errors = line_errors(truth, response)
    cut = f" Only the first {MOST_LINES} lines are compared." if errors.cut else ""
    st.caption(f"{line_table.told(errors)}.{cut}")
    with st.container(height=_height(response)):
        st.html(line_table.as_html(errors, TRUTH, each.colour))


def _word_differences(each: ShownAnswer, truth: str, response: str) -> None:
    diff = word_diff.differences(truth, response)
    if not diff.count("truth") and not diff.count("answer"):
        st.caption(
            "The words are the same as those of the truth."
            if not diff.cut
            else "The first 10,000 words are the same as those of the truth."
        )
    else:
        cut = " Only the first 10,000 words are compared." if diff.cut else ""
        st.caption(
            f"{diff.count('truth')} words of the truth are missing (struck out), "
            f"{diff.count('answer')} are not in the truth (underlined).{cut}"
        )
    with st.container(height=_height(response)):
        st.html(word_diff.as_html(diff, TRUTH, each.colour))


def _judge(each: ShownAnswer) -> None:
    """The judge's words, vote by vote; a column of another shape is shown as it is."""
    said = _value(each.data["judge"])
    votes = said if isinstance(said, list) else [said]
    for number, vote in enumerate(votes, start=1):
        count = f", vote {number} of {len(votes)}" if len(votes) > 1 else ""
        if not isinstance(vote, dict):
            vote = {"text": _readable(vote)}
        swapped = ", answers swapped" if vote.get("swapped") else ""
        st.caption(f"The judge{count}{swapped}")
        text = _readable(vote.get("text"))
        plain(text, height=_height(text), missing="wrote nothing")
        rest = _worth_saying(vote)
        if rest:
            told = {name.replace("_", " "): _short(value) for name, value in rest.items()}
            st.caption(" · ".join(f"{escape(name)}: {escape(value)}" for name, value in told.items()))


def _worth_saying(vote: dict[str, Any]) -> dict[str, Any]:
    """What a vote holds beside its text, without what is as usual: one attempt, or a reading as the official one."""
    usual = {"attempts": 1, "first_text": vote.get("text"), "official": vote.get("rating")}
    rest = {name: value for name, value in vote.items() if name not in _OWN_OF_VOTE and value not in (None, [], "")}
    return {name: value for name, value in rest.items() if name not in usual or value != usual[name]}


def _short(value: Any) -> str:
    """A value on one line: a list by its members, a number without a tail of zeros."""
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _picture(about: dict[str, Any], answers: Sequence[ShownAnswer], *, boxes: bool) -> None:
    image = about["image"] or {}
    file = pictures.find(image)
    drawable = _boxes(about, answers) if boxes else {}
    shown: list[str] = []
    with st.container(horizontal=True, vertical_alignment="center"):
        if drawable:
            shown = st.pills(
                "Boxes", ["truth", *NAMES[: len(answers)]], selection_mode="multi", key="boxes",
                default=["truth", *NAMES[: len(answers)]], bind="query-params", label_visibility="collapsed",
            )  # fmt: skip
        zooms = ["fit", *(["boxes"] if drawable else []), "full"]
        zoom = st.segmented_control(
            "Zoom", zooms, default="fit", required=True, key="zoom", bind="query-params",
            label_visibility="collapsed", help="fit: made smaller; boxes: the part around the boxes; full: all pixels",
        )  # fmt: skip
    if file is None:
        st.info(
            "The picture was not found in the results, in a --media folder or in the store of perpo.",
            icon=":material/hide_image:",
        )
        return
    drawn = [box for name, box in drawable.items() if name in shown]
    try:
        width, height = pictures.size(file)
        window = pictures.around(list(drawable.values()), (width, height)) if zoom == "boxes" and drawable else None
        data = pictures.with_boxes(file, image, drawn, window=window, whole=zoom == "full")
    except PerpoError as error:
        st.warning(escape(error.message), icon=":material/broken_image:")
        return
    size = f"{width} x {height} pixels"
    ious = [f"{each.name}: IoU {each.scores['iou']:.2f}" for each in answers if "iou" in each.scores]
    st.image(
        data, width="stretch", caption=escape(" · ".join([*ious, size])), alt="The sample's picture with its boxes"
    )


def _boxes(about: dict[str, Any], answers: Sequence[ShownAnswer]) -> dict[str, Box]:
    texts = [("truth", about["target"], TRUTH), *((e.name, e.data["prediction"], e.colour) for e in answers)]
    boxes = ((name, stored_box(text), colour) for name, text, colour in texts)
    return {name: Box(box, colour, name not in ("truth", "A"), name) for name, box, colour in boxes if box is not None}


def _value(text: str | None) -> Any:
    """What a JSON column holds; text that is no JSON is itself."""
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def _readable(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and (box := stored_box(json.dumps(value))) is not None:
        return "[" + ", ".join(f"{end:.1f}" for end in box) + "] pixels"
    return json.dumps(value, ensure_ascii=False, indent=1)


def _height(text: Any) -> Any:
    return _HEIGHT if isinstance(text, str) and (len(text) > _LONG or text.count("\n") > 12) else "content"
