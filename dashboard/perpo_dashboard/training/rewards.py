"""The lower half of the page of trainings: the rewards that they learnt from, and one list of candidates."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from perpo.boxes import BoxFormat, parse_box
from perpo.data.truths import row_format, says_format
from perpo.errors import PerpoError
from perpo.results.colours import BASELINE, CANDIDATE, RUNS, TRUTH
from perpo_dashboard.shared import pictures
from perpo_dashboard.shared.pick import pick, tell_misread
from perpo_dashboard.shared.pictures import Box
from perpo_dashboard.shared.settings import settings
from perpo_dashboard.shared.text import escape, plain, reason
from perpo_dashboard.training import candidates, charts, stored, trainings
from perpo_dashboard.training.candidates import BestOf, Candidate, Preferences
from perpo_dashboard.training.summary import Trainings
from perpo_dashboard.training.trainings import Training

_SHOWN = ("truth", "best", "worst", "others")
_GREY = "#999999"
_MANY = 24
"""Candidates that a table does not show without scrolling."""


def data(chosen: Trainings) -> None:
    """Show how the rewards of the preference data spread, and what choosing the best of n of them would give."""
    preferences: dict[str, Preferences] = {}
    sharing: dict[str, list[str]] = {}
    st.subheader("Preference data", anchor=False)
    for name, each in chosen.items():
        try:
            mine = _preferences(each)
        except PerpoError as error:
            st.caption(escape(f"{name}: {error.message}. {error.hint}"))
            continue
        if mine is not None:  # several may have learnt from the same data, which are shown once
            names = sharing.setdefault(each.record["data"]["sha256"], [])
            names.append(name)
            preferences.setdefault(names[0], mine)
    if not preferences:
        st.info("None of these used rewarded candidates, or their files are not here.", icon=":material/info:")
        return
    colour = charts.colours(list(chosen), RUNS)
    users = {names[0]: ", ".join(names) for names in sharing.values()}
    for reward in dict.fromkeys(each.reward_name for each in preferences.values()):
        alike = {name: each for name, each in preferences.items() if each.reward_name == reward}
        best = {name: stored.best_of(*_file(chosen[name])) for name in alike}
        _charts(alike, best, reward, colour)
        _numbers(alike, best, users)


def _charts(preferences: dict[str, Preferences], best: dict[str, BestOf], reward: str, colour: Any) -> None:
    spread = {name: candidates.histogram(each.rewards) for name, each in preferences.items()}
    columns = st.columns(2)
    with columns[0]:
        st.markdown("**Rewards of the candidates**")
        st.altair_chart(
            charts.rewards(spread, reward, colour),
            alt=f"Share of the candidates by reward of {', '.join(preferences)}",
        )
    with columns[1]:
        st.markdown(
            "**Best of n**",
            help="Expected reward of the best (line) and the worst (dashed) of n candidates of a list. "
            "The 95% interval of the best is clustered by image.",
        )
        st.altair_chart(
            charts.best_of(best, reward, colour),
            alt=f"Expected best and worst reward of n of {', '.join(preferences)}",
        )


def _numbers(preferences: dict[str, Preferences], best: dict[str, BestOf], users: dict[str, str]) -> None:
    rows = [
        {
            "data of": users[name],
            "lists": len(each.counts),
            "candidates": len(each.rewards),
            "mean reward": float(each.rewards.mean()),
            "reward 0": 100 * float((each.rewards == 0).mean()),
            "mean spread": float(each.spreads.mean()),
            "lists without spread": 100 * float((each.spreads == 0).mean()),
            "best of n": float(best[name].best[-1]),
            "n": len(best[name].best),
            "lists with n": best[name].records,
        }
        for name, each in preferences.items()
    ]
    shares = ("reward 0", "lists without spread")
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        column_config={name: st.column_config.NumberColumn(format="%.1f%%") for name in shares}
        | {name: st.column_config.NumberColumn(format="%.3f") for name in ("mean reward", "mean spread", "best of n")}
        | {"n": st.column_config.NumberColumn(help="The most frequent number of candidates in a list.")},
    )


def _file(each: Training) -> tuple[Path, str]:
    """Where the data of a training are, and their digest.

    Raises:
        PerpoError: They are not in a folder that may be read.
    """
    recorded = each.record["data"]["path"] or each.argument("data")
    file = trainings.inside(trainings.moved(recorded, each), settings().roots)
    if file is None:
        what = f"its data {recorded} are not in a folder that may be read" if recorded else "its data are not named"
        raise PerpoError(what, "start perpo-dashboard with --media and their folder")
    return file, each.record["data"]["sha256"]


def _preferences(each: Training) -> Preferences | None:
    """The preference data of a training; None where it compared no candidates.

    Raises:
        PerpoError: They are not here, or are not what was trained on.
    """
    return stored.preferences(*_file(each)) if each.samples else None


def one_list(chosen: Trainings) -> None:
    """Show a picture, the candidates ranked, their rewards, and how likely the model finds them before and after."""
    st.subheader("A list", anchor=False)
    row = st.container(horizontal=True, vertical_alignment="bottom")
    names = {each.folder.relative_to(settings().results).as_posix(): name for name, each in chosen.items()}
    if st.session_state.get("pick-of") not in (None, *names):  # it was taken out of the choice at the top
        del st.session_state["pick-of"]
        st.query_params.pop("of", None)
    with row:
        of = pick("Training", "of", list(names), next(iter(names)), what="the training", shown=names.__getitem__)
    if of is None:
        return
    each = chosen[names[of]]
    try:
        known, probed = _known(each)
    except PerpoError as error:
        st.warning(reason(error))
        return
    numbers = list(range(1, len(known.counts) + 1)) if known else sorted(probed)
    if not numbers:
        st.info("Neither its data nor its measured log-probabilities were found.", icon=":material/info:")
        return
    with row:
        number = _number(numbers)
    if number is None:
        return
    record = known.record(number) if known else None
    ranking = candidates.candidates(record, probed.get(number, []))
    _look(each, record or probed[number][0], record, ranking)
    measured = ", ".join(map(str, sorted(probed)[:12])) + (", ..." if len(probed) > 12 else "")
    if number not in probed:
        st.caption(f"Log-probabilities were measured for these lists: {measured or 'none'} (--probe_lists).")


def _known(each: Training) -> tuple[Preferences | None, dict[int, list[dict[str, Any]]]]:
    """The preference data and the probe of a training, what is there of them.

    Raises:
        PerpoError: The probe is damaged.
    """
    try:
        known = _preferences(each)
    except PerpoError:  # the part about its data has said so
        known = None
    recorded = each.record["probe"]
    file = trainings.inside(each.folder / recorded["path"], settings().roots) if recorded else None
    return known, {} if file is None else stored.probe(file)


def _number(numbers: list[int]) -> int | None:
    """Which list, from 1 on: typed, or stepped to."""

    def step(by: int) -> None:
        at = st.session_state.get("list")
        later = [n for n in numbers if (n > at if by > 0 else n < at)] if at in numbers else numbers
        if later:
            st.session_state["list"] = later[0 if by > 0 else -1]

    tell_misread("list", int, "the number of a list")
    number = st.number_input(f"List, 1 to {numbers[-1]}", 1, None, 1, key="list", bind="query-params", width=160)
    st.button("Previous", icon=":material/chevron_left:", shortcut="Left", on_click=step, args=(-1,))
    st.button("Next", icon=":material/chevron_right:", shortcut="Right", on_click=step, args=(1,))
    if number not in numbers:
        st.warning(f"There is no list {number}. This training has {len(numbers)}; the last one is {numbers[-1]}.")
        return None
    return int(number)


def _look(each: Training, row: dict[str, Any], record: dict[str, Any] | None, ranking: list[Candidate]) -> None:
    plain(row["question"])
    left, right = st.columns([2, 3])
    with left:
        _picture(each, row, record, ranking)
    with right:
        if any(candidate.before is not None for candidate in ranking):
            st.markdown("**What training did to each candidate**")
            st.altair_chart(charts.log_probabilities(ranking), alt="Log-probabilities before and after training")
            order, pairs = candidates.pairs_in_order(ranking)
            if pairs:
                st.caption(
                    f"In {order} of {pairs} pairs with different rewards, the better answer gained more than the other."
                )
        else:
            st.caption("No log-probabilities were measured for this list.")
    _table(ranking)


def _table(ranking: list[Candidate]) -> None:
    rows = [
        {
            "rank": place,
            "answer": each.answer,
            "reward": each.reward,
            "tokens": each.tokens,
            "reference": each.reference,
            "before": each.before,
            "after": each.after,
            "change": each.change,
            "cut": each.truncated,
        }
        for place, each in enumerate(ranking, start=1)
    ]
    numbers = {
        "reference": "Log-probability by the reference, in nats, summed over the tokens.",
        "before": "By the policy before training.",
        "after": "By the policy after training.",
        "change": "After minus before.",
    }
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        placeholder="",
        height="content" if len(rows) <= _MANY else "auto",
        column_config={name: st.column_config.NumberColumn(format="%.2f", help=text) for name, text in numbers.items()}
        | {
            "answer": st.column_config.TextColumn(width="medium"),
            "reward": st.column_config.ProgressColumn(format="%.3f", min_value=0, max_value=1),
            "cut": st.column_config.CheckboxColumn(help="Cut at the token limit; not trained on by default."),
        },
    )


def _picture(each: Training, row: dict[str, Any], record: dict[str, Any] | None, ranking: list[Candidate]) -> None:
    root = each.argument("image_root") or str(Path(each.argument("data")).parent)
    file = trainings.inside(trainings.moved(str(Path(root, row["image_path"])), each), settings().roots)
    if file is None:
        st.caption(f"The picture {escape(row['image_path'])} is not in a folder that may be read (--media).")
    if record is not None:
        st.caption("The truth:")
        plain(record["answer"])
    if file is None:
        return
    try:
        size = pictures.size(file)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        boxes, legend = _boxes(each, record, ranking, size)
        st.image(
            pictures.with_boxes(file, {"sha256": sha256}, boxes), alt="The picture that is asked about", caption=legend
        )
    except PerpoError as error:
        st.caption(escape(error.message))


def _boxes(
    each: Training, record: dict[str, Any] | None, ranking: list[Candidate], size: tuple[int, int]
) -> tuple[list[Box], str | None]:
    """Boxes where the answers are some and it is known how they are written; and what their colours mean."""
    how = None if record is None else record_format(record, trainings.box_format(each.folder))
    if record is None or how is None:
        return [], None
    shown = st.pills(
        "Boxes", _SHOWN, selection_mode="multi", default=list(_SHOWN[:3]), key="boxes", bind="query-params"
    )
    texts = [("others", answer.answer, _GREY, True) for answer in reversed(ranking[1:-1])]
    texts += [("worst", ranking[-1].answer, CANDIDATE, True), ("best", ranking[0].answer, BASELINE, False)]
    texts.append(("truth", record["answer"], TRUTH, False))
    boxes = [
        box for kind, text, colour, dashed in texts if kind in shown for box in _box(text, how, size, colour, dashed)
    ]
    return boxes, "truth green, best blue, worst orange and dashed, others grey"


def record_format(record: dict[str, Any], model: BoxFormat | None) -> BoxFormat | None:
    """Return how a record's boxes are written: as it says itself, else as the model does whose frame it names."""
    if says_format(record):
        return row_format(record, model or BoxFormat("0-1"))
    return model if model is not None and record["box_frame"] == model.frame else None


def _box(text: str, how: BoxFormat, size: tuple[int, int], colour: str, dashed: bool) -> list[Box]:
    corners = parse_box(text, how, size)
    return [] if corners is None else [Box(tuple(map(float, corners)), colour, dashed)]  # type: ignore[arg-type]
