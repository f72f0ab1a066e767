"""Two runs compared, in a browser: counts that open their samples, runs that cannot be compared, a closer look."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from perpo.records.store import Run, find_runs
from perpo.results.samples import read_scores
from perpo_dashboard.shared.links import label_of


@pytest.fixture(scope="module")
def tiny(tiny_results) -> dict[str, Run]:
    """The recipe's runs by their names."""
    return {run.record.name: run for run in find_runs(tiny_results / "tiny")[0]}


@pytest.fixture
def visitor(serve, visit, tiny_results):
    return visit(serve(tiny_results))


def only_b(a: Run, b: Run) -> int:
    """How many samples B alone has right."""
    ours, theirs = read_scores(a), read_scores(b)
    assert (ours.keys == theirs.keys).all()
    return int(((ours.values["acc@0.5"] == 0) & (theirs.values["acc@0.5"] == 1)).sum())


def key_box(page: Page):
    return page.get_by_role("textbox", name="Sample key")


def test_arrows_in_a_text_field_move_its_cursor_alone(visitor, tiny):
    page = visitor.open("samples", a=label_of(tiny["base"]), b=label_of(tiny["perpo"]))
    key = key_box(page).input_value()
    page.get_by_label("Search questions").fill("ring")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("f")
    visitor.settle()
    expect(page.get_by_label("Search questions")).to_have_value("rinfg")
    expect(key_box(page)).to_have_value(key)


def test_a_picture_is_looked_at_closer(serve, visit, hostile_pair):
    folder, (a, b) = hostile_pair
    visitor = visit(serve(folder))
    page = visitor.open("samples", a=label_of(a), b=label_of(b), task="refcoco_val", sort="B gains most")
    caption = page.get_by_test_id("stImageCaption")
    assert re.match(r"(A: IoU \d.\d\d · )?B: IoU \d.\d\d · 640 x 480", caption.inner_text())
    image = page.get_by_test_id("stImage").locator("img").first
    for zoom in ("boxes", "full"):  # 640 pixels are all shown without
        seen = image.get_attribute("src") or ""
        page.get_by_test_id("stMain").get_by_text(zoom, exact=True).click()
        expect(image).not_to_have_attribute("src", seen)
        visitor.settle()
        assert visitor.state.get("zoom", "fit") == zoom


def test_more_runs_stand_beside_the_two(visitor, tiny):
    page = visitor.open("samples", a=label_of(tiny["base"]), b=label_of(tiny["perpo"]), more=label_of(tiny["rft"]))
    for name in ("base", "perpo", "rft"):
        expect(page.get_by_test_id("stGrid").get_by_text(name, exact=True)).to_be_visible()
    assert visitor.state["more"] == label_of(tiny["rft"])
    page.goto(page.url.replace("rft", "nobody"))
    visitor.settle()
    expect(page.get_by_text("names runs that are not in this folder")).to_be_visible()
    assert visitor.errors() == []


def test_the_counts_of_a_comparison_open_their_samples(visitor, tiny):
    a, b = tiny["base"], tiny["perpo"]
    count = only_b(a, b)
    page = visitor.open("compare", a=label_of(a), b=label_of(b))
    assert visitor.errors() == []
    expect(page.get_by_role("heading", name="improved: perpo against base")).to_be_visible()
    page.get_by_role("button", name="only B").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Samples")
    expect(page.get_by_text(f"1 of {count:,}", exact=False).first).to_be_visible()
    visitor.settle()
    state = visitor.state
    assert (state["a"], state["b"], state["outcome"]) == (label_of(a), label_of(b), "only B")


def test_runs_that_cannot_be_compared_say_why_and_still_show_what_they_share(visitor, tiny_results, tiny):
    whole = find_runs(tiny_results / "baselines")[0][0]
    page = visitor.open("compare", a=label_of(tiny["base"]), b=label_of(whole))
    assert visitor.errors() == []
    expect(page.get_by_text("cannot be compared")).to_be_visible()
    expect(page.get_by_role("button", name="both right").first).to_be_visible()
    page.get_by_text("Compare only what both runs have").click()
    visitor.settle()
    expect(page.get_by_text("cannot be compared")).to_have_count(0)
    assert visitor.state["common"] == "true"
    assert visitor.errors() == []
