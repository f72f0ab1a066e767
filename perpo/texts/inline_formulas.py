"""Formulas within a line of text as letters: "$x^{2}$" as "x^2", as OmniDocBench's official script (1.6) reads them."""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import Any

from perpo.errors import PerpoError

_INLINE = re.compile(r"\$(?P<dollars>.*?)\$|\\\((?P<brackets>.*?)\\\)")
_ESCAPED = re.compile(r"\\[\\_&%^]")
_LONGEST = 128
_MANY_LINES = (
    *("\\begin{", "\\end{", "\\array", "\\matrix", "\\tabular", "\\cases", "\\align"),
    *("\\\\", "&"),
)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_SIGN = re.compile(r"\\[A-Za-z]+|[_^{}$]|\\[\[\]()]]|&|%|#")  # the odd bracket is the script's
_WORD = re.compile(r"[A-Za-z]{3,}")
_NO_NOISE = "{}$^_"
_NO_NOISE_WORDS = ("\\frac", "\\sqrt", "\\left", "\\right", "\\begin", "\\end", "\\sum", "\\int", "\\alpha", "\\beta")


def formulas_as_letters(text: str) -> str:
    """Return a text with its formulas in single lines as Unicode letters, without the marks around them.

    A formula of plain letters keeps its marks, and so does one that the script does not try: over 128 characters, of
    several lines, or with braces that do not pair.
    """
    return _INLINE.sub(_as_letters, text)


def _as_letters(match: re.Match[str]) -> str:
    content = _ESCAPED.sub("", match["dollars"] if match["dollars"] is not None else match["brackets"])
    if not any(sign in content for sign in "\\^_"):
        return match[0]
    if len(content.strip()) > _LONGEST or content.count("{") != content.count("}"):
        return match[0]
    if any(sign in content for sign in _MANY_LINES):
        return match[0]
    return _converted(content + " " * content.endswith("\\"), content.strip()).strip()


def _converted(latex: str, fallback: str) -> str:
    said = latex.strip()
    if not any(sign in said for sign in "\\{}$") or _is_prose(said) or _is_weak(said) or _is_broken(said):
        return fallback
    try:
        return str(_converter().latex_to_text(said))
    except PerpoError:
        raise
    except Exception:  # whatever a hostile formula leads to: the script keeps it as it is
        return fallback


def _is_prose(said: str) -> bool:
    """Whether a "formula" is a sentence between two dollar signs."""
    if len(said) < 32 or len(_SIGN.findall(said)) > 2:
        return False
    if any(sign in said for sign in _NO_NOISE) or any(word in said for word in _NO_NOISE_WORDS):
        return False
    return len(_WORD.findall(said)) >= 6 and said.count(" ") >= 5


def _is_weak(said: str) -> bool:
    commands, words = len(_COMMAND.findall(said)), len(_WORD.findall(said))
    signs = sum(letter in "{}$^_=&%#" for letter in said)
    if said.endswith("\\") and not said.endswith("\\\\") and not commands:
        return True
    if "\\" in said and not commands and not signs:
        return True
    return (words >= 2 and not commands and signs <= 1) or (words >= 4 and commands <= 1 and signs <= 2)


def _is_broken(said: str) -> bool:
    depth = 0
    for brace in re.finditer(r"\\[{}\[\]()]|[{}]", said):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth < 0:
            return True
    paired = [(r"\\left\b", r"\\right\b"), (r"\\\(", r"\\\)"), (r"\\\[", r"\\\]")]
    uneven = any(len(re.findall(one, said)) != len(re.findall(other, said)) for one, other in paired)
    return depth != 0 or uneven or len(re.findall(r"(?<!\\)\$", said)) % 2 != 0


@cache
def _converter() -> Any:
    try:
        from pylatexenc.latex2text import LatexNodes2Text
    except ImportError as error:
        raise PerpoError(
            "formulas in lines of text are read with pylatexenc, which is not installed", "pip install 'perpo[pages]'"
        ) from error
    logging.getLogger("pylatexenc").setLevel(logging.ERROR)
    return LatexNodes2Text()
