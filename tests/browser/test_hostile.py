"""What models say and people ask is shown letter by letter: nothing of it is run, rendered, fetched or made a link."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from perpo.records.run_record import sample_key
from perpo_dashboard.shared.links import PAGES, label_of

RENDERED = """() => {
    const each = (selector, test) => [...document.querySelectorAll(selector)].some(test || (() => true));
    const found = {
        links: each("a[href]", link => link.host !== location.host),
        pictures: each("img[src='x'], img[src$='x.png']"),
        formulas: each(".katex"),
        bold: each("b"),
        scripts: each("body script", script => script.textContent.includes("perpo")),
    };
    return Object.keys(found).filter(name => found[name]);
}"""
"""What must not come of the texts; `b` and `katex` are made of Markdown and HTML alone."""


@pytest.fixture
def visitor(serve, visit, hostile_pair):
    return visit(serve(hostile_pair[0]))


def key(task: str, place: int, text: str) -> str:
    """The key of a made-up sample."""
    return sample_key("made up", None, task, str(place), text)


@pytest.mark.parametrize("name", PAGES)
def test_a_run_with_a_hostile_name_breaks_no_page(visitor, hostile_pair, name):
    a, b = map(label_of, hostile_pair[1])
    page = visitor.open(name, a=a, b=b)
    assert visitor.errors() == []
    assert page.evaluate(RENDERED) == []
    assert page.get_by_role("heading", level=1).inner_text() == PAGES[name].title


def test_hostile_answers_and_questions_are_shown_letter_by_letter(visitor, hostile_pair, hostile_texts):
    a, b = map(label_of, hostile_pair[1])
    visitor.open("samples", a=a, b=b)
    for place, (kind, text) in enumerate(hostile_texts.items()):
        box = visitor.page.get_by_role("textbox", name="Sample key")
        box.fill(key("coco_pope_random", place, text)[:16])
        box.press("Enter")
        page = visitor.settle()
        assert visitor.errors() == [], kind
        assert page.evaluate(RENDERED) == [], kind
        shown = codes(page)
        # NUL cannot be in a page; the browser has U+FFFD, or nothing, in its place.
        assert sum(_same(one, text) for one in shown) >= (2 if text.strip() else 0), (kind, [t[:80] for t in shown])


def codes(page: Page) -> list[str]:
    """What is shown letter by letter."""
    return page.get_by_test_id("stCode").locator("code").all_text_contents()


def _same(shown: str, text: str) -> bool:
    return shown.replace("\ufffd", "\0").rstrip("\n") in {text.rstrip("\n"), text.replace("\0", "").rstrip("\n")}


def test_a_judges_hostile_words_are_shown_letter_by_letter(visitor, hostile_pair, hostile_texts):
    a, b = map(label_of, hostile_pair[1])
    for place, (kind, text) in enumerate(hostile_texts.items()):
        if kind in ("script", "markdown", "latex"):
            page = visitor.open("samples", a=a, b=b, key=key("mmhal_bench", place, text)[:16])
            assert visitor.errors() == []
            assert page.evaluate(RENDERED) == [], kind
            # The question, the answer, and what the judge wrote.
            assert sum(_same(one, text) for one in codes(page)) >= 3, kind


def test_hostile_pages_of_text_are_shown_letter_by_letter_in_the_differences_too(visitor, hostile_pair, hostile_texts):
    a, b = map(label_of, hostile_pair[1])
    for place, (kind, text) in enumerate(hostile_texts.items()):
        if kind not in ("script", "markdown", "right to left"):
            continue
        page = visitor.open("samples", a=a, b=b, key=key("fox_ocr_en", place, text)[:16])
        assert visitor.errors() == []
        assert page.evaluate(RENDERED) == [], kind
        words = " ".join(page.get_by_test_id("stHtml").all_inner_texts())
        assert text.split()[0] in words, kind


def test_an_address_with_hostile_words_is_shown_as_it_is(visitor, hostile_texts):
    text = " ".join(hostile_texts[kind] for kind in ("script", "markdown", "latex"))
    for name in PAGES:
        page = visitor.open(name, a=text, b=text, task=text, outcome=text, key=text)
        assert visitor.errors() == [], name
        assert page.evaluate(RENDERED) == [], name
