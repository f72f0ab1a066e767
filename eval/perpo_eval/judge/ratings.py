"""Ratings read from what a judge wrote, by our rule and by the official scripts' rules. Pure functions.

Our rules read what can only mean one thing and nothing else: what they cannot read is missing, never a number. A pair
that the official script counts is counted as it does, on the asked scale or not, for leaving it out would flatter whom
the judge marks down. The official rules are those of LLaVA's eval_gpt_review_bench.py and of LLaVA-RLHF's
eval_gpt_mmhal.py; they are here so that their numbers can stand beside ours.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from perpo.answers import answer_of

PAIR_RANGE = (1.0, 10.0)
"""The scale that LLaVA-Bench's judge is asked for."""
MMHAL_RANGE = (0, 6)
"""The scale that MMHal-Bench's judge is asked for."""
OUT_OF_SCALE = "out_of_scale"
"""The flag of a rating outside of the scale that the judge was asked for."""
TWO_RATINGS = "two_ratings"
"""The flag of a text with more than one rating, not all the same."""

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_OF_TEN = r"(?:\s*(?:/|out\s+of)\s*10(?![0-9.]))"
_BETWEEN = r"(?:\s*[,;/|&]\s*|\s+and\s+|\s+)"
_TITLE = r"(?:the\s+)?(?:(?:final|overall)\s+)?(?:scores?|ratings?|overall)(?:\s+are)?\s*[:=]?\s*"
_PAIR = rf"(?:({_NUMBER}){_OF_TEN}{_BETWEEN}({_NUMBER}){_OF_TEN}|({_NUMBER}){_BETWEEN}({_NUMBER}))"
_PAIR_LINE = re.compile(rf"{_PAIR}\s*\.?")
_TITLED_LINE = re.compile(rf"{_TITLE}{_PAIR}(?:\s*$|\s*[.;,](?:\s|$))", re.IGNORECASE)
_ONE_OF_TEN = re.compile(rf"(?:{_TITLE})?{_NUMBER}\s*/\s*10(?:\.0+)?\s*(?:$|[.;,](?:$|\s+(?![0-9])))", re.IGNORECASE)
_ASSISTANT = re.compile(
    rf"\bassistant\s*([12])(?:'s)?\s*(?:\(?(?:scores?|rating)\)?)?\s*(?:[:=|(-]|\bis\b|\bgets\b|\breceives\b)\s*"
    rf"({_NUMBER}){_OF_TEN}?"
    r"(?=\s*(?:$|[,;)|]|\.(?:\s|$)|and\b|while\b|points?\b|assistant\b))",
    re.IGNORECASE | re.MULTILINE,
)
_RATING = re.compile(
    rf"\brating\b\s*(?:\([^()\n]*\)\s*)?(?:(?P<label>[:=-]|\bis:)|\bis\b|\bof\b)[\s\[(']*(?P<number>[+-]?{_NUMBER})"
    rf"(?P<rest> *(?:/|out +of) *{_NUMBER}| *- *[0-9]| +(?:or|to) +[0-9])?",
    re.IGNORECASE,
)


def parse_pair_rating(text: str) -> tuple[float, float] | None:
    """Read LLaVA-Bench's two scores.

    The first line counts as the official script reads it, if that does: two numbers, also "0 9", which judges say of
    an empty answer. Else the first line that is nothing but two numbers counts ("8 9", "8, 9", "8.5/9", "8/10 and
    9/10"; with a title, as in "Scores: 8 and 9", a sentence may follow), else the two numbers that are given to
    "Assistant 1" and "Assistant 2" by name. One number of ten ("8/10"), different numbers for one assistant, and
    numbers in running text are not read.

    Returns:
        The scores of the first and of the second answer, on the scale of 1 to 10 if the judge kept to it (see
        `out_of_scale`); None if they cannot be read.
    """
    if (pair := _first_line_pair(text)) is not None:
        return pair
    answer = _answer(text)
    pairs = _pair_lines(answer) or _named_pair(answer)
    return pairs[0] if pairs else None


def out_of_scale(pair: Sequence[float]) -> bool:
    """Return whether one of LLaVA-Bench's two scores lies outside of the scale that the judge was asked for."""
    return not all(PAIR_RANGE[0] <= score <= PAIR_RANGE[1] for score in pair)


def parse_mmhal_rating(text: str) -> int | None:
    """Read MMHal-Bench's rating: the last number that is labelled as one ("Rating: 4", "**Rating:** 4", "rating:3").

    A sentence ("a rating of 4") counts where nothing is labelled: beside a label it may tell of any other rating.

    Returns:
        0 (worst) to 6; None if there is no labelled number, or the last one is out of range, of another scale
        ("4/10"), a range ("3-4") or no whole number.
    """
    ratings = _mmhal_ratings(text)
    return ratings[-1] if ratings else None


def pair_flags(text: str) -> list[str]:
    """Return what is odd about a text of LLaVA-Bench's judge.

    `TWO_RATINGS` if two of its lines hold different pairs, `OUT_OF_SCALE` if the pair that counts is off the scale.
    """
    flags = [TWO_RATINGS] if len(set(_pair_lines(_answer(text)))) > 1 else []
    pair = parse_pair_rating(text)
    return [*flags, OUT_OF_SCALE] if pair is not None and out_of_scale(pair) else flags


def mmhal_flags(text: str) -> list[str]:
    """Return what is odd about a text of MMHal-Bench's judge: `TWO_RATINGS` if it is rated twice, not the same."""
    return [TWO_RATINGS] if len(set(_mmhal_ratings(text))) > 1 else []


def official_pair_rating(text: str) -> tuple[float, float]:
    """Return what LLaVA's script counts: the first line's two numbers, whatever they are; (-1, -1) where it fails.

    It cuts at single spaces, a comma being one, so that "8, 9" fails. Numbers that are not finite are taken
    for failures here.
    """
    return _first_line_pair(text) or (-1.0, -1.0)


def official_mmhal_rating(text: str) -> int:
    """Return what MMHal's script counts: the one digit from 0 to 6 that follows "rating: " somewhere, in any case.

    0, a hallucination, if there is none or more than one; "Rating: 10" counts 1.
    """
    said = [score for score in range(7) if f"rating: {score}" in text.lower()]
    return said[0] if len(said) == 1 else 0


def _first_line_pair(text: str) -> tuple[float, float] | None:
    """The first line's two numbers as LLaVA's script reads them, or None."""
    words = text.split("\n")[0].replace(",", " ").split(" ")
    try:
        first, second = (float(word) for word in words)
    except ValueError:  # also of more or fewer than two words
        return None
    return (first, second) if math.isfinite(first) and math.isfinite(second) else None


def _answer(text: str) -> str:
    """The answer of a judge (`perpo.answers`), without Markdown's marks."""
    said = answer_of(text, "text") or ""
    return re.sub(r"[*_`#\"]", "", unicodedata.normalize("NFKC", said).replace("–", "-").replace("\u2019", "'"))


def _pair_lines(answer: str) -> list[tuple[float, float]]:
    """The pairs of the lines that are nothing but a pair."""
    pairs = []
    for line in answer.splitlines():
        bare = re.sub(r"[()\[\]]", "", line).strip()
        match = None if _ONE_OF_TEN.match(bare) else _PAIR_LINE.fullmatch(bare) or _TITLED_LINE.match(bare)
        if match:
            first, second = (score for score in match.groups() if score is not None)
            pairs.append((float(first), float(second)))
    return pairs


def _named_pair(answer: str) -> list[tuple[float, float]]:
    """The one number of Assistant 1 and the one of Assistant 2, as a list of one pair; empty if that is not so."""
    named = [{float(score) for name, score in _ASSISTANT.findall(answer) if name == number} for number in "12"]
    return [(named[0].pop(), named[1].pop())] if [len(scores) for scores in named] == [1, 1] else []


def _mmhal_ratings(text: str) -> list[int | None]:
    """The labelled numbers in order, else those of sentences; None for those that are no rating."""
    matches = list(_RATING.finditer(_answer(text)))
    labelled = [match for match in matches if match["label"]]
    return [_mmhal_rating(match) for match in labelled or matches]


def _mmhal_rating(match: re.Match[str]) -> int | None:
    rest = " ".join((match["rest"] or "").replace("/", " / ").split())
    value = float(match["number"])
    whole = value.is_integer() and MMHAL_RANGE[0] <= value <= MMHAL_RANGE[1]
    return int(value) if whole and rest in ("", "/ 6", "out of 6") else None
