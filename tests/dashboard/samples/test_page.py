"""The samples page over made-up runs, without a browser: what is asked for is what is shown, and what fails says so."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from perpo.errors import PerpoError
from perpo.results.samples import read_scores
from perpo_dashboard.samples import cards
from perpo_dashboard.samples.notes import NOTES_FILE, read_notes
from perpo_dashboard.shared import stored
from perpo_dashboard.shared.links import label_of
from perpo_dashboard.shared.outcomes import OUTCOMES
from tests.support import ROOT

APP = ROOT / "dashboard" / "perpo_dashboard" / "app.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from made_runs import write_pair
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    folder = tmp_path_factory.mktemp("made")
    return folder, *write_pair(folder, 1000, pictures=4)


@pytest.fixture
def open_page(made, monkeypatch):
    def arrive(page: str = "samples", results: Path | None = None, **state: str) -> AppTest:
        folder, a, b = made
        monkeypatch.setenv("PERPO_DASHBOARD", json.dumps([str(results or folder)]))
        test = AppTest.from_file(str(APP), default_timeout=30)
        test._page_hash = calc_hash(page)  # switch_page takes a file's name for its address before the first run
        for name, value in ({"a": label_of(a), "b": label_of(b)} | state).items():
            test.query_params[name] = value
        return test.run()

    return arrive


def said(test: AppTest, kind: str) -> str:
    return "\n".join(str(each.value) for each in getattr(test, kind))


def right(run, task: str, score: str) -> dict[str, bool]:
    found = read_scores(run)
    mine = found.tasks == task
    return dict(zip(found.keys[mine].tolist(), (found.values[score][mine] == 1).tolist(), strict=True))


@pytest.mark.parametrize(("outcome", "signs"), zip(OUTCOMES, [(1, 1), (1, 0), (0, 1), (0, 0)], strict=True))
def test_an_outcome_in_the_address_shows_its_samples(made, open_page, outcome, signs):
    _, a, b = made
    ours, theirs = (right(run, "refcoco_val", "acc@0.5") for run in (a, b))
    expected = [key for key in ours if (ours[key], theirs[key]) == tuple(map(bool, signs))]
    test = open_page(task="refcoco_val", outcome=outcome)
    assert not test.exception
    if not expected:
        assert "No sample matches these filters" in said(test, "info")
        return
    assert f"**1 of {len(expected)}**" in said(test, "caption")
    assert test.text_input(key="open").value in [key[:16] for key in expected]


def test_samples_are_walked_through_in_the_order_of_disagreement(made, open_page):
    _, a, b = made
    one, other = (read_scores(run) for run in (a, b))
    mine = one.tasks == "refcoco_val"
    gap = np.abs(one.values["iou"] - other.values["iou"])[mine]
    expected = [key[:16] for key in one.keys[mine][np.argsort(-gap, kind="stable")]]
    test = open_page(task="refcoco_val")
    seen = [test.text_input(key="open").value]
    for _ in range(4):
        test = test.button(key="Next").click().run()
        seen.append(test.text_input(key="open").value)
    assert seen == expected[:5]
    test = test.button(key="Previous").click().run()
    assert test.text_input(key="open").value == expected[3]
    assert test.query_params["key"] == expected[3]


def test_a_sample_is_opened_by_the_beginning_of_its_key(made, open_page):
    _, a, _ = made
    key = sorted(read_scores(a).keys)[7]
    test = open_page(key=key[:10])
    assert test.text_input(key="open").value == key[:16]
    test = test.text_input(key="open").set_value("zzzz").run()
    assert not test.exception
    assert "No sample of these runs has a key that begins with zzzz" in said(test, "warning")


def test_a_sample_that_is_not_asked_for_is_shown_all_the_same(made, open_page):
    _, a, _ = made
    scores = read_scores(a)
    key = scores.keys[scores.tasks == "fox_ocr_en"][0]
    test = open_page(task="refcoco_val", key=key[:16])
    assert "This sample does not match the filters" in said(test, "info")
    assert test.text_input(key="open").value == key[:16]
    test = test.selectbox(key="sort").set_value("key").run()
    assert test.text_input(key="open").value != key[:16]


@pytest.mark.parametrize(
    ("page", "key"),
    [
        *(("samples", key) for key in ("task", "sort", "outcome", "split", "noted", "unreadable", "column", "of")),
        *(("samples", key) for key in ("low", "high", "ra", "rb", "ra1-10", "a", "more")),
        *(("compare", key) for key in ("part", "by-grounding", "of-grounding", "b")),
        *(("leaderboard", key) for key in ("since", "until", "method", "to", "sort", "bars")),
        *(("regressions", key) for key in ("threshold", "trend", "names")),
    ],
)
def test_an_address_that_asks_for_what_is_not_known_is_told_so(open_page, page, key):
    test = open_page(page, **{key: "of *tomorrow*"})
    assert not test.exception
    assert "of \\*tomorrow\\*" in said(test, "warning")


def test_an_address_that_asks_for_what_is_known_is_not_told_anything(open_page):
    state = {"task": "refcoco_val", "split": "val", "unreadable": "B", "column": "tokens_out", "low": "1", "ra": "0.5"}
    test = open_page(**state, of="B", noted="any", outcome="all", sort="key")
    assert not test.exception
    assert said(test, "warning") == ""


def test_flags_and_notes_are_kept_and_can_be_asked_for(made, open_page):
    folder, a, b = made
    test = open_page(task="refcoco_val")
    short = test.text_input(key="open").value
    test = test.button(key=f"flag-{short}").click().run()
    test = test.text_input(key=f"note-{short}").set_value("look *again*").run()
    assert not test.exception
    notes, damaged = read_notes(folder)
    assert damaged == 0
    assert {key[:16]: (note.flagged, note.text) for key, note in notes.items()} == {short: (True, "look *again*")}
    rows = [json.loads(line) for line in (folder / NOTES_FILE).read_text().splitlines()]
    assert {tuple(row["runs"]) for row in rows} == {(a.record.run_id, b.record.run_id)}
    test = open_page(noted="flagged")
    assert "**1 of 1**" in said(test, "caption")
    test = test.button(key=f"flag-{short}").click().run()
    assert not read_notes(folder)[0][next(iter(notes))].flagged
    (folder / NOTES_FILE).unlink()


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"column": "tokens_out", "low": "1000000"}, 0),
        ({"column": "finish_reason", "holds": "stop"}, None),
        ({"unreadable": "B"}, None),
        ({"q": "OCR"}, None),
    ],
)
def test_any_column_can_be_asked_for(made, open_page, state, expected):
    _, a, b = made
    table = (b if state.get("unreadable") == "B" else a).samples()
    if expected is None:
        wanted = {
            "finish_reason": lambda row: "stop" in (row["finish_reason"] or ""),
            "unreadable": lambda row: row["parse_ok"] is False,
            "q": lambda row: "ocr" in row["question"].lower(),
        }[state.get("column") or next(iter(state))]
        expected = sum(map(wanted, table.to_pylist()))
        assert expected > 0
    test = open_page(**state)
    assert not test.exception
    text = said(test, "caption") + said(test, "info")
    assert (f"**1 of {expected:,}**" if expected else "No sample matches these filters") in text


def test_everything_is_asked_for_again_at_once(open_page):
    test = open_page(outcome="only A", q="no such words", unreadable="A", ra="0.2", column="error", holds="x")
    assert "No sample matches these filters" in said(test, "info")
    test = test.button(key="clear-too").click().run()
    assert "**1 of 1,000**" in said(test, "caption")


@pytest.mark.parametrize("page", ["samples", "compare", "leaderboard", "regressions"])
def test_damaged_samples_are_named_and_break_nothing(made, open_page, page, tmp_path):
    folder, _, b = made
    copy = tmp_path / "results"
    shutil.copytree(folder, copy)
    with open(copy / b.path.relative_to(folder) / "samples.parquet", "ab") as file:
        file.write(b"x")
    test = open_page(page, copy)
    for _ in range(2):  # what is remembered of them is told again
        assert not test.exception
        assert "is not the file that" in said(test, "error") + said(test, "warning")
        test = test.run()


def test_a_damaged_run_beside_the_two_is_named_and_the_rest_is_shown(made, open_page, tmp_path):
    folder, _, b = made
    copy = tmp_path / "results"
    shutil.copytree(folder, copy)
    third = Path(shutil.copytree(copy / b.path.relative_to(folder), copy / "third"))
    record = (third / "run.json").read_text().replace(b.record.run_id, "the-third")
    (third / "run.json").write_text(record)
    (third / "samples.parquet").write_bytes(b"PAR1")
    test = open_page(results=copy, more=f"{b.record.name} (-third)")
    assert not test.exception
    assert re.search(r"^C: .*third.*is not the file that", said(test, "warning"), re.MULTILINE)
    assert "**1 of 1,000**" in said(test, "caption")


def test_samples_that_are_damaged_while_their_page_is_made_are_named(open_page, monkeypatch):
    def gone(*_):
        raise PerpoError("samples.parquet is missing", "copy it again")

    monkeypatch.setattr(stored, "rows", gone)
    test = open_page()
    assert not test.exception
    assert "missing  \ncopy it again" in said(test, "error").replace("\\", "")


def test_of_a_judgement_only_what_is_unusual_is_told():
    usual = {"text": "Rating: 4", "first_text": "Rating: 4", "rating": 4, "official": 4, "flags": [], "error": None}
    assert cards._worth_saying(usual | {"attempts": 1}) == {"rating": 4}
    second = usual | {"first_text": "I cannot say.", "official": 0, "attempts": 2}
    assert cards._worth_saying(second) == {"rating": 4, "first_text": "I cannot say.", "official": 0, "attempts": 2}
    failed = dict.fromkeys(usual) | {"error": "no answer within 300 s", "attempts": 3}
    assert cards._worth_saying(failed) == {"error": "no answer within 300 s", "attempts": 3}
