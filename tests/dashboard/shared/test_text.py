"""Runs stay in the address, links that cannot be followed say so, and no text is read as Markdown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from streamlit.testing.v1 import AppTest

from perpo_dashboard.shared.links import PAGES, label_of
from perpo_dashboard.shared.text import escape


def picker():
    """Picks A, by default the newest run."""
    import streamlit as st

    from perpo_dashboard.shared import stored
    from perpo_dashboard.shared.pick import pick_run

    runs = stored.runs()
    run = pick_run("A", "a", runs, runs[-1] if runs else None)
    st.text(f"chosen: {None if run is None else run.record.name}")


@pytest.fixture
def labels(made_runs, announce, tmp_path):
    """How the two runs are called in lists."""
    announce(tmp_path / "results")
    return [label_of(run) for run in made_runs.write_pair(tmp_path / "results", 60, pictures=2)]


def app(**state: str) -> AppTest:
    at = AppTest.from_function(picker, default_timeout=30)
    for name, value in state.items():
        at.query_params[name] = value
    return at.run()


def seen(at: AppTest) -> tuple[str, str]:
    """Which run is shown, and which the address names."""
    assert not at.exception
    named = at.query_params["a"]
    return at.text[0].value, named if isinstance(named, str) else named[0]


def test_the_default_run_is_put_into_the_address_so_that_a_link_keeps_its_meaning(labels):
    at = app()
    assert seen(at) == ("chosen: perpo", labels[1])
    assert at.selectbox[0].options == labels


def test_an_address_chooses_and_choosing_changes_the_address(labels):
    at = app(a=labels[0])
    assert seen(at) == ("chosen: base", labels[0])
    at.selectbox[0].select(labels[1]).run()
    assert seen(at) == ("chosen: perpo", labels[1])
    assert not at.warning


def test_the_back_button_changes_the_choice(labels):
    at = app()
    at.query_params["a"] = labels[0]
    assert seen(at.run()) == ("chosen: base", labels[0])


def test_an_address_with_an_unknown_run_shows_nothing_else_and_says_so(labels):
    unknown = "<b>gone</b> **x** (123456)"
    at = app(a=unknown)
    assert seen(at) == ("chosen: None", unknown)
    (warning,) = at.warning
    assert text_of(warning.value) == f"This address names the run {unknown}, which is not in this folder."
    at.selectbox[0].select(labels[0]).run()
    assert seen(at) == ("chosen: base", labels[0])
    assert not at.warning


def text_of(markdown: str) -> str:
    """What a reader of the rendered Markdown sees, if nothing in it is markup."""
    (block,) = [token for token in MarkdownIt("commonmark").parse(markdown) if token.type == "inline"]
    assert {child.type for child in block.children or []} <= {"text", "text_special", "softbreak"}
    return without_marks("".join(child.content for child in block.children or []))


def without_marks(text: str) -> str:
    """Without what keeps addresses from being links, and directions of reading apart."""
    return re.sub("[\u2060\u2066-\u2069]", "", text)


@given(st.text(max_size=60))
def test_escaped_text_is_read_letter_by_letter(text):
    folded = " ".join(text.replace("\0", "\ufffd").split())
    if folded:
        assert text_of(f"x{escape(text)}") == without_marks(f"x{folded}")


@pytest.mark.parametrize(
    "text",
    [
        "$x$",
        ":red[x]",
        ":material/home:",
        ":smile:",
        "~~x~~",
        "1. x",
        "- x",
        "# x",
        "| a |",
        "<b>x</b>",
        "&lt;",
        "[x](y)",
        "==x==",
    ],
)
def test_nothing_of_streamlits_own_markdown_is_left(text):
    """Its additions to Markdown begin with a dollar, a colon, a tilde or an equals sign: each has a backslash."""
    assert not re.search(r"(?<!\\)[$:~=<\[|*_#`]", escape(text))
    assert text_of(f"x {escape(text)}") == f"x {text}"


def test_addresses_do_not_become_links():
    assert MarkdownIt("gfm-like", {"linkify": False}).renderInline(escape("see www.example.org")).find("<a") == -1
    for text in ("https://example.org", "www.example.org", "someone@example.org"):
        assert "\u2060" in escape(text)


@pytest.mark.parametrize("text", ["\u202eabc", "\u05e9\u05dc", "a\u2069\u202eb", "\u2067a", "\u0627 1"])
def test_what_turns_the_direction_of_reading_turns_nothing_else(text):
    shown = escape(text)
    assert (shown[0], shown[-1]) == ("\u2068", "\u2069")
    assert not re.search("[\u2066-\u2069]", shown[1:-1])  # nothing in it ends the pair, or opens another one
    assert "\u2068" not in escape("plain \u00e9 \u4e2d 1")


def test_every_page_is_a_file(tmp_path):

    import perpo_dashboard

    folder = Path(perpo_dashboard.__file__).parent
    assert {page.file for page in PAGES.values()} == {
        f"{path.parent.name}/page.py" for path in folder.glob("*/page.py")
    }


def test_every_page_says_what_to_run_where_there_is_nothing(announce, tmp_path):
    (tmp_path / "results").mkdir()
    announce(tmp_path / "results")

    import perpo_dashboard

    at = AppTest.from_file(Path(perpo_dashboard.__file__).with_name("app.py"), default_timeout=30).run()
    for page in PAGES.values():
        at.switch_page(page.file).run()
        assert not at.exception
        assert at.title[0].value == page.title
        assert any("perpo-" in code.value for code in at.code)
