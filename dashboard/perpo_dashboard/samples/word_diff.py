"""Compare an answer with the truth, word by word. No Streamlit."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Levenshtein

_WORD = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\\s\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_MOST = 10_000


@dataclass(frozen=True)
class Stretch:
    """A stretch of text with the white space behind it: in both, only in the truth, or only in the answer."""

    kind: Literal["both", "truth", "answer"]
    text: str
    words: int


@dataclass(frozen=True)
class Differences:
    """An answer held against the truth.

    Attributes:
        parts: In the order of reading; where words were changed, the truth's come first.
        cut: Whether only the first 10,000 words of each were held against each other.
    """

    parts: list[Stretch]
    cut: bool

    def count(self, kind: str) -> int:
        """Count the words of one kind."""
        return sum(part.words for part in self.parts if part.kind == kind)


def differences(truth: str, answer: str) -> Differences:
    """Return where two texts differ: fewest words added, dropped and changed. A Chinese or Japanese character is a
    word.
    """
    told, said = list(_WORD.finditer(truth)), list(_WORD.finditer(answer))
    cut = max(len(told), len(said)) > _MOST
    told, said = told[:_MOST], said[:_MOST]
    parts = []
    for code in Levenshtein.opcodes([word[0] for word in told], [word[0] for word in said]):
        if code.tag == "equal":
            parts.append(_part("both", answer, said, code.dest_start, code.dest_end))
            continue
        if code.src_end > code.src_start:
            parts.append(_part("truth", truth, told, code.src_start, code.src_end))
        if code.dest_end > code.dest_start:
            parts.append(_part("answer", answer, said, code.dest_start, code.dest_end))
    return Differences(parts, cut)


def _part(
    kind: Literal["both", "truth", "answer"], text: str, words: list[re.Match[str]], first: int, last: int
) -> Stretch:
    end = words[last].start() if last < len(words) else words[last - 1].end()
    return Stretch(kind, text[words[first].start() : end], last - first)


def as_html(diff: Differences, truth: str, answer: str) -> str:
    """Return the differences as HTML in which every piece of text is escaped.

    Args:
        diff: What `differences` gave.
        truth: Colour of what is only in the truth, such as "#009e73"; it is struck out.
        answer: Colour of what is only in the answer; it is underlined.
    """
    body = marked(diff.parts, {"truth": truth, "answer": answer})
    return f'<div dir="auto" style="white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.6">{body}</div>'


def marked(parts: Sequence[Stretch], colours: dict[str, str]) -> str:
    """Return stretches of text as HTML: the truth's struck out, the answer's underlined, every text escaped."""
    return "".join(_marked(parts, colours))


def _marked(parts: Sequence[Stretch], colours: dict[str, str]) -> Iterator[str]:
    for part in parts:
        text = part.text.rstrip()
        space = html.escape(part.text[len(text) :])
        if part.kind == "both":
            yield html.escape(part.text)
            continue
        tag = "del" if part.kind == "truth" else "ins"
        style = f"background:{colours[part.kind]}55;border-radius:3px;padding:0 2px"
        yield f'<{tag} style="{style}">{html.escape(text)}</{tag}>{space or " "}'
