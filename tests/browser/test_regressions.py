"""The regressions page and the exported page in a browser."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect

from perpo.records.approval import standing_of
from perpo.records.store import find_runs, resolve_run
from perpo.results.regression.extras import Extras
from perpo.results.regression.report import compare_runs
from perpo.results.regression.report_json import as_json
from perpo.results.regression.text import table
from perpo_dashboard.cli import main
from perpo_dashboard.shared.links import label_of


def _pair(folder: Path, *names: str):
    return [resolve_run(name, folder) for name in names]


def test_any_two_runs_are_judged_as_perpo_report_does(serve, visit, tiny_results) -> None:
    a, b = _pair(tiny_results, "sft-exact", "perpo")
    visitor = visit(serve(tiny_results))
    page = visitor.open("regressions", a=label_of(a), b=label_of(b), threshold="1.5")
    report = replace(compare_runs(a, b, thresholds={"": 1.5}), extras=Extras(standing=[standing_of(a)]))
    expect(page.get_by_role("paragraph").filter(has_text="The baseline is not approved: nobody")).to_be_visible()
    assert {row.verdict for row in report.rows} == {"regressed", "inconclusive"}
    expect(page.get_by_role("heading", name="regressed: perpo against sft-exact")).to_be_visible()
    for verdict, count in Counter(row.verdict for row in report.rows).items():
        expect(page.get_by_text(f"{count} {verdict}", exact=True)).to_be_visible()
    with page.expect_download() as found:
        page.get_by_test_id("stDownloadButton").filter(has_text="JSON").get_by_role("button").click()
    assert json.loads(Path(found.value.path()).read_text()) == json.loads(json.dumps(as_json(report)))
    page.get_by_text("How to read this").click()
    expect(page.get_by_text(table(report).notes[0])).to_be_visible()

    page.get_by_role("spinbutton", name="Threshold").fill("0.1")
    page.keyboard.press("Enter")
    visitor.settle()
    counts = Counter(row.verdict for row in compare_runs(a, b, thresholds={"": 0.1}).rows)
    assert counts["regressed"] > sum(row.verdict == "regressed" for row in report.rows)
    expect(page.get_by_text(f"{counts['regressed']} regressed", exact=True)).to_be_visible()
    assert visitor.state["threshold"] == "0.1"
    assert visitor.errors() == []


def test_samples_that_lost_are_shown_and_open(serve, visit, tiny_results) -> None:
    a, b = _pair(tiny_results, "base", "perpo")
    visitor = visit(serve(tiny_results), width=900, dark=True)
    page = visitor.open("regressions", a=label_of(a), b=label_of(b))
    first = compare_runs(a, b).flips[0]
    expect(page.get_by_role("link", name="Open this sample")).to_have_count(4)
    page.get_by_text("Show all 20").click()
    visitor.settle()
    expect(page.get_by_role("link", name="Open this sample")).to_have_count(20)
    assert visitor.state["all"] == "true"
    page.get_by_role("link", name="Open this sample").first.click()
    page.wait_for_url("**/samples?*")
    visitor.settle()
    assert visitor.state["key"] == first.sample_key[:16]
    assert (visitor.state["a"], visitor.state["b"]) == (label_of(a), label_of(b))
    assert visitor.errors() == []


def test_runs_that_cannot_be_compared_leave_the_rest_of_the_page(serve, visit, tiny_results) -> None:
    a, b = _pair(tiny_results, "tiny", "perpo")
    visitor = visit(serve(tiny_results))
    page = visitor.open("regressions", a=label_of(a), b=label_of(b))
    expect(page.get_by_text("perpo and tiny cannot be compared")).to_be_visible()
    expect(page.get_by_test_id("stVegaLiteChart")).to_have_count(1)  # the metric over time
    page.get_by_text("Compare only what both runs have").click()
    visitor.settle()
    expect(page.get_by_role("heading", name="improved: perpo against tiny")).to_be_visible()
    assert visitor.state["common"] == "true"


def test_a_metric_is_followed_as_the_address_says(serve, visit, tiny_results) -> None:
    visitor = visit(serve(tiny_results))
    page = visitor.open("regressions", trend="pope · accuracy", names="tiny")
    expect(page.get_by_label("pope · accuracy over time").first).to_be_visible()
    copied = page.url
    other = visit(serve(tiny_results))
    expect(other.open(copied).get_by_label("pope · accuracy over time").first).to_be_visible()
    assert (other.state["trend"], other.state["names"]) == ("pope · accuracy", "tiny")
    lost = visit(serve(tiny_results)).open("regressions", trend="pope · beauty", names="nobody")
    expect(lost.get_by_text("This address names the metric pope · beauty")).to_be_visible()
    expect(lost.get_by_text("This address names nobody (names)")).to_be_visible()


def test_nothing_to_compare_and_broken_samples(serve, visit, no_results, broken_results) -> None:
    expect(visit(serve(no_results)).open("regressions").get_by_text("There are no runs with samples")).to_be_visible()
    runs = {run.path.name: run for run in find_runs(broken_results)[0]}
    whole = next(run for name, run in runs.items() if not name.startswith("samples-"))
    visitor = visit(serve(broken_results))
    for name, said in (("samples-missing", "is missing"), ("samples-changed", "is not the file that run.json")):
        page = visitor.open("regressions", a=label_of(whole), b=label_of(runs[name]))
        expect(page.get_by_test_id("stAlert").get_by_text(said)).to_be_visible()
    assert visitor.errors() == []


@pytest.mark.parametrize("dark", [False, True])
def test_the_exported_page_opens_without_a_server(chromium, hostile_pair, tmp_path, dark) -> None:
    folder, (a, b) = hostile_pair
    assert (
        main(["export", "--run", str(a.path), "--run", str(b.path), "--results", str(folder), "--out", str(tmp_path)])
        == 0
    )
    page = chromium.new_page()
    page.emulate_media(color_scheme="dark" if dark else "light")
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((tmp_path / "index.html").as_uri())
    expect(page.get_by_role("heading", level=1)).to_contain_text("<b>perpo</b> **bold**")
    assert page.locator("article").count() == len(compare_runs(a, b).flips)
    assert page.locator("script, article b, article img").count() == 0
    page.get_by_role("link", name="report.md").click()
    assert wrong == []
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    page.close()
