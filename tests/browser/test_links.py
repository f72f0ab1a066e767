"""Addresses: what is chosen is in them, a copied one opens the same though newer runs came, and none breaks a page."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect

from perpo.records.store import find_runs
from perpo.results.samples import read_scores
from perpo_dashboard.shared.links import PAGES, label_of
from perpo_dashboard.shared.outcomes import OUTCOMES

ELSEWHERE = """
    a b all alike bars base boxes column columns common count date delta from high holds judge key list low method
    metric more noted of outcome part q ra ra0-10 run runs said seed smooth sort source split study task tasks threshold
    to told truth unreadable voter whole x zoom
"""
"""What the pages call things in addresses; one that knows a name less is not tried so hard."""


@pytest.fixture
def labels(large_pair) -> dict[str, str]:
    """What the address says of the two large runs."""
    return dict(zip("ab", map(label_of, large_pair[1]), strict=True))


def test_the_counts_of_a_task_open_its_samples_and_back_leads_back(serve, visit, large_pair, labels):
    base, perpo = map(read_scores, large_pair[1])
    task = base.tasks == "refcoco_val"
    a, b = (scores.values["acc@0.5"][task] == 1 for scores in (base, perpo))
    counts = dict(zip(OUTCOMES, [(a & b).sum(), (a & ~b).sum(), (~a & b).sum(), (~a & ~b).sum()], strict=True))
    visitor = visit(serve(large_pair[0]))
    page = visitor.open("compare", **labels, part="refcoco_val")
    for name, count in counts.items():
        expect(page.get_by_role("button", name=re.compile(rf"{count:,}.*{name}", re.DOTALL))).to_have_count(1)
    page.get_by_role("button", name=re.compile("only B")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Samples")
    visitor.settle()
    assert labels.items() <= visitor.state.items()
    assert (visitor.state["task"], visitor.state["outcome"]) == ("refcoco_val", "only B")
    assert f"1 of {counts['only B']:,} " in visitor.text()
    while "/samples" in page.url:  # the key of the open sample has an address of its own
        page.go_back()
        visitor.settle()
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare A and B")
    assert labels.items() <= visitor.state.items()


@pytest.mark.parametrize("linked", [True, False])
def test_a_link_to_a_comparison_opens_what_its_sender_saw(serve, visit, large_pair, labels, linked):
    visitor = visit(serve(large_pair[0]))
    page = visitor.open("compare", **labels, **({"part": "refcoco_val"} if linked else {}))
    if not linked:
        visitor.choose("Task", "refcoco_val")
    for choice in ("expression length", "mean IoU"):
        visitor.press(choice)
    other = visit(serve(large_pair[0]))
    other.open(page.url)
    assert other.words() == visitor.words()
    assert other.state == visitor.state
    for choice in ("expression length", "mean IoU"):
        expect(other.page.get_by_role("radio", name=choice)).to_be_checked()


@pytest.mark.parametrize(("name", "said"), [("samples-missing", "is missing"), ("samples-changed", "is not the file")])
def test_damaged_samples_are_told_and_break_nothing(serve, visit, broken_results, name, said):
    runs = {run.record.name: label_of(run) for run in find_runs(broken_results)[0]}
    visitor = visit(serve(broken_results))
    for page in ("compare", "samples", "vote", "regressions"):
        visitor.open(page, a=runs["perpo"], b=runs[name])
        assert visitor.errors() == []
        assert f"samples.parquet {said}" in visitor.text().replace("\u2060", ""), page


def test_a_link_outlives_newer_runs(made_runs, tmp_path, serve, visit):
    """What is shown unasked may be the newest runs; an address that was copied names those that were shown."""
    made_runs.write_pair(tmp_path, 60, pictures=1)
    visitor = visit(serve(tmp_path))
    pages = ("compare", "samples", "regressions")
    seen = {name: (visitor.open(name).url, visitor.state) for name in pages}
    made_runs.write_pair(tmp_path, 60, pictures=1, names=("newer base", "newer perpo"))
    other = visit(serve(tmp_path))
    for address, state in seen.values():
        assert {"a", "b"} <= set(state)
        other.open(address)
        assert other.state == state
        assert other.errors() == []


def test_no_address_breaks_a_page(serve, visit, tiny_results):
    nonsense = "-1,,NaN\x00/../..%00"
    visitor = visit(serve(tiny_results))
    for name in PAGES:
        visitor.open(name)
        bound = dict.fromkeys([*visitor.state, *ELSEWHERE.split()], nonsense)
        visitor.open(visitor.address(name) + "?" + urlencode(bound))
        assert visitor.errors() == [], name
        assert visitor.page.get_by_role("heading", level=1).inner_text() == PAGES[name].title
