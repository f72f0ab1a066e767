"""perpo.texts.unit_tests: each type by hand, and more than 500 made answers against the rules stated again."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import unicodedata
from typing import Any

import pytest
from fuzzysearch import find_near_matches
from rapidfuzz.fuzz import partial_ratio

from perpo.errors import PerpoError
from perpo.texts.unit_tests import TestedPage, _starts, comparable, problem, read_tests, share_passed


def passes(said: str, kind: str, **fields: Any) -> bool:
    test = {"type": kind, **fields}
    assert problem(test) == ""
    return TestedPage(said).passes(test)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a<br>b<br/>c<br />d", "a b c<br />d"),
        ("**bold** __too__ *slanted* _too_ <b>b</b> <i>i</i>", "bold too slanted too b i"),
        ("over **two\nlines**", "over two lines"),
        ("\ta \n\n b ", " a b "),
        ("e\u0301", "é"),
        ("‘a’ ‚b‚ “c” „d„", "'a' 'b' \"c\" \"d\""),
        ("1–2—3‑4‒5−6＿7", "1-2-3-4-5-6_7"),
        ("\u00b5m", "\u03bcm"),
        ("a_b_c", "abc"),
    ],
)
def test_what_is_compared(text: str, found: str) -> None:
    assert comparable(text) == found


def test_a_text_is_present_or_absent_up_to_some_differences() -> None:
    assert passes("The **kitten** sat.", "present", text="kitten sat")
    assert not passes("The kitten sat.", "present", text="Kitten")
    assert passes("The kitten sat.", "present", text="Kitten", case_sensitive=False)
    assert passes("The kitten sat.", "present", text="Kitten", case_sensitive=None)
    assert passes("The kitten sat.", "present", text="kittan", max_diffs=1)
    assert not passes("The kitten sat.", "present", text="kixxan", max_diffs=1)
    assert passes("7 The kitten sat. 8", "absent", text="8", first_n=5)
    assert not passes("7 The kitten sat. 8", "absent", text="8", first_n=5, last_n=1)
    assert not passes("7 The kitten sat. 8", "absent", text="8", last_n=1)
    assert passes("", "absent", text="page 3")


def test_an_order_needs_one_place_before_another() -> None:
    assert passes("one two one", "order", before="two", after="one")
    assert passes("one two one", "order", before="one", after="two")
    assert not passes("one two", "order", before="two", after="one")
    assert not passes("one two", "order", before="two", after="three")
    assert passes("ona two", "order", before="one", after="two", max_diffs=1)
    assert not passes("", "order", before="one", after="two")


def test_a_cell_stands_where_it_should() -> None:
    text = "| Source | Words |\n|---|---|\n| arXiv | 12.2B |\n| books | 12.2B |"
    assert passes(text, "table", cell="12.2B", left="books", up="12.2B", top_heading="Words")
    assert not passes(text, "table", cell="12.2B", left="books", down="12.2B")
    assert passes(text, "table", cell="arXiv", down="book", max_diffs=1)
    assert not passes(text, "table", cell="pages")
    assert not passes(text, "table", cell="arXiv", ignore_markdown_tables=True)
    assert passes("<table><tr><td>arXiv</td></tr></table>", "table", cell="arXiv", ignore_markdown_tables=True)
    assert not passes("no table", "table", cell="arXiv")
    # However many differences are allowed, half of the text must be alike.
    assert not passes(text, "table", cell="12345678", max_diffs=8)


def test_a_page_is_sound() -> None:
    assert passes("Some text.", "baseline")
    assert not passes(" \n--", "baseline")
    assert passes("x" + "ab" * 30, "baseline")
    assert not passes("x" + "ab" * 31, "baseline")
    assert passes("ab" * 31 + "x", "baseline")
    assert not passes("text 中", "baseline")
    assert passes("text 中", "baseline", check_disallowed_characters=False)
    assert passes("", "baseline", max_length=0)
    assert not passes("abc", "baseline", max_length=2)
    image = {"max_length": 2, "max_length_skips_image_alt_tags": True}
    assert passes("![a long text](x.png) ab", "baseline", **image)


def test_a_footnote_has_its_marker_and_its_neighbours() -> None:
    for marker in ("[^12]", "<sup>12</sup>", "<SUP class='a'>12</SUP>", "¹²"):
        assert passes(f"as said{marker} before", "footnote", marker="12")
    assert not passes("[^12]: a definition, and 12", "footnote", marker="12")
    assert passes(
        "As was said,[^1] once", "footnote", marker="1", appears_before_marker="said", appears_after_marker="once"
    )
    assert not passes("As was said,[^1] once", "footnote", marker="1", appears_before_marker="once")


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ({"type": "math", "math": "x"}, "no unit test of type 'math'"),
        ("present", "no unit test of type None"),
        ({"type": "present", "text": " "}, "needs a text as `text`"),
        ({"type": "order", "before": "a"}, "needs a text as `after`"),
        ({"type": "table"}, "needs a text as `cell`"),
        ({"type": "present", "text": "a", "max_diffs": -1}, "expected a number from 0 as `max_diffs`"),
        ({"type": "order", "before": "abc", "after": "abcdef", "max_diffs": 2}, "more than half of a text"),
        ({"type": "footnote", "marker": "1 2"}, "its marker has no blanks"),
    ],
)
def test_tests_that_cannot_be_run(test: Any, said: str) -> None:
    assert said in problem(test)
    with pytest.raises(ValueError, match=re.escape(said)):
        read_tests(json.dumps([test]))


def test_the_share_of_tests_passed() -> None:
    tests = read_tests('[{"type": "present", "text": "a"}, {"type": "present", "text": "b"}, {"type": "baseline"}]')
    assert share_passed("a", tests) == pytest.approx(2 / 3)


WORDS = [
    "<br>",
    "The",
    "quick",
    "“brown”",
    "fox",
    "–",
    "jumps",
    "**over**",
    "it_s",
    "lazy",
    "_dog_",
    "Total:",
    "12.50",
    "é",
    "<b>x</b>",
]


def stated_again(text: str, test: dict[str, Any]) -> bool:
    """The rules for texts, in other words: search by `fuzzysearch` and `rapidfuzz` on texts that are made alike."""

    def alike(part: str) -> str:
        part = part.replace("<br>", " ").replace("<b>", "").replace("</b>", "")
        part = re.sub(r"\*\*([^\n]*?)\*\*", r"\1", part)
        part = re.sub(" +", " ", re.sub(r"_([^\n]*?)_", r"\1", part))
        for fancy, plain in (("“", '"'), ("”", '"'), ("–", "-")):
            part = part.replace(fancy, plain)
        return unicodedata.normalize("NFC", part)

    most = test["max_diffs"]
    if test["type"] == "order":
        first, second = (
            find_near_matches(alike(test[name]), alike(text), max_l_dist=most) for name in ("before", "after")
        )
        return any(one.start < other.start for one in first for other in second)
    wanted = alike(test["text"])
    is_there = partial_ratio(wanted, alike(text)) / 100 >= 1 - most / len(wanted)
    return is_there == (test["type"] == "present")


def test_600_made_answers_have_the_verdicts_of_the_rules_stated_again() -> None:
    rng = random.Random(0)
    verdicts: dict[tuple[str, bool], int] = {}
    for _ in range(600):
        words = rng.choices(WORDS, k=rng.randint(4, 30))
        text = " ".join(words)
        said = [word if rng.random() > 0.15 else word[::-1] for word in words]
        kind = rng.choice(["present", "absent", "order"])
        most = rng.randint(0, 2)
        parts = [" ".join(said[at : at + 3]) for at in rng.choices(range(len(said) - 2), k=2)]
        test = {"type": kind, "max_diffs": most, "text": parts[0], "before": parts[0], "after": parts[1]}
        if problem(test) or "_" in parts[0] + parts[1] or "*" in parts[0] + parts[1]:
            test |= {"text": "fox jumps", "before": "quick fox", "after": "Total: 12.50", "max_diffs": most}
        verdict = TestedPage(text).passes(test)
        assert verdict == stated_again(text, test), (text, test)
        verdicts[kind, verdict] = verdicts.get((kind, verdict), 0) + 1
    assert (
        min(verdicts.get((kind, verdict), 0) for kind in ("present", "absent", "order") for verdict in (True, False))
        > 20
    )


@pytest.mark.parametrize(
    ("package", "test"),
    [("fuzzysearch", {"type": "order", "before": "a", "after": "b"}), ("bs4", {"type": "table", "cell": "a"})],
)
def test_what_is_not_installed_is_said(package: str, test: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PerpoError) as caught:
        TestedPage("any text").passes(test)
    assert caught.value.hint == "pip install 'perpo[pages]'"


def test_where_a_text_stands_does_not_depend_on_the_hash_seed() -> None:
    """fuzzysearch keeps places that overlap in a set; of equally good ones the first must stand for them."""
    code = (
        "import random; from perpo.texts.unit_tests import _starts; rng = random.Random(5)\n"
        "draw = lambda n: ''.join(rng.choice('abc ') for _ in range(n))\n"
        "print([_starts(draw(7), draw(60), most) for most in (0, 1, 2, 3) for _ in range(50)])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(told) == 1


def test_exact_places_count_even_where_they_overlap() -> None:
    assert _starts("aa", "aaa b aa", 0) == [0, 1, 6]
    assert _starts("abcd", "xx abXd yy abcd", 1) == [3, 11]
