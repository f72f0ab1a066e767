"""The errors of a transcript by line: dropped, added, changed, moved and repeated ones.

Lines of the truth and of the answer are paired in their order so that the fewest characters are edited: a pair costs
its Levenshtein distance, a line without a partner its length (Needleman and Wunsch 1970, with lines in place of
residues). Two lines are a pair only if at most half of the longer one is edited. What is left over on both sides and
is nearly the same line was moved; an added line that was said before is repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

LineKind = Literal["same", "changed", "dropped", "added", "moved", "repeated"]

ERRORS: tuple[LineKind, ...] = ("dropped", "added", "changed", "moved", "repeated")
"""All kinds but "same", in the order of tables."""

MOST_LINES = 400
"""Of each text; pairs of more would take too long while somebody waits."""

_PAIR = 0.5  # share of the longer line that may be edited
_MOVED = 0.2
_SHORTEST_MOVED = 4  # characters: shorter lines, such as page numbers, are alike by chance


@dataclass(frozen=True)
class LinePair:
    """A line of the truth and what an answer has in its place.

    Attributes:
        kind: What became of it.
        truth: The line; None where the answer has one that the truth has not.
        answer: The answer's line; None where it has none. Of a moved line, where it went to or came from.
    """

    kind: LineKind
    truth: str | None
    answer: str | None


@dataclass(frozen=True)
class LineErrors:
    """An answer held against the truth, line by line.

    Attributes:
        pairs: In the order of reading. A moved line stands twice: where it belongs, and where the answer has it.
        cut: Whether only the first `MOST_LINES` lines of each were held against each other.
    """

    pairs: list[LinePair]
    cut: bool

    def counts(self) -> dict[LineKind, int]:
        """Count the lines of each kind; a moved line once."""
        counted: Counter[LineKind] = Counter(pair.kind for pair in self.pairs)
        counted["moved"] //= 2
        return {kind: counted[kind] for kind in ("same", *ERRORS)}


def line_errors(truth: str, answer: str) -> LineErrors:
    """Return how the lines of an answer differ from those of the truth; blank lines and outer spaces do not count."""
    told, said = _lines(truth), _lines(answer)
    cut = max(len(told), len(said)) > MOST_LINES
    told, said = told[:MOST_LINES], said[:MOST_LINES]
    pairs = [_pair(told, said, place, other) for place, other in _aligned(told, said)]
    return LineErrors(_repeated(_moved(pairs)), cut)


def _lines(text: str) -> list[str]:
    return [line for each in text.splitlines() if (line := " ".join(each.split()))]


def _aligned(told: Sequence[str], said: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """Places of lines that belong together; None for a partner that is not there."""
    if not told or not said:
        return [(place, None) for place in range(len(told))] + [(None, place) for place in range(len(said))]
    distance = cdist(told, said, scorer=Levenshtein.distance, dtype=np.int32).astype(np.float64)
    ours, theirs = (np.array(list(map(len, lines)), dtype=np.float64) for lines in (told, said))
    longer = np.maximum(ours[:, None], theirs[None, :])
    distance[distance > _PAIR * longer] = np.inf
    costs = _costs(distance, ours, theirs)
    path: list[tuple[int | None, int | None]] = []
    row, column = len(told), len(said)
    while row or column:
        here = costs[row, column]
        # Of equal ways the one that pairs the earliest lines, so that what is said again later is what is added.
        if column and here == costs[row, column - 1] + theirs[column - 1]:
            column -= 1
            path.append((None, column))
        elif row and here == costs[row - 1, column] + ours[row - 1]:
            row -= 1
            path.append((row, None))
        else:
            row, column = row - 1, column - 1
            path.append((row, column))
    return path[::-1]


def _costs(
    distance: NDArray[np.float64], ours: NDArray[np.float64], theirs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n + 1, m + 1) fewest edits of the first n lines into the first m; whole numbers, so that sums are exact."""
    costs = np.zeros((len(ours) + 1, len(theirs) + 1))
    along = np.concatenate([[0.0], np.cumsum(theirs)])
    costs[0] = along
    for row in range(len(ours)):
        best = costs[row] + ours[row]
        best[1:] = np.minimum(best[1:], costs[row, :-1] + distance[row])
        # A line that is added to the right of the best place: min over k <= j of best[k] + along[j] - along[k].
        costs[row + 1] = np.minimum.accumulate(best - along) + along
    return costs


def _pair(told: Sequence[str], said: Sequence[str], place: int | None, other: int | None) -> LinePair:
    truth, answer = None if place is None else told[place], None if other is None else said[other]
    if truth is None:
        return LinePair("added", None, answer)
    if answer is None:
        return LinePair("dropped", truth, None)
    return LinePair("same" if truth == answer else "changed", truth, answer)


def _moved(pairs: list[LinePair]) -> list[LinePair]:
    """The pairs with each dropped line that was added elsewhere told as moved, at both places."""
    moved = list(pairs)
    added = [place for place, pair in enumerate(pairs) if pair.kind == "added"]
    for place, pair in enumerate(pairs):
        if pair.kind != "dropped" or pair.truth is None or len(pair.truth) < _SHORTEST_MOVED:
            continue
        apart = [(Levenshtein.normalized_distance(pair.truth, pairs[other].answer or ""), other) for other in added]
        nearest, other = min(apart, default=(1.0, -1))
        if nearest <= _MOVED:
            added.remove(other)
            moved[place] = LinePair("moved", pair.truth, None)
            moved[other] = LinePair("moved", None, pairs[other].answer)
    return moved


def _repeated(pairs: list[LinePair]) -> list[LinePair]:
    said: set[str] = set()
    told = []
    for pair in pairs:
        again = pair.kind == "added" and pair.answer in said
        told.append(replace(pair, kind="repeated") if again else pair)
        said |= {pair.answer} if pair.answer is not None else set()
    return told
