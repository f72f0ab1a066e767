"""The page of trainings in a browser: what an address keeps, keys, charts, and hostile names."""

from __future__ import annotations

import pytest
from made_trainings import write_training
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def trained(tmp_path_factory, hostile_texts):
    """A folder with two trainings, one of them with the worst names, questions and reasons."""
    base = tmp_path_factory.mktemp("trained")
    write_training(base / "runs" / "exp" / "perpo" / "adapter", base)
    bad = "<b>x<b> **y** $z$ :red[red]"
    write_training(
        base / "runs" / "exp" / bad / "adapter", base, question=hostile_texts["script"], status="failed", error=bad
    )
    return base / "runs", bad


def test_an_address_opens_what_its_sender_saw(trained, serve, visit):
    folder, _ = trained
    visitor = visit(serve(folder))
    visitor.open("training", t="exp/perpo/adapter")
    page = visitor.page
    page.get_by_role("radio", name="epoch").click()
    visitor.settle()
    page.get_by_role("button", name="Next").click()
    visitor.settle()
    page.get_by_role("button", name="others").click()
    visitor.settle()
    assert visitor.state | {"boxes": ""} == {
        "t": "exp/perpo/adapter",
        "of": "exp/perpo/adapter",
        "x": "epoch",
        "list": "2",
        "boxes": "",
    }

    other = visit(serve(folder), dark=True)
    other.open(page.url)
    assert other.page.url == page.url
    assert other.text() == visitor.text()
    assert other.page.get_by_role("spinbutton", name="List, 1 to 3").input_value() == "2"
    assert other.errors() == []


def test_charts_are_drawn_for_every_metric_of_the_log(trained, serve, visit):
    visitor = visit(serve(trained[0]))
    visitor.open("training")
    charts = visitor.page.get_by_test_id("stVegaLiteChart")
    expect(charts).to_have_count(5)  # loss, pair accuracy, rewards, best of n, log-probabilities
    for place in range(5):
        assert charts.nth(place).locator("canvas, svg").first.bounding_box()["width"] > 100
    assert visitor.errors() == []


def test_lists_are_stepped_through_by_keys(trained, serve, visit):
    visitor = visit(serve(trained[0]))
    visitor.open("training", t="exp/perpo/adapter")
    box = visitor.page.get_by_role("spinbutton", name="List, 1 to 3")
    for key, place in (("ArrowRight", "2"), ("ArrowRight", "3"), ("ArrowRight", "3"), ("ArrowLeft", "2")):
        visitor.page.keyboard.press(key)
        expect(box).to_have_value(place)
        visitor.settle()


def test_hostile_names_questions_and_reasons_are_text(trained, serve, visit, hostile_texts):
    folder, bad = trained
    visitor = visit(serve(folder))
    visitor.open("training", t=f"exp/{bad}/adapter")
    text = visitor.text()
    assert f"failed: {bad}" in text
    assert hostile_texts["script"] in text
    assert visitor.errors() == []
    assert visitor.page.get_by_test_id("stMain").locator("b, script").count() == 0


def test_an_address_of_a_training_that_is_not_here_says_so(trained, serve, visit):
    visitor = visit(serve(trained[0]))
    visitor.open("training", t="exp/gone/adapter")
    assert "This address names trainings that are not in this folder: exp/gone/adapter" in visitor.text()
