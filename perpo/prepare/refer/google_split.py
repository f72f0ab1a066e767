"""Tell the papers' rows from Google's where the hub mixes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perpo.prepare.overlap.images import coco_number
from perpo.prepare.refer.layout import Annotations, Ref

_Key = tuple[int | None, tuple[float, ...]]


def tell_apart(
    rows: Sequence[Mapping[str, Any]], refs: Sequence[Ref], annotations: Annotations
) -> tuple[dict[int, Ref], int]:
    """Find refs among rows: the same image and the same box.

    An object can be in the rows twice, as it is in both partitions; each ref then takes one row, that
    with its own expressions if there is one.

    Args:
        rows: `file_name`, `bbox` (x, y, width, height in pixels) and `answer` (the expressions).
        refs: What to look for.
        annotations: Their boxes.

    Returns:
        The ref by number of its row, and how many of them have other expressions there.
    """
    places: dict[_Key, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        places[_key(coco_number(row["file_name"]), row["bbox"])].append(number)
    ref_by_row: dict[int, Ref] = {}
    left = []
    for ref in refs:
        free = places[_key(ref.image_id, annotations.boxes[ref.ann_id])]
        same = next((number for number in free if list(rows[number]["answer"]) == ref.sentences), None)
        if same is None:
            left.append(ref)
            continue
        free.remove(same)
        ref_by_row[same] = ref
    other = 0
    for ref in left:
        free = places[_key(ref.image_id, annotations.boxes[ref.ann_id])]
        if free:
            ref_by_row[free.pop(0)] = ref
            other += 1
    return ref_by_row, other


def _key(image: int | None, box: Sequence[float]) -> _Key:
    # The hub keeps boxes as float32; COCO's have two decimals.
    return image, tuple(round(float(np.float32(value)), 2) for value in box)
