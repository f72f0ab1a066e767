"""Samples side by side over 100,000 of them: filters, steps, keys, pictures, links, notes."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from visiting import Visitor

from perpo.results.colours import BASELINE, CANDIDATE, TRUTH
from perpo.results.samples import read_scores
from perpo_dashboard.shared.links import label_of


@pytest.fixture
def pair(large_pair):
    """The two large runs' labels, and their samples in the order of the keys."""
    _, runs = large_pair
    tables = [
        run.samples(["sample_key", "task", "question", "response", "parse_ok"]).sort_by("sample_key") for run in runs
    ]
    return [label_of(run) for run in runs], tables, [read_scores(run) for run in runs]


@pytest.fixture
def visitor(serve, visit, large_pair) -> Visitor:
    return visit(serve(large_pair[0]))


def write(visitor: Visitor, name: str, text: str) -> None:
    """Fill a field and press Enter."""
    field = visitor.page.get_by_role("textbox", name=name).or_(visitor.page.get_by_role("searchbox", name=name))
    field.fill(text)
    field.press("Enter")
    visitor.settle()


def position(visitor: Visitor) -> tuple[int, int]:
    """Which sample of how many is open, as the page says."""
    found = re.search(r"^([\d,]+) of ([\d,]+) ", visitor.text(), re.MULTILINE)
    assert found, visitor.text()
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


def opened(page: Page) -> str:
    """The key of the open sample, as far as it is shown."""
    return page.get_by_role("textbox", name="Sample key").input_value()


def picture(page: Page) -> np.ndarray:
    """(height, width, 3) of the picture that is shown."""
    image = page.get_by_test_id("stImage").locator("img")
    return np.asarray(
        Image.open(io.BytesIO(page.request.get(image.evaluate("each => each.src")).body())).convert("RGB")
    )


def drawn(pixels: np.ndarray, without: np.ndarray, colour: str) -> bool:
    """Whether a good part of what differs between two pictures, which may be JPEGs, has about that colour."""
    apart = np.abs(pixels.astype(int) - [int(colour[place : place + 2], 16) for place in (1, 3, 5)]).max(axis=2) < 50
    changed = np.abs(pixels.astype(int) - without).max(axis=2) > 50
    return bool(changed.any() and (apart & changed).sum() > 0.1 * changed.sum())


def toggle(visitor: Visitor, box: str) -> None:
    """Show a box, or hide it."""
    visitor.page.get_by_role("button", name=box, exact=True).click()
    visitor.settle()


def test_filters_find_as_many_as_the_tables_hold(visitor, pair):
    labels, (_, table), (base, perpo) = pair
    task = base.tasks == "refcoco_val"
    a, b = (scores.values["acc@0.5"] == 1 for scores in (base, perpo))
    visitor.open("samples", a=labels[0], b=labels[1])
    assert position(visitor) == (1, len(task))
    visitor.choose("Task", "refcoco_val")
    assert position(visitor) == (1, task.sum())
    visitor.press("only B")
    assert position(visitor) == (1, (task & ~a & b).sum())
    holds = np.array(["number 77" in question for question in table["question"].to_pylist()])
    write(visitor, "Search questions", "NUMBER 77")
    assert position(visitor) == (1, (task & ~a & b & holds).sum())
    visitor.press("all")
    assert position(visitor) == (1, (task & holds).sum())
    write(visitor, "Search questions", "")
    answers = np.array(["no such thing" in answer for answer in table["response"].to_pylist()])
    unreadable = ~table["parse_ok"].to_numpy()
    visitor.page.get_by_role("button", name="More filters").click()
    visitor.choose("Unreadable answer of", "B")
    assert answers[task].sum() == unreadable[task].sum()
    assert position(visitor) == (1, (task & unreadable).sum())


def test_nothing_found_says_so(visitor, pair):
    labels = pair[0]
    visitor.open("samples", a=labels[0], b=labels[1], q="no question holds this")
    assert "No sample matches these filters" in visitor.text()
    assert visitor.errors() == []


def test_steps_by_button_and_key_go_through_the_list(visitor, pair):
    labels, (table, _), _ = pair
    keys = table["sample_key"].to_pylist()
    page = visitor.open("samples", a=labels[0], b=labels[1], sort="key")
    seen = []

    def look() -> None:
        visitor.settle()
        seen.append((position(visitor)[0], opened(page)))
        assert visitor.state["key"] == seen[-1][1]

    look()
    expect(page.get_by_role("button", name="Previous")).to_be_disabled()
    for act in (
        lambda: page.keyboard.press("ArrowRight"),
        lambda: page.get_by_role("button", name="Next").click(),
        lambda: page.keyboard.press("ArrowLeft"),
        lambda: page.get_by_role("button", name="Previous").click(),
    ):
        act()
        look()
    assert [place for place, _ in seen] == [1, 2, 3, 2, 1]
    assert all(keys[place - 1].startswith(key) and len(key) >= 8 for place, key in seen)


def test_a_sample_is_opened_by_its_key(visitor, pair):
    labels, (table, _), _ = pair
    row = table.slice(54_321, 1).to_pylist()[0]
    page = visitor.open("samples", a=labels[0], b=labels[1], sort="key")
    write(visitor, "Sample key", row["sample_key"][:16])
    assert position(visitor)[0] == 54_322
    assert row["question"] in page.get_by_test_id("stCode").first.inner_text()
    assert row["response"] in visitor.text()
    write(visitor, "Sample key", "zzzz")
    assert "No sample of these runs has a key that begins with zzzz" in visitor.text()
    assert visitor.errors() == []


def test_a_link_opens_what_its_sender_saw(visitor, visit, serve, large_pair, pair):
    labels = pair[0]
    page = visitor.open("samples", a=labels[0], b=labels[1])
    visitor.choose("Task", "refcocog_val")
    visitor.press("only A")
    visitor.choose("Sort by", "B loses most")
    write(visitor, "Search questions", "stone")
    page.get_by_role("button", name="Next").click()
    visitor.settle()
    toggle(visitor, "truth")
    visitor.press("boxes")
    assert {
        "task": "refcocog_val",
        "outcome": "only A",
        "sort": "B loses most",
        "q": "stone",
    }.items() <= visitor.state.items()
    assert position(visitor)[0] == 2
    other = visit(serve(large_pair[0]))
    other.open(page.url)
    assert other.words() == visitor.words()
    assert other.state == visitor.state
    np.testing.assert_array_equal(picture(other.page), picture(page))


def test_boxes_are_drawn_in_their_colours_and_can_be_hidden(visitor, pair):
    labels = pair[0]
    page = visitor.open("samples", a=labels[0], b=labels[1], task="refcoco_val", outcome="both right")
    shown = [picture(page)]
    for box in ("B", "A", "truth"):
        toggle(visitor, box)
        shown.append(picture(page))
    for place, colour in enumerate((CANDIDATE, BASELINE, TRUTH)):
        assert drawn(shown[place], shown[place + 1], colour)
    assert re.search(r"A: IoU 0\.\d\d · B: IoU 0\.\d\d · 640 x 480 pixels", visitor.text())


def test_pages_of_text_and_judged_answers_are_side_by_side(visitor, pair):
    labels, tables, _ = pair
    place = tables[0]["task"].to_pylist().index("fox_ocr_en")
    page = visitor.open("samples", a=labels[0], b=labels[1], key=tables[0]["sample_key"][place].as_py()[:16])
    assert page.locator("del").count() > 0
    assert page.locator("ins").count() > 0
    page.get_by_role("radio", name="lines").or_(page.get_by_role("button", name="lines", exact=True)).first.click()
    visitor.settle()
    table = page.get_by_role("table").filter(has_text="changed").first
    expect(table).to_be_visible()
    assert visitor.state["differences"] == "lines"
    assert "the same." in visitor.text()
    place = tables[0]["task"].to_pylist().index("llava_bench_wild")
    page = visitor.open("samples", a=labels[0], b=labels[1], key=tables[0]["sample_key"][place].as_py()[:16])
    for table in tables:
        assert table["response"][place].as_py() in visitor.text()
    assert visitor.text().count("things that are there.") == 2


@pytest.fixture
def own(made_runs, tmp_path, serve, visit) -> tuple[Path, Visitor]:
    """A small folder that may be written to, and someone who looks at it."""
    made_runs.write_pair(tmp_path, 100, pictures=2)
    return tmp_path, visit(serve(tmp_path))


def test_flags_and_notes_are_kept_beside_the_runs(own):
    folder, visitor = own
    page = visitor.open("samples", sort="key")
    key = opened(page)
    page.get_by_role("button", name="Flag").click()
    visitor.settle()
    write(visitor, "Note", "<b>why</b> **so**?")
    rows = [json.loads(line) for line in (folder / "notes.jsonl").read_text().splitlines()]
    assert rows[-1]["sample_key"].startswith(key)
    assert (rows[-1]["flagged"], rows[-1]["note"]) == (True, "<b>why</b> **so**?")
    page.keyboard.press("ArrowRight")
    visitor.settle()
    page.get_by_role("button", name="More filters").click()
    visitor.choose("Notes", "flagged")
    assert position(visitor) == (1, 1)
    visitor.open(page.url)
    assert opened(page) == key
    assert page.get_by_role("textbox", name="Note").input_value() == "<b>why</b> **so**?"


def test_a_picture_outside_is_not_shown(made_runs, tmp_path, serve, visit):
    results = tmp_path / "results"
    made_runs.write_pair(results, 60, pictures=1)
    (results / "pictures" / "00000.jpg").rename(tmp_path / "00000.jpg")
    (results / "pictures" / "00000.jpg").symlink_to(tmp_path / "00000.jpg")
    visitor = visit(serve(results))
    page = visitor.open("samples")
    assert "The picture was not found in the results" in visitor.text()
    assert page.get_by_test_id("stImage").count() == 0
