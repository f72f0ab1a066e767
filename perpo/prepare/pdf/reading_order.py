"""The order in which a page is read: pieces of lines, columns, lines.

The rules are simple on purpose, and hold for text that runs from left to right:

- A piece is what is drawn side by side, without a gap of more than `GAP` heights of a character.
- A gutter is an empty strip at least `GUTTER` heights wide. Right of it, `LEAST_LINES` pieces or more begin at one
  place; left of it, as many end before it, beside them. Both sides hold prose: a piece of the middle length has
  `PROSE` characters or more, and no side is narrower than `LEAST_SHARE` of both.
- Pieces that lie across a gutter (a title, a wide figure's caption) part the page. What is above them is read first;
  in each part the left column comes before the right one. Columns are looked for within columns.
- So do lines on one side alone at the top or the bottom of a part, with more than `ALONE` heights between them and the
  next line of either side: page numbers and short headings.
- What is left is read line by line from top to bottom, each from left to right.
"""

from __future__ import annotations

import itertools
import statistics
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from perpo.prepare.pdf.parts import Character

GAP = 1.0
GUTTER = 0.8
LEAST_LINES = 4
LEAST_SHARE = 0.2
PROSE = 12
ALONE = 1.0
_SAME_LINE = 0.4  # of the smaller height: what overlaps by more stands on one line
_TOUCHING = 0.12  # heights: pieces that are nearer than this are parts of one word
_ALIGNED = 0.5  # heights: pieces that begin within this begin at one place
_IDEOGRAPHS = ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH")


@dataclass
class Piece:
    """A piece of a line: its text and its box in pixels."""

    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    characters: list[Character] = field(default_factory=list, repr=False)

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def middle(self) -> float:
        return (self.y0 + self.y1) / 2


@dataclass(frozen=True)
class Line:
    """A line of a column: its text and its box in pixels; `column` counts the columns in the order of reading."""

    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    column: int


@lru_cache(maxsize=8192)
def is_ideograph(character: str) -> bool:
    """Return whether a character is one of those that are written without spaces between words."""
    return unicodedata.name(character, "").startswith(_IDEOGRAPHS)


def pieces_of(characters: Iterable[Character]) -> list[Piece]:
    """Put characters that are drawn one after another, side by side, together."""
    pieces: list[Piece] = []
    space: Character | None = None
    broken = True
    for character in characters:
        if character.text == "\n":
            broken = True
        elif character.is_space:
            space = character
        elif not broken and _continues(pieces[-1], character):
            _extend(pieces[-1], character, space)
            space = None
        else:
            pieces.append(Piece(character.text, *character.box, [character]))
            space, broken = None, False
    return pieces


def _continues(piece: Piece, character: Character) -> bool:
    x0, y0, _, y1 = character.box
    height = max(min(piece.height, y1 - y0), 1e-6)
    overlap = min(piece.y1, y1) - max(piece.y0, y0)
    size = max(piece.height, y1 - y0)
    return overlap > _SAME_LINE * height and -size < x0 - piece.x1 <= GAP * size


def _extend(piece: Piece, character: Character, space: Character | None) -> None:
    # A space that pdfium adds for a gap is none between ideographs, which justified lines set apart.
    if space is not None and not (space.added and is_ideograph(piece.text[-1]) and is_ideograph(character.text)):
        piece.text += " "
    piece.text += character.text
    piece.characters.append(character)
    x0, y0, x1, y1 = character.box
    piece.x0, piece.y0 = min(piece.x0, x0), min(piece.y0, y0)
    piece.x1, piece.y1 = max(piece.x1, x1), max(piece.y1, y1)


def read_lines(pieces: Sequence[Piece]) -> list[Line]:
    """Return a page's lines in the order in which they are read."""
    return [line for number, column in enumerate(read_columns(list(pieces))) for line in _lines(column, number)]


def columns_beside(lines: Sequence[Line]) -> int:
    """Return how many columns of a page stand side by side where most do."""
    # From middle to middle: boxes hold a font's whole height, and a title's often reach into those below it.
    middles: dict[int, list[float]] = {}
    for line in lines:
        middles.setdefault(line.column, []).append((line.y0 + line.y1) / 2)
    edges = [(min(held), 1) for held in middles.values()] + [(max(held), -1) for held in middles.values()]
    beside = most = 0
    for _, step in sorted(edges, key=lambda edge: (edge[0], -edge[1])):
        beside += step
        most = max(most, beside)
    return most


def read_columns(pieces: list[Piece]) -> list[list[Piece]]:
    """Return the pieces of each column, in the order in which columns are read."""
    edge = find_gutter(pieces)
    if edge is None:
        return [pieces] if pieces else []
    across = sorted((piece for piece in pieces if _is_across(piece, edge, pieces)), key=lambda piece: piece.middle)
    crossing = {id(piece) for piece in across}
    beside = [piece for piece in pieces if id(piece) not in crossing]
    columns: list[list[Piece]] = []
    wide: list[Piece] = []
    above = float("-inf")
    for cut in [*across, None]:
        below = cut.middle if cut else float("inf")
        part = [piece for piece in beside if above <= piece.middle < below]
        alone, part, rest = _parted(part, edge)
        wide += alone
        left = [piece for piece in part if piece.x0 < edge]
        right = [piece for piece in part if piece.x0 >= edge]
        if left and right:
            columns += [wide] if wide else []
            columns += read_columns(left) + read_columns(right)
            wide = rest
        else:  # the last, short line of what lies across
            wide += part + rest
        if cut:
            wide.append(cut)
            above = below
    return columns + ([wide] if wide else [])


def _parted(part: list[Piece], edge: float) -> tuple[list[Piece], list[Piece], list[Piece]]:
    """What stands alone above columns, the columns, and what stands alone below them."""
    rows = _rows(part)
    first, last = 0, len(rows)
    while last - first > 1 and _stands_alone(rows[first], rows[first + 1], edge):
        first += 1
    while last - first > 1 and _stands_alone(rows[last - 1], rows[last - 2], edge):
        last -= 1
    above, between, below = ([*itertools.chain(*some)] for some in (rows[:first], rows[first:last], rows[last:]))
    return above, between, below


def _stands_alone(row: list[Piece], next_row: list[Piece], edge: float) -> bool:
    height = max(piece.height for piece in row)
    gap = max(row[0].y0 - next_row[0].y1, next_row[0].y0 - row[0].y1)
    return len({piece.x0 < edge for piece in row}) == 1 and gap > ALONE * height


def _is_across(piece: Piece, edge: float, pieces: Sequence[Piece]) -> bool:
    return piece.x0 < edge < piece.x1 + GUTTER * _usual_height(pieces)


def _usual_height(pieces: Sequence[Piece]) -> float:
    return statistics.median(piece.height for piece in pieces)


def find_gutter(pieces: Sequence[Piece]) -> float | None:
    """Return where the column right of a gutter begins; None where there is one column only."""
    if len(pieces) < 2 * LEAST_LINES:
        return None
    height = _usual_height(pieces)
    best: tuple[int, float] | None = None
    for edge in _beginnings(pieces, height):
        left = [piece for piece in pieces if piece.x1 <= edge - GUTTER * height]
        right = [piece for piece in pieces if piece.x0 >= edge]
        across = len(pieces) - len(left) - len(right)
        if _are_columns(left, right) and (best is None or (across, edge) < best):
            best = across, edge
    return best[1] if best else None


def _beginnings(pieces: Sequence[Piece], height: float) -> list[float]:
    """Places where several pieces begin: the leftmost of each group."""
    starts = sorted(piece.x0 for piece in pieces)
    gaps: list[float] = []
    for number, start in enumerate(starts):
        if gaps and start - gaps[-1] <= _ALIGNED * height:
            continue
        last = number + LEAST_LINES - 1
        if last < len(starts) and starts[last] - start <= _ALIGNED * height:
            gaps.append(start)
    return gaps


def _are_columns(left: Sequence[Piece], right: Sequence[Piece]) -> bool:
    if min(len(left), len(right)) < LEAST_LINES:
        return False
    sides = [left, right]
    widths = [max(piece.x1 for piece in side) - min(piece.x0 for piece in side) for side in sides]
    if min(widths) < LEAST_SHARE * sum(widths):
        return False
    if any(statistics.median(map(_length, side)) < PROSE for side in sides):
        return False
    top, bottom = min(piece.y0 for piece in left), max(piece.y1 for piece in left)
    return sum(top <= piece.middle <= bottom for piece in right) >= LEAST_LINES


def _length(piece: Piece) -> int:
    """How long a piece is in letters; ideographs are as wide as two."""
    return len(piece.text) + sum(map(is_ideograph, piece.text))


def _lines(pieces: Iterable[Piece], column: int) -> list[Line]:
    return [_line(sorted(row, key=lambda piece: piece.x0), column) for row in _rows(pieces)]


def _rows(pieces: Iterable[Piece]) -> list[list[Piece]]:
    rows: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: (piece.middle, piece.x0)):
        if rows and _same_line(rows[-1][0], piece):
            rows[-1].append(piece)
        else:
            rows.append([piece])
    return rows


def _same_line(one: Piece, other: Piece) -> bool:
    overlap = min(one.y1, other.y1) - max(one.y0, other.y0)
    return overlap > _SAME_LINE * max(min(one.height, other.height), 1e-6)


def _line(row: Sequence[Piece], column: int) -> Line:
    text = row[0].text
    for before, piece in itertools.pairwise(row):
        touching = piece.x0 - before.x1 < _TOUCHING * max(before.height, piece.height)
        text += ("" if touching else " ") + piece.text
    return Line(
        text,
        min(piece.x0 for piece in row),
        min(piece.y0 for piece in row),
        max(piece.x1 for piece in row),
        max(piece.y1 for piece in row),
        column,
    )
