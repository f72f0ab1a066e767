"""Every page: it opens, says what to run where there is nothing, and stands beside broken records."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect
from visiting import Visitor

from perpo_dashboard.shared.links import PAGES


def walk(visitor: Visitor) -> Iterator[str]:
    """Go through all pages by the links at the top."""
    visitor.open()
    for page in PAGES.values():
        visitor.page.get_by_test_id("stTopNavLink").filter(has_text=page.title).click()
        expect(visitor.page.get_by_role("heading", level=1)).to_have_text(page.title)
        visitor.settle()
        assert visitor.errors() == []
        yield page.title


def test_over_nothing_every_page_says_what_to_run(serve, visit, no_results):
    visitor = visit(serve(no_results))
    for title in walk(visitor):
        assert "perpo-" in visitor.page.get_by_test_id("stCode").first.inner_text(), title


def test_broken_records_are_listed_with_their_reasons_and_break_no_page(serve, visit, broken_results):
    visitor = visit(serve(broken_results))
    for title in walk(visitor):
        visitor.page.get_by_text("4 runs cannot be read").click()
        lines = visitor.page.get_by_test_id("stExpander").first.get_by_test_id("stText")
        lines.first.wait_for()
        for kind, reason in {
            "no-json": "is not JSON",
            "half": "is not JSON",
            "future": "schema version 99",
            "wrong-type": "is damaged: status",
        }.items():
            (line,) = [text for text in lines.all_inner_texts() if f"/{kind}/" in text]
            assert reason in line, title


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_over_real_runs(serve, visit, tiny_results, name):
    visitor = visit(serve(tiny_results))
    visitor.open(name)
    assert visitor.errors() == []
    assert "cannot be read" not in visitor.text()


def test_the_first_page_is_found_by_its_name_too(serve, visit, no_results):
    visitor = visit(serve(no_results))
    first = next(iter(PAGES))
    visitor.open(f"{visitor.url}/{first}")
    assert visitor.page.get_by_role("heading", level=1).inner_text() == PAGES[first].title
    assert visitor.page.get_by_role("dialog").count() == 0
