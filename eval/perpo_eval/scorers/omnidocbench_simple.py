"""Text and reading order of a page of OmniDocBench, blocks matched one to one. Pure functions.

The formulas are those of the official script, version 1.6 (opendatalab/OmniDocBench, Apache-2.0), with its way to match
that it calls `simple_match`. Its usual way, `quick_match`, also joins and splits blocks before it compares them, so its
numbers are others, mostly lower. The reading order is taken as `quick_match` does: in the script's `simple_match` the
first block of an answer has no place, by a slip of zero for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist
from scipy.optimize import linear_sum_assignment

from perpo.texts.page_blocks import blocks_of, letters_of

NOT_COUNTED = frozenset(
    (
        *("figure_caption", "figure_footnote", "table_caption", "table_footnote", "code_algorithm"),
        *("code_algorithm_caption", "header", "footer", "page_footnote", "page_number", "equation_caption"),
    )
)
"""Kinds of blocks that are matched, so that nobody is blamed for reading them, and then left out."""

Pair = tuple[int | None, int | None]
"""Places of a block of the page and of one of the answer; None where a block has no partner."""


def score_page_blocks(answer: str, target: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the scores of an answer.

    Args:
        answer: In Markdown.
        target: `language`, and `blocks`, in the order of reading: for each its `category`, `text`, and `order`, a
            number from 1 or None.

    Returns:
        `text_edit`: over all matched blocks that count, the characters to change over the lengths of the longer texts.
        What has no partner is changed whole; so are all blocks of the answer without a partner, together. None where
        nothing counts. The same as `text_edit:<language>`. `reading_order`: the edit distance of the order in which
        the answer has the page's blocks from theirs, over the longer one; None where no block has an order.
        `page_edit`: the edit distance of the whole texts, blocks joined, over the longer one.
    """
    blocks = [block for block in target["blocks"] if letters_of(block["text"])]
    true = [letters_of(block["text"]) for block in blocks]
    said = [letters for block in blocks_of(answer) if (letters := letters_of(block))]
    pairs = [pair for pair in match_blocks(true, said) if pair[0] is None or _counts(blocks[pair[0]])]
    text = _text_edit(true, said, pairs)
    ordered = [letters for block, letters in zip(blocks, true, strict=True) if block["order"]]
    return {
        "text_edit": text,
        f"text_edit:{target['language']}": text,
        "reading_order": _order_edit(blocks, pairs),
        "page_edit": Levenshtein.normalized_distance("\n\n".join(said), "\n\n".join(ordered)) if ordered else None,
    }


def match_blocks(true: Sequence[str], said: Sequence[str]) -> list[Pair]:
    """Return pairs of blocks, such that the sum of their edit distances, each over the longer text, is the least.

    Args:
        true: The page's blocks, none of them empty.
        said: The answer's, likewise.
    """
    rows, columns = range(len(true)), range(len(said))
    if not true or not said:
        return [*((row, None) for row in rows), *((None, column) for column in columns)]
    costs = np.asarray(cdist(true, said, scorer=Levenshtein.normalized_distance, dtype=np.float64))
    partners = dict(zip(*(part.tolist() for part in linear_sum_assignment(costs)), strict=True))
    alone = sorted(set(columns) - set(partners.values()))
    return [*((row, partners.get(row)) for row in rows), *((None, column) for column in alone)]


def _counts(block: Mapping[str, Any]) -> bool:
    return block["category"] not in NOT_COUNTED


def _text_edit(true: Sequence[str], said: Sequence[str], pairs: Sequence[Pair]) -> float | None:
    changed = length = 0
    for row, column in pairs:
        one, other = "" if row is None else true[row], "" if column is None else said[column]
        changed += Levenshtein.distance(one, other)
        length += max(len(one), len(other))
    return changed / length if length else None


def _order_edit(blocks: Sequence[Mapping[str, Any]], pairs: Sequence[Pair]) -> float | None:
    orders = {row: blocks[row]["order"] for row, _ in pairs if row is not None and blocks[row]["order"]}
    read = sorted((column, row) for row, column in pairs if row in orders and column is not None)
    if not orders:
        return None
    return Levenshtein.normalized_distance([orders[row] for _, row in read if row is not None], sorted(orders.values()))
