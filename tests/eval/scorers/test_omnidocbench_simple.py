"""OmniDocBench's text and reading order, against the official formulas, written down again, on made answers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest

from perpo.models.families import FAMILIES
from perpo.texts.page_blocks import blocks_of, letters_of
from perpo_eval.benchmarks.omnidocbench_simple import OMNIDOCBENCH_SIMPLE
from perpo_eval.scorers.omnidocbench_simple import score_page_blocks

WORDS = ("Der", "naïve", "café", "x_1", "3.14", "模型", "的", "(a)", "“so”", "end.", "ﬁn", "A-B", "50%")
NOT_COUNTED = ("figure_caption", "header", "page_number", "table_footnote")
COUNTED = ("text_block", "title", "reference")
FORMULAS = {"$x^2$": "x2", "$\\alpha_1$": "α_1", "\\(a_{b}\\)": "a_b", "$5$": "5", "$\\frac{a}{b}$": "ab"}
"""Formulas within lines, and the letters that stay of them."""
BESIDE = (
    *("<table><tr><td>no <table>text</table></td></tr></table>", "| a | b |\n|---|---|\n| c | d |"),
    *("$$\nE = mc^2\n\n$$", "\\[ a + b \\]", "![a picture](x.png)", "\\begin{tabular}{ll} a & b \\end{tabular}"),
)
"""Parts of an answer that are no text."""


def plain_distance(one: str | Sequence[Any], other: str | Sequence[Any]) -> int:
    """Levenshtein's distance, row by row."""
    row = list(range(len(other) + 1))
    for place, said in enumerate(one, start=1):
        above, row = row, [place]
        for column, wanted in enumerate(other, start=1):
            row.append(min(row[-1] + 1, above[column] + 1, above[column - 1] + (said != wanted)))
    return row[-1]


def plain_letters(text: str) -> str:
    for formula, letters in FORMULAS.items():
        text = text.replace(formula, letters)
    return "".join(letter for letter in text if letter.isalnum() or letter == "_")


def official(blocks: list[dict[str, Any]], said: list[str]) -> set[tuple[float | None, float | None]]:
    """Text edit distance and reading order of a page, for every best one-to-one match of its blocks."""
    true, said = [plain_letters(block["text"]) for block in blocks], [plain_letters(text) for text in said]
    size = max(len(true), len(said))
    cost = {
        (row, column): plain_distance(true[row], said[column]) / max(len(true[row]), len(said[column]))
        for row in range(len(true))
        for column in range(len(said))
    }
    totals = {
        order: sum(cost.get((row, column), 0.0) for row, column in enumerate(order))
        for order in itertools.permutations(range(size))
    }
    # Who has no partner costs nothing in the match, so only full matches of the fewer side are compared.
    least = min(totals.values())
    best = [order for order, total in totals.items() if total <= least + 1e-12]
    return {measured(blocks, true, said, dict(enumerate(order))) for order in best}


def measured(
    blocks: list[dict[str, Any]], true: list[str], said: list[str], partner: dict[int, int]
) -> tuple[float | None, float | None]:
    changed = length = 0
    orders, read = [], []
    for row, block in enumerate(blocks):
        column = partner[row]
        answer = said[column] if column < len(said) else ""
        if block["category"] in NOT_COUNTED:
            continue
        changed += plain_distance(true[row], answer)
        length += max(len(true[row]), len(answer))
        if block["order"] is not None:
            orders.append(block["order"])
            read += [(column, block["order"])] if column < len(said) else []
    alone = "".join(said[column] for row, column in sorted(partner.items(), key=lambda pair: pair[1])
                    if row >= len(true) and column < len(said))  # fmt: skip
    changed, length = changed + len(alone), length + len(alone)
    order = [place for _, place in sorted(read)]
    reading = plain_distance(order, sorted(orders)) / max(len(order), len(orders)) if orders else None
    return (round(changed / length, 12) if length else None, None if reading is None else round(reading, 12))


def made_page(rng: random.Random) -> list[dict[str, Any]]:
    blocks = []
    for place in range(1, rng.randint(1, 5) + 1):
        words = [rng.choice(WORDS) for _ in range(rng.randint(1, 6))]
        if rng.random() < 0.3:
            words.append(rng.choice(list(FORMULAS)))
        counted = rng.random() < 0.75
        category = rng.choice(COUNTED if counted else NOT_COUNTED)
        order = place if counted or rng.random() < 0.2 else None
        blocks.append({"category": category, "text": " ".join(words), "order": order})
    return blocks


def made_answer(rng: random.Random, blocks: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """An answer in Markdown, and the texts of its blocks."""
    texts = [block["text"] for block in blocks if rng.random() < 0.85]
    if rng.random() < 0.4:
        rng.shuffle(texts)
    if rng.random() < 0.3:
        texts.append("something else")
    if len(texts) > 1 and rng.random() < 0.2:
        texts[0:2] = [f"{texts[0]}\n{texts[1]}"]
    texts = [text if rng.random() < 0.5 else text.replace("e", "").replace("模", "木") for text in texts]
    texts = [text for text in texts if plain_letters(text)][:5]
    if len(texts) < 2:
        return "\n\n".join(["", *texts, ""]), texts
    parts = [f"# {text}" if rng.random() < 0.2 else text for text in texts]
    for _ in range(rng.randint(0, 2)):
        parts.insert(rng.randint(0, len(parts)), rng.choice(BESIDE))
    return "\n\n".join(parts), texts


def test_made_answers_have_the_official_scores() -> None:
    rng = random.Random(0)
    changed = orders = 0
    for number in range(600):
        blocks = made_page(rng)
        answer, texts = made_answer(rng, blocks)
        assert [plain_letters(block) for block in blocks_of(answer)] == list(map(plain_letters, texts)), (
            number,
            answer,
        )
        scores = score_page_blocks(answer, {"language": "english", "blocks": blocks})
        told = tuple(
            None if scores[name] is None else round(scores[name], 12) for name in ("text_edit", "reading_order")
        )
        assert told in official(blocks, texts), (number, blocks, answer)
        assert scores["text_edit:english"] == scores["text_edit"]
        ordered = "\n\n".join(plain_letters(block["text"]) for block in blocks if block["order"])
        said = "\n\n".join(map(plain_letters, texts))
        page = plain_distance(said, ordered) / max(len(said), len(ordered)) if ordered else None
        assert scores["page_edit"] == (None if page is None else pytest.approx(page))
        changed += bool(scores["text_edit"])
        orders += bool(scores["reading_order"])
    assert changed > 300  # the made answers are not all right
    assert orders > 100


BLOCKS = [
    {"category": "header", "text": "Page 3", "order": None},
    {"category": "title", "text": "One", "order": 1},
    {"category": "text_block", "text": "two words", "order": 2},
    {"category": "text_block", "text": "three", "order": 3},
]


@pytest.mark.parametrize(
    ("answer", "text", "order"),
    [
        ("# One\n\ntwo words\n\nthree", 0.0, 0.0),
        ("Page 3\n\n# One\n\ntwo words\n\nthree", 0.0, 0.0),  # what need not be read may be read
        ("One\ntwo words\nthree", 0.0, 0.0),  # without empty lines a line is a block
        ("three\n\nOne\n\ntwo words", 0.0, 2 / 3),
        ("One\n\nthree", 8 / 16, 1 / 3),
        ("", 1.0, 1.0),
        ("One\n\ntwo words\n\nthree\n\nmore", 0.0, 0.0),  # it goes to the header, as the one block left
    ],
)  # fmt: skip
def test_pages_by_hand(answer: str, text: float, order: float) -> None:
    scores = score_page_blocks(answer, {"language": "english", "blocks": BLOCKS})
    assert (scores["text_edit"], scores["reading_order"]) == (pytest.approx(text), pytest.approx(order))


def test_blocks_without_a_partner_count_whole() -> None:
    scores = score_page_blocks("One\n\nmore", {"language": "english", "blocks": BLOCKS[1:2]})
    assert scores["text_edit"] == pytest.approx(4 / 7)


def test_a_page_of_which_nothing_counts_has_no_scores() -> None:
    scores = score_page_blocks("Page 3", {"language": "english", "blocks": BLOCKS[:1]})
    assert set(scores.values()) == {None}


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("A b\tc\n", "Abc"),
        ("① and \\textcircled{b} Ⓒ", "1andbC"),
        ("and/or, and/not", "andorandot"),  # the script takes "/n" for a break of a line
        ("$\\text{only words of some sentence}$", "extonlywordsofsomesentence"),  # "\\t" goes, as a tab
        ("$x_{1", "x_1"),
        ("$\\sqrt{x}$ and \\(\\beta\\)", "xandβ"),
        ("$\\begin{cases} a \\end{cases}$", "begincasesaendcases"),
    ],
)
def test_letters(text: str, letters: str) -> None:
    assert letters_of(text) == letters


@pytest.mark.parametrize(
    ("answer", "blocks"),
    [
        ("```markdown\nA\n\nB\n```", ["A", "B"]),
        ("A <table>x\n\ny</table> B\n\nC", ["AB", "C"]),
        ("A <table> B\n\nC", ["AtableB", "C"]),  # never closed
        ("|one row|\n\nC", ["onerow", "C"]),
        ("A\n| b |\n| c |\nD\n\nE", ["A", "D", "E"]),
        ("A $b$ \\[ c \\] D\n\nE", ["AbD", "E"]),
        ("costs $$5 and $$6\n\nE", ["costs6", "E"]),
        ('<div align="center">Figure 1</div>\n\nE', ["Figure1", "E"]),
        ("\\section{A \\text{b}}\n\n\\title{C}", ["Ab", "C"]),
        ("____________\n\nE", ["____", "E"]),
    ],
)  # fmt: skip
def test_blocks(answer: str, blocks: list[str]) -> None:
    assert list(map(letters_of, blocks_of(answer))) == blocks


def test_an_answer_that_cannot_be_read_is_all_wrong() -> None:
    scored = OMNIDOCBENCH_SIMPLE.score(
        "<think>One", {"language": "english", "blocks": BLOCKS}, (2, 2), FAMILIES["llava"]
    )
    assert (scored.readable, scored.prediction, scored.scores["text_edit"]) == (False, None, 1.0)
