"""A blind vote played through by two people: set up, voted by button and by key, paused, resumed, opened."""

from __future__ import annotations

import json
import re
from pathlib import Path

import made_runs
import pytest
from playwright.sync_api import expect

from perpo_dashboard.vote import votes

NAMES = ("zebrafinch", "yakbutter")
COUNT = 5


@pytest.fixture
def studied(tmp_path, serve, visit):
    """A dashboard over two runs whose names are found nowhere else, and somebody who set up a vote on them."""
    folder = tmp_path / "results"
    runs = made_runs.write_pair(folder, 90, pictures=4, names=NAMES)
    visitor = visit(serve(folder))
    visitor.open("vote")
    assert all(name in visitor.page.content() for name in NAMES)  # here they are chosen
    box = visitor.page.get_by_role("spinbutton", name="Questions at most")
    box.fill(str(COUNT))
    box.press("Enter")
    visitor.settle()
    visitor.page.get_by_role("button", name="Begin the vote").click()
    visitor.settle()
    return folder, runs, visitor


def rows(folder: Path, kind: str) -> list[dict]:
    """What votes.jsonl holds of a kind."""
    lines = (folder / "votes.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def begin(visitor, study: str, name: str) -> None:
    """Come to a vote by its address, and give a name."""
    visitor.open("vote", study=study)
    visitor.page.get_by_role("textbox", name="Your name").fill(name)
    visitor.page.get_by_role("button", name="Begin").click()
    visitor.settle()


def cast(visitor, done: int, press) -> None:
    """Vote by `press` on the question after `done` others."""
    expect(visitor.page.get_by_text(f"{done} of {COUNT} answered")).to_be_visible()
    press(visitor.page)
    expect(visitor.page.get_by_text(f"{done + 1} of {COUNT} answered")).to_be_visible()
    visitor.settle()


def button(name: str):
    """Vote with the mouse."""
    return lambda page: page.get_by_role("button", name=re.compile(f"^{name}")).click()


def key(letter: str):
    """Vote with the keyboard."""
    return lambda page: page.keyboard.press(letter)


def test_a_vote_is_played_through(studied, serve, visit):
    folder, runs, visitor = studied
    (study,) = rows(folder, "study")
    assert set(study["runs"]) == {run.record.run_id for run in runs}
    assert len(study["questions"]) == COUNT
    assert visitor.state == {"study": study["id"]}  # and nothing of the runs

    received: list[bytes] = []
    ann = visit(serve(folder))
    ann.page.on("websocket", lambda socket: socket.on("framereceived", lambda data: received.append(data)))
    begin(ann, study["id"], "ann")
    assert ann.state == {"study": study["id"], "voter": "ann"}
    presses = [key("a"), key("b"), button("Tie"), button("Both bad"), key("t")]
    for done, press in enumerate(presses[:4]):
        cast(ann, done, press)
    ann.page.get_by_role("button", name="Pause").click()  # and somebody takes the address to go on elsewhere
    ann.settle()
    ann.open("vote", study=study["id"], voter="ann")
    for done, press in enumerate(presses[4:], start=4):
        cast(ann, done, press)
    expect(ann.page.get_by_text(f"All {COUNT} questions are answered")).to_be_visible()
    assert ann.errors() == []

    sent = b"".join(data if isinstance(data, bytes) else data.encode() for data in received)
    assert b"answered" in sent  # the page came this way
    for secret in (*NAMES, *(run.record.run_id for run in runs)):
        assert secret.encode() not in sent
        assert secret not in ann.page.content()

    given = rows(folder, "vote")
    assert [vote["choice"] for vote in given] == ["left", "right", "tie", "both bad", "tie"]
    assert {(vote["task"], vote["sample_key"]) for vote in given} == {tuple(each) for each in study["questions"]}

    begin(visitor, study["id"], "bob")
    for done in range(COUNT):
        cast(visitor, done, key("n"))
    visitor.page.get_by_role("button", name="Open the result").click()
    visitor.settle()
    for name in NAMES:
        assert visitor.page.get_by_text(f"{name} (").count()
    text = visitor.text()
    assert f"{COUNT} of {COUNT} questions are answered, by 2 voters" in text
    # ann said once both bad, as bob did throughout; their split questions are ties
    assert re.search(r"Both bad\s+20%\s+\[4, 62\]", text)
    assert re.search(r"Tie\s+80%\s+\[38, 96\]", text)
    assert [row["voter"] for row in rows(folder, "opened")] == ["bob"]


def test_an_answer_is_mended_by_going_back(studied, visit, serve):
    folder, _, visitor = studied
    (study,) = rows(folder, "study")
    begin(visitor, study["id"], "ann")
    cast(visitor, 0, key("a"))
    visitor.page.keyboard.press("ArrowLeft")
    visitor.settle()
    assert visitor.state["q"] == "1"
    expect(visitor.page.get_by_role("button", name="Go on")).to_be_visible()
    visitor.page.keyboard.press("b")
    expect(visitor.page.get_by_role("button", name="Go on")).to_have_count(0)
    visitor.settle()
    assert "q" not in visitor.state
    first, second = rows(folder, "vote")
    assert (first["choice"], second["choice"]) == ("left", "right")
    assert first["sample_key"] == second["sample_key"]
    expect(visitor.page.get_by_text(f"1 of {COUNT} answered")).to_be_visible()


def test_who_has_seen_the_names_votes_in_vain_and_is_told(studied):
    folder, _, visitor = studied
    (study,) = rows(folder, "study")
    visitor.open("vote", study=study["id"], voter="eve", show="result")
    assert f"{COUNT} of your {COUNT} questions are not answered yet" in visitor.text()
    assert not any(name in visitor.page.content() for name in NAMES)
    visitor.page.get_by_role("button", name="Open the result anyway").click()
    visitor.settle()
    assert "Nobody has voted yet" in visitor.text()
    visitor.open("vote", study=study["id"], voter="eve")
    assert "they do not count" in visitor.text()
    visitor.page.keyboard.press("a")
    expect(visitor.page.get_by_text(f"0 of {COUNT} answered")).to_be_visible()
    visitor.settle()
    visitor.open("vote", study=study["id"], show="result")
    assert "Nobody has voted yet" in visitor.text()


def test_an_address_of_a_vote_that_is_not_here_says_so(studied):
    _, _, visitor = studied
    visitor.open("vote", study="<b>x</b>")
    assert "This address names the vote <b>x</b>, which is not in this folder." in visitor.text()
    visitor.page.get_by_role("button", name="All votes").click()
    visitor.settle()
    assert visitor.state == {}


def test_hostile_answers_are_shown_as_text(hostile_pair, serve, visit, hostile_texts):
    folder, (_, run) = hostile_pair
    visitor = visit(serve(folder))
    visitor.open("vote", show="new", alike="true", count="1000")
    visitor.page.get_by_role("button", name="Begin the vote").click()
    visitor.settle()
    voter = "<script>alert(1)</script> **me**"
    begin(visitor, visitor.state["study"], voter)
    assert f"Voter: {voter}" in visitor.text()
    study = votes.read(folder / votes.VOTES_FILE).studies[visitor.state["study"]]
    places = {question.sample_key: place for place, (question, _) in enumerate(votes.ballot(study, voter), start=1)}
    table = run.samples(["sample_key", "task", "response"]).to_pylist()
    for kind in ("script", "markdown", "long"):
        said = hostile_texts[kind]
        key = next(row["sample_key"] for row in table if row["response"] == said)
        visitor.open("vote", study=study.id, voter=voter, q=str(places[key]))
        assert visitor.errors() == []
        shown = visitor.page.get_by_test_id("stCode").all_text_contents()
        assert said.strip() in shown, kind
