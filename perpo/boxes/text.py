"""Find the boxes in a text: in marks, JSON, named corners, brackets, or bare. What the numbers mean: `perpo.boxes`.

No torch. Everything here takes time in proportion to the length of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from perpo.answers import answer_of

Four = tuple[float, float, float, float]


class Numbers(NamedTuple):
    """Four numbers that a text gives as a box.

    Attributes:
        values: In the order of the text; where they are named, x1, y1, x2, y2.
        named: Whether the text says which number is which, so that no declared order applies.
        percent: Whether they carry percent signs.
    """

    values: Four
    named: bool = False
    percent: bool = False


_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_ONE = rf"(?>{_NUMBER})(?:\s?(?:px|pixels?|%))?(?![A-Za-z0-9_]|\.[0-9])"
_BREAK = r"(?:[\"'\s]*+[,;][\"'\s]*+|>\s*+<|\s++)"
_RUN = re.compile(rf"(?<![A-Za-z0-9_.+-]){_ONE}(?:{_BREAK}{_ONE})*+")
_ALONE = re.compile(rf"\s*({_NUMBER})\s*(?:px|pixels?|%)?\s*")
_EACH = re.compile(_NUMBER)
# "1. 100, 200, 300, 400": the number of a list's item, which is none of the box's.
_ITEM = re.compile(rf"^[ \t]*[0-9]{{1,3}}\.(?=[ \t]+{_ONE}(?:[ \t]*[,;][ \t]*{_ONE}|[ \t]+{_ONE}){{3}}[ \t.]*$)", re.M)
_BIN_RUN = re.compile(r"<loc[0-9]{4}>(?:\s*<loc[0-9]{4}>)*")

_MARKED = re.compile(r"(?:<b?box>|<\|box_start\|>|<\|det\|>)(.*?)(?:</b?box>|<\|box_end\|>|<\|/det\|>|\Z)", re.DOTALL)
# What is named is not where it is: numbers in it are those of a bus or a jersey.
_NAME = re.compile(r"<(?:ref|\|ref\||\|object_ref_start\|)>.*?(?:</ref>|<\|/ref\|>|<\|object_ref_end\|>|\Z)", re.DOTALL)
_FENCE = re.compile(r"```\w*")
_LATEX = re.compile(r"\\(?:left|right|big[lr]?|quad|[,;:! ])")

_KEYS = (
    "bbox_2d", "bbox", "bboxes", "box_2d", "box", "boxes", "bounding_box", "bounding_boxes", "boundingbox",
    "coordinates", "answer",
)  # fmt: skip
_KEY = re.compile(rf"(?<!\w)(?:([\"'])(?:{'|'.join(_KEYS)})\1|bbox(?:_2d)?)\s*+[:=]\s*+", re.IGNORECASE)
_BRACKET = re.compile(r"[\[({]|([\])}])")
_GOES_ON = re.compile(r"\s*,?\s*(?=[\[(])")

_CORNERS = ("x1 y1 x2 y2", "xmin ymin xmax ymax", "left top right bottom", "x0 y0 x1 y1")
_SIZES = ("x y w h", "x y width height", "left top width height")
_NAMED = re.compile(
    r"(?<![A-Za-z0-9])([xy]_?(?:min|max|[012])|left|top|right|bottom|width|height|[xywh])"
    rf"(?:[\"']?\s*+[:=]\s*+[\"']?|>)({_NUMBER})(\s?%)?",
    re.IGNORECASE,
)

_LAST_CORNER = r"(?:the\s+)?(?:bottom|lower)[-_\s]*right(?:\s+(?:corner|point))?(?:\s+(?:at|is))?|\(x2,\s*y2\)"
_LINK = re.compile(
    r"\s*(?P<close>[\])])?\s*(?P<word>(?:to|until|[-–—~→]|->|=>)\s*)?(?:[,;]?\s*(?:and\s+)?(?P<corner>"
    + _LAST_CORNER
    + r")|[,;])?[\s:=]*(?P<open>[\[(])?\s*",
    re.IGNORECASE,
)
_LONGEST_LINK = 60
_OTHER_CORNER = re.compile(r"(?:top|upper)[-_\s]*right|(?:bottom|lower)", re.IGNORECASE)

_PLAIN = str.maketrans(
    "０１２３４５６７８９−－﹣．，、；：＝％［］（）｛｝【】〔〕＜＞“”‘’",
    "0123456789---.,,;:=%[](){}[][]<>\"\"''",
)


@lru_cache(maxsize=64)  # a truth is read for each candidate, an answer in each frame
def numbers_in(text: str, *, bins: bool = False) -> tuple[Numbers, ...]:
    """Return the boxes of a response or a truth, in the order of the text.

    Only the answer is read (`perpo.answers.answer_of`). Boxes in marks (`<box>`, `<|box_start|>`, `<|det|>`) win over
    all else, then those under the keys of JSON (`bbox_2d`, `bbox`, ..., also where the JSON is cut), then named
    corners, then numbers in brackets or bare. A box is four numbers or two corners. More corners in one list are a
    polygon and no box; outside of a list, an even number of them are boxes if each two make one that is not empty.

    Args:
        text: What was said.
        bins: Read PaliGemma's `<locNNNN>` and nothing else.
    """
    said = answer_of(text, "box")
    if said is None:
        return ()
    if bins:
        runs = [[float(number) for number in re.findall(r"[0-9]{4}", run)] for run in _BIN_RUN.findall(said)]
        return tuple(Numbers(four) for run in runs for four in _fours(run))
    marked = _MARKED.findall(said) if "<" in said else []
    parts = marked or [_NAME.sub(" ", said) if "<" in said else said]
    return tuple(box for part in parts for box in _in_part(part))


def _in_part(text: str) -> list[Numbers]:
    bare = _FENCE.sub(" ", text).strip()
    if bare[:1] in ("[", "{"):
        try:
            return _in_json(json.loads(bare, parse_int=float))
        except (ValueError, RecursionError):
            pass  # cut, or not meant as JSON
    if not bare.isascii():
        bare = bare.translate(_PLAIN)
    if "\\" in bare:
        bare = _LATEX.sub(" ", bare).replace('\\"', '"')
    keys = list(_KEY.finditer(bare))
    if keys:
        ends = [key.start() for key in keys[1:]] + [len(bare)]
        values = [_value(bare, key.end(), end) for key, end in zip(keys, ends, strict=True)]
    else:
        values = [_ITEM.sub("", bare)]
    return [box for value in values for box in _by_name(value) or _in_brackets(value)]


def _in_json(value: Any) -> list[Numbers]:
    if isinstance(value, dict):
        held = [each for key, each in value.items() if key.lower() in _KEYS]
        if held:
            return [box for each in held for box in (_in_part(each) if isinstance(each, str) else _in_json(each))]
        corners = _corners(value)
        return [corners] if corners else _in_all(value.values())
    if not isinstance(value, list):
        return []
    numbers = [_number(each) for each in value]
    if len(value) == 2 and all(map(_is_point, value)):
        numbers = [_number(each) for point in value for each in point]
    if len(numbers) == 4 and None not in numbers:
        return [Numbers(tuple(numbers), percent="%" in str(value))]  # type: ignore[arg-type]
    if all(map(_is_point, value)) or None not in numbers:
        return []  # a polygon, or a count of numbers that is no box's
    return _in_all(value) or [box for each in value if isinstance(each, str) for box in _in_part(each)]


def _in_all(values: Iterable[Any]) -> list[Numbers]:
    return [box for each in values if isinstance(each, dict | list) for box in _in_json(each)]


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_number(each) is not None for each in value)


def _number(value: Any) -> float | None:
    """A number of JSON, also in quotes."""
    if isinstance(value, str):
        match = _ALONE.fullmatch(value)
        return None if match is None else float(match[1])
    return float(value) if isinstance(value, float | int) and not isinstance(value, bool) else None


def _corners(value: Mapping[str, Any]) -> Numbers | None:
    """The box of an object that names its corners."""
    named = {re.sub(r"[-_\s]", "", key).lower(): each for key, each in value.items()}
    ends = [named.get("topleft", named.get("upperleft")), named.get("bottomright", named.get("lowerright"))]
    if all(map(_is_point, ends)):
        return Numbers(tuple(float(each) for end in ends for each in end), named=True)  # type: ignore[union-attr,arg-type]
    numbers = {name: number for name, each in named.items() if (number := _number(each)) is not None}
    signed = {name for name in numbers if "%" in str(named[name])}
    return next(filter(None, (_box_of(names, numbers, signed) for names in (*_CORNERS, *_SIZES))), None)


def _by_name(text: str) -> list[Numbers]:
    """Boxes whose four numbers are named one after the other ("x1: 100, y1: ...")."""
    named_numbers = [
        (match[1].lower().replace("_", ""), float(match[2]), match[3] is not None) for match in _NAMED.finditer(text)
    ]
    boxes, place = [], 0
    while place + 4 <= len(named_numbers):
        four = named_numbers[place : place + 4]
        order = " ".join(name for name, *_ in four)
        numbers = {name: number for name, number, _ in four}
        signed = {name for name, _, sign in four if sign}
        sizes = [names for names in _SIZES if names == order]  # elsewhere they may be those of the picture
        box = next(filter(None, (_box_of(names, numbers, signed) for names in (*_CORNERS, *sizes))), None)
        boxes += [box] if box else []
        place += 4 if box else 1
    return boxes


def _box_of(names: str, numbers: Mapping[str, float], signed: set[str]) -> Numbers | None:
    parts = names.split()
    if not numbers.keys() >= set(parts):
        return None
    a, b, c, d = (numbers[name] for name in parts)
    values = (a, b, a + c, b + d) if names in _SIZES else (a, b, c, d)
    return Numbers(values, named=True, percent=not signed.isdisjoint(parts))


def _value(text: str, start: int, end: int) -> str:
    """What stands behind a key: a quoted text, what is in brackets (which may be cut), or the rest of the line."""
    first = text[start : start + 1]
    if first in ('"', "'"):
        return text[start + 1 : end].partition(first)[0]
    if first not in ("[", "(", "{"):
        return text[start:end].partition("\n")[0]
    depth = 0
    for bracket in _BRACKET.finditer(text, start, end):
        depth += -1 if bracket[1] else 1
        if not depth and not _GOES_ON.match(text, bracket.end(), end):
            return text[start : bracket.end()]
    return text[start:end]


def _in_brackets(text: str) -> list[Numbers]:
    """Boxes of numbers that stand together, and of corners that are linked."""
    boxes: list[Numbers] = []
    corners: list[re.Match[str]] = []
    for run in _RUN.finditer(text):
        opened = _opened(text, run).endswith(("[", "("))
        if opened and run.end() == len(text):
            return boxes  # a list that was cut, perhaps within its last number
        numbers = [float(number) for number in _EACH.findall(run[0])]
        if len(numbers) == 2:
            if corners and not _are_linked(text, corners[-1], run):
                boxes += _of_corners(text, corners)
                corners = []
            corners.append(run)
            continue
        boxes += _of_corners(text, corners)
        corners = []
        if len(numbers) == 4 or not opened:
            boxes += [Numbers(four, percent="%" in run[0]) for four in _fours(numbers)]
    return boxes + _of_corners(text, corners)


def _opened(text: str, run: re.Match[str]) -> str:
    """What stands right before numbers, without spaces and quotes."""
    return re.sub(r"[\s\"']", "", text[max(0, run.start() - 16) : run.start()])


def _are_linked(text: str, one: re.Match[str], other: re.Match[str]) -> bool:
    """Whether a corner's opposite follows: "(1, 2), (3, 4)", "[1, 2] to [3, 4]", "1, 2 - 3, 4"."""
    if other.start() - one.end() > _LONGEST_LINK:
        return False
    link = _LINK.fullmatch(text, one.end(), other.start())
    if link is None or bool(link["close"]) != bool(link["open"]):
        return False
    return bool(link["close"] or link["word"] or link["corner"])


def _of_corners(text: str, corners: Sequence[re.Match[str]]) -> list[Numbers]:
    if len(corners) < 2 or len(corners) % 2 or _OTHER_CORNER.search(text, corners[0].start() - 20, corners[0].start()):
        return []
    boxes = list(_fours([float(number) for corner in corners for number in _EACH.findall(corner[0])]))
    if len(boxes) > 1:
        in_one_list = _opened(text, corners[0]).endswith(("[[", "[(", "(("))
        if in_one_list or any(x2 <= x1 or y2 <= y1 for x1, y1, x2, y2 in boxes):
            return []
    return [Numbers(box, percent="%" in corners[0][0]) for box in boxes]


def _fours(numbers: Sequence[float]) -> Iterable[Four]:
    """Numbers in fours; none where they are not a multiple of four."""
    if len(numbers) % 4:
        return []
    return [tuple(numbers[start : start + 4]) for start in range(0, len(numbers), 4)]  # type: ignore[misc]
