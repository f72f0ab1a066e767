"""The leaderboard in a browser: what is shown, filters in the address, files, and the way to a comparison."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from datetime import date
from pathlib import Path

from playwright.sync_api import TimeoutError, expect

from perpo.records.store import find_runs
from perpo.results.leaderboard import board as leaderboard
from perpo.results.leaderboard import files, views
from perpo_dashboard.leaderboard import boards

NEXT_YEAR = f"{date.today().year + 1}-01-01"
ROW = 35  # pixels of a table's row; the header has two


def _download(page, name: str) -> str:
    with page.expect_download() as found:
        page.get_by_test_id("stDownloadButton").filter(has_text=name).first.get_by_role("button").click()
    return Path(found.value.path()).read_text(encoding="utf-8")


def _expected(folder: Path, choice: boards.RunChoice) -> list[leaderboard.Board]:
    held = [run for run in find_runs(folder)[0] if choice.holds(run)]
    return [part for board in leaderboard.boards(held) for part in boards.split(board)]


def test_tables_filters_and_files_say_the_same(serve, visit, tiny_results) -> None:
    visitor = visit(serve(tiny_results))
    page = visitor.open("leaderboard")
    assert page.get_by_test_id("stDataFrame").count() == 3  # drawn shapes, the paper's grounding, its dense OCR
    assert visitor.state == {}

    page.get_by_role("combobox", name="Source").click()
    page.get_by_role("option", name="measured").click()
    page.keyboard.press("Escape")
    visitor.settle()
    expect(page.get_by_test_id("stDataFrame")).to_have_count(1)
    assert visitor.state == {"source": "measured"}
    (expected,) = _expected(tiny_results, boards.RunChoice(sources=["measured"]))
    rows = list(csv.DictReader(io.StringIO(_download(page, "CSV"))))
    assert [row["name"] for row in rows] == [row.label for row in expected.rows]
    assert _download(page, "Markdown") == files.render(expected, "markdown")
    assert _download(page, "LaTeX") == files.render(expected, "latex")
    assert visitor.errors() == []


def test_a_link_opens_what_its_sender_saw(serve, visit, tiny_results) -> None:
    state = {"method": "PerPO", "to": "each run's own base", "sort": "base", "columns": "refcoco"}
    visitor = visit(serve(tiny_results))
    page = visitor.open("leaderboard", **state, until=NEXT_YEAR)
    assert page.get_by_role("combobox", name="Sort by").input_value() == "base"
    assert page.get_by_role("combobox", name="Difference to").input_value() == "each run's own base"
    page.get_by_role("combobox", name="Method").click()
    page.get_by_role("option", name="base", exact=True).click()
    page.keyboard.press("Escape")
    visitor.settle()
    assert "until" in visitor.state
    # Reported numbers have plain differences to their own base.
    told = _download(page, "Markdown")
    parts = _expected(tiny_results, boards.RunChoice(methods=["base", "PerPO"]))
    view = boards.only(boards.ordered(next(p for p in parts if "refcoco" in p.title), "base"), ["refcoco"])
    assert told == files.render(views.against(view, views.own_bases(view), "each run's own base"), "markdown")
    assert "| +13.8 |" in told  # LLaVA-v1.5-7B on refcoco_val, 63.8 and 50.0 in the paper's table 1
    copied = page.url
    other = visit(serve(tiny_results))
    assert _download(other.open(copied), "Markdown") == told


def test_what_an_address_names_wrongly_is_said(serve, visit, tiny_results) -> None:
    page = visit(serve(tiny_results)).open("leaderboard", method="magic", sort="beauty", bars="nothing")
    for lost in ("magic (method)", "beauty (sort)", "nothing (bars)"):
        expect(page.get_by_text(f"This address names {lost}")).to_be_visible()


def test_a_chosen_pair_opens_in_the_other_pages(serve, visit, tiny_results) -> None:
    visitor = visit(serve(tiny_results))
    page = visitor.open("leaderboard", source="measured")
    table = page.get_by_test_id("stDataFrame").first
    for row in (0, 6):
        table.click(position={"x": 16, "y": 2 * ROW + ROW * row + ROW // 2})
        visitor.settle()
    page.get_by_role("button", name="Report", exact=True).click()
    page.wait_for_url("**/regressions?*")
    visitor.settle()
    assert visitor.state["a"].startswith("base (")
    assert visitor.state["b"].startswith("perpo (")


def test_a_column_says_what_it_means(serve, visit, tiny_results) -> None:
    page = visit(serve(tiny_results)).open("leaderboard", source="measured", columns="averages")
    table, told = page.get_by_test_id("stDataFrame").first, page.get_by_text("IoU of at least 0.5")
    for x in (500, 650, 800):  # where columns begin depends on how wide names are
        table.hover(position={"x": x, "y": ROW + ROW // 2})
        with suppress(TimeoutError):
            told.wait_for(timeout=1500)
            break
    expect(told).to_contain_text("4,040 samples about 450 images")


def test_bars_are_drawn_of_what_is_asked_for(serve, visit, tiny_results) -> None:
    visitor = visit(serve(tiny_results), width=900, dark=True)
    page = visitor.open("leaderboard", bars="Dense OCR · fox_ocr_en")
    expect(page.get_by_test_id("stVegaLiteChart")).to_have_count(6)
    expect(page.get_by_label("Bars with intervals: fox_ocr_en METEOR").first).to_be_visible()
    assert visitor.errors() == []


def test_no_run_is_left_or_none_is_there(serve, visit, tiny_results, no_results, broken_results) -> None:
    page = visit(serve(tiny_results)).open("leaderboard", since=NEXT_YEAR)
    expect(page.get_by_text("No run matches these filters.")).to_be_visible()
    page = visit(serve(no_results)).open("leaderboard")
    expect(page.get_by_text("There are no runs in this folder.")).to_be_visible()
    broken = visit(serve(broken_results))
    page = broken.open("leaderboard")
    expect(page.get_by_test_id("stDataFrame").first).to_be_visible()
    assert broken.errors() == []


def test_hostile_names_are_text(serve, visit, hostile_pair) -> None:
    visitor = visit(serve(hostile_pair[0]))
    page = visitor.open("leaderboard")
    assert page.locator("b", has_text="perpo").count() == 0
    assert "<b>perpo</b>" in _download(page, "CSV")
    assert visitor.errors() == []
