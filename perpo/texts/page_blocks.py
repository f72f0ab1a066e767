r"""Blocks of text on a page, and the form in which OmniDocBench's official script (1.6) compares them.

The script takes pictures, tables and formulas of their own lines out of an answer in Markdown and splits the rest at
empty lines. Its rules are restated here for what is text. Two are ours: a table in Markdown is two or more lines that
begin and end with "|"; and what the script saves from tables and pictures that it could not place is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from perpo.texts.inline_formulas import formulas_as_letters

_PICTURE = re.compile(r"!\[.*?\]\(.*?\)")
_FENCE_BEGINS = re.compile(r"^```(?:markdown|html|latex)\n?", re.MULTILINE)
_FENCE_ENDS = re.compile(r"```\n?$", re.MULTILINE)
_WHOLE_PAGE = re.compile("</?(?:html|body)>")
_LONG_RUNS = ((re.compile("_{4,}"), "____"), (re.compile(" {4,}"), "    "))
_LATEX_TABLE = re.compile(r"\\begin{table}.*?\\end{table}", re.DOTALL)
_TABLES = (
    (re.compile(r"\\begin{tabular}"), re.compile(r"\\end{tabular}")),
    (re.compile("<table[^>]*>"), re.compile("</table>")),
)
_FORMULA = re.compile(r"\$\$.*?\$\$|\\\[.*?\\\]|\$.*?\$|\\\(.*?\\\)", re.DOTALL)
_INLINE = re.compile(r"\$.*?\$|\\\(.*?\\\)", re.DOTALL)
_NAMED = tuple(
    re.compile(rf"{name}\{{\s*(.*?)\s*\}}", re.DOTALL) for name in (r"\\title\s*", r"\\text\s*", r"\\section\*?")
)
_TAGGED = re.compile(r"<(?:div|dir)\b", re.IGNORECASE)
_CIRCLED = {
    **{0x2460 + number: str(number + 1) for number in range(20)},
    **{0x24B6 + number: chr(ord("A") + number) for number in range(26)},
    **{0x24D0 + number: chr(ord("a") + number) for number in range(26)},
}
_CIRCLING = re.compile(r"\\textcircled\s*\{\s*([^{}]+?)\s*\}")
_TAKEN_OUT = ("\\t", "\\n", "\t", "\n", "/t", "/n")  # one after the other
_NO_WORD = re.compile(r"[^\w]")


def letters_of(text: str) -> str:
    """Return the letters, digits and underscores of a text: spaces, marks and Markdown's signs do not count.

    Formulas within a line become letters, circled numbers and letters plain ones. As in the script, a "t" or "n"
    behind a slash of either kind is lost with it, in both texts that are compared.
    """
    text = _uncircled(formulas_as_letters(_uncircled(text)))
    for part in _TAKEN_OUT:
        text = text.replace(part, "")
    return _NO_WORD.sub("", text)


def _uncircled(text: str) -> str:
    return _CIRCLING.sub(lambda match: match[1].strip(), text).translate(_CIRCLED)


def blocks_of(answer: str) -> list[str]:
    """Return the blocks of text of an answer in Markdown, in their order; tables and formulas of their own are none."""
    text = _FENCE_ENDS.sub("", _FENCE_BEGINS.sub("", _PICTURE.sub(" ", answer)))
    for run, shorter in _LONG_RUNS:
        text = run.sub(shorter, text)
    text = _LATEX_TABLE.sub(" ", _WHOLE_PAGE.sub("", text))
    for begins, ends in _TABLES:
        text = "".join(_outside(text, begins, ends))
    text = _without_markdown_tables(_FORMULA.sub(_left_of_formula, text))
    for name in _NAMED:
        text = name.sub(r"\1", text)
    parts = text.split("\n\n")
    if len(parts) == 1:  # some models leave no line empty
        parts = text.split("\n")
    return [block for part in parts if (block := _without_tags(part.strip()))]


def _left_of_formula(match: re.Match[str]) -> str:
    """Nothing of a formula of its own; one within a line stays, and with it what the script takes for one."""
    formula = match[0]
    if formula.startswith("\\["):
        return formula if _INLINE.search(formula) else " "
    return " " if formula.startswith("$$") and len(formula) > 4 else formula


def _outside(text: str, begins: re.Pattern[str], ends: re.Pattern[str]) -> Iterator[str]:
    """The parts of a text outside of such pairs, which may lie in each other; a mark without its other one stays."""
    marks = [(mark, True) for mark in begins.finditer(text)] + [(mark, False) for mark in ends.finditer(text)]
    opened: list[int] = []
    inside: list[tuple[int, int]] = []
    for match, opens in sorted(marks, key=lambda mark: mark[0].start()):
        if opens:
            opened.append(match.start())
        elif opened:
            begin = opened.pop()
            inside = [span for span in inside if span[0] < begin]
            inside.append((begin, match.end()))
    place = 0
    for begin, end in inside:
        yield text[place:begin] + " "
        place = end
    yield text[place:]


def _without_markdown_tables(text: str) -> str:
    kept: list[str] = []
    rows: list[str] = []
    for line in [*text.split("\n"), ""]:
        if len(line.strip()) > 1 and line.strip()[0] == line.strip()[-1] == "|":
            rows.append(line)
            continue
        kept += rows if len(rows) == 1 else [""] * bool(rows)
        rows = []
        kept.append(line)
    return "\n".join(kept[:-1])


def _without_tags(block: str) -> str:
    """The text of a block that begins with a `<div>`; any other as it is, tags included, as in the script."""
    if not _TAGGED.match(block) or "<table" in block.lower():
        return block
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(block, "html.parser")
    for tag in soup.find_all(["style", "script"]):
        tag.decompose()
    return soup.get_text(separator="").strip() or block
