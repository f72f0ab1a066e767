"""Made-up answers to made-up questions of every benchmark, with the scores that follow from them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from perpo.boxes import iou

WIDTH, HEIGHT = 640, 480
"""Of every picture, in pixels."""

_WORDS = [
    "the",
    "of",
    "river",
    "stone",
    "a",
    "light",
    "house",
    "over",
    "small",
    "garden",
    "under",
    "seven",
    "windows",
    "and",
    "trees",
    "in",
    "an",
    "open",
    "field",
]


@dataclass(frozen=True)
class Answers:
    """One task's samples as one run answered them: a list or array of each column, and the scores by name."""

    columns: dict[str, Sequence[Any]]
    scores: dict[str, NDArray[np.float64]]


def _grounding(count: int, flaw: float) -> Answers:
    rng = np.random.default_rng(1)
    size = np.exp(rng.uniform(np.log(12), np.log(300), (count, 2)))
    corner = rng.uniform(0, 1, (count, 2)) * (np.array([WIDTH, HEIGHT]) - size)
    truth = np.hstack([corner, corner + size])
    own = np.random.default_rng(round(flaw * 1000))
    read = own.uniform(size=count) >= flaw / 10
    said = truth + own.normal(size=(count, 4)) * np.hstack([size, size]) * flaw / 2
    said = np.hstack([np.minimum(said[:, :2], said[:, 2:]), np.maximum(said[:, :2], said[:, 2:])])
    overlap = np.where(read, iou(said, truth), 0.0)
    area = size.prod(axis=1)
    of_size = {"small": area < 32**2, "medium": (area >= 32**2) & (area < 96**2), "large": area >= 96**2}
    scores = {f"acc@{limit}": (overlap >= limit).astype(float) for limit in (0.3, 0.5, 0.7, 0.9)}
    scores |= {"iou": overlap, "parse_fail": 1.0 - read}
    scores |= {f"acc@0.5:{name}": np.where(held, scores["acc@0.5"], np.nan) for name, held in of_size.items()}
    boxes = [json.dumps([round(float(edge), 2) for edge in box]) for box in said]
    asked = "Please provide the bounding box coordinate of the region this sentence describes: "
    sides = ("left", "right", "floor", "far side of the street")
    columns = {
        "question": [
            f"{asked}the {_WORDS[n % len(_WORDS)]} thing number {n} on the {sides[n % 4]}" for n in range(count)
        ],
        "response": [box if good else "I see no such thing." for box, good in zip(boxes, read, strict=True)],
        "parse_ok": read,
        "prediction": [box if good else None for box, good in zip(boxes, read, strict=True)],
        "target": [json.dumps([round(float(edge), 2) for edge in box]) for box in truth],
        "layout": [None] * count,
        "box_frame": ["original"] * count,
    }
    return Answers(columns, scores)


def _pope(count: int, flaw: float) -> Answers:
    yes = np.random.default_rng(3).uniform(size=count) < 0.5
    own = np.random.default_rng(round(flaw * 1000) + 1)
    said = np.where(own.uniform(size=count) < flaw / 2, ~yes, yes)
    read = own.uniform(size=count) >= flaw / 20
    scores = {"accuracy": said == yes, "tp": said & yes, "fp": said & ~yes, "fn": ~said & yes, "tn": ~said & ~yes}
    scores |= {"yes": said, "parse_fail": ~read}
    words = np.where(said, "yes", "no")
    columns = {
        "question": [f"Is there a {_WORDS[n % len(_WORDS)]} thing number {n} in the image?" for n in range(count)],
        "response": np.where(read, np.char.capitalize(words), np.char.add("Hard to tell: ", words)).tolist(),
        "parse_ok": read,
        "prediction": [f'"{word}"' for word in words],
        "target": ['"yes"' if each else '"no"' for each in yes],
        "layout": [None] * count,
        "box_frame": [None] * count,
    }
    return Answers(columns, {name: values.astype(float) for name, values in scores.items()})


def _pages(count: int, flaw: float) -> Answers:
    rng, own = np.random.default_rng(2), np.random.default_rng(round(flaw * 1000) + 2)
    truths, said, scores = [], [], {name: np.zeros(count) for name in ("edit_distance", "precision", "recall", "f1")}
    for place in range(count):
        words = [_WORDS[n] for n in rng.integers(0, len(_WORDS), 240)]
        answer = [word[::-1] if own.uniform() < flaw / 5 else word for word in words if own.uniform() >= flaw / 20]
        truths.append("\n".join(" ".join(words[line : line + 8]) for line in range(0, len(words), 8)))
        said.append("\n".join(" ".join(answer[line : line + 8]) for line in range(0, len(answer), 8)))
        scores["edit_distance"][place] = Levenshtein.normalized_distance(truths[-1], said[-1])
        both = (Counter(words) & Counter(answer)).total()
        scores["precision"][place], scores["recall"][place] = both / len(answer), both / len(words)
        scores["f1"][place] = 2 * both / (len(answer) + len(words))
    scores["truncated"] = np.zeros(count)
    columns = {
        "question": ["OCR this image:"] * count,
        "response": said,
        "parse_ok": np.ones(count, bool),
        "prediction": list(map(json.dumps, said)),
        "target": list(map(json.dumps, truths)),
        "layout": [None] * count,
        "box_frame": [None] * count,
    }
    return Answers(columns, scores)


def _judged(count: int, flaw: float) -> tuple[dict[str, Sequence[Any]], NDArray[np.float64]]:
    """Columns of answers that a judge rates from 1 to 6, and the ratings."""
    own = np.random.default_rng(round(flaw * 1000) + 4)
    ratings = np.clip(np.round(own.normal(5.5 - 6 * flaw, 1, count)), 1, 6)
    columns = {
        "question": [f"What is on the {_WORDS[n % len(_WORDS)]} number {n}, and why?" for n in range(count)],
        "response": [
            f"There are {own.integers(2, 9)} of them, by the {_WORDS[n % len(_WORDS)]}." for n in range(count)
        ],
        "parse_ok": np.ones(count, bool),
        "prediction": [None] * count,
        "target": [json.dumps({"category": "other", "reference": f"There are {n % 7 + 2}."}) for n in range(count)],
        "layout": [None] * count,
        "box_frame": [None] * count,
        "judge": [
            votes(f"The answer names {n % 5} things that are there.", rating) for n, rating in enumerate(ratings)
        ],
    }
    return columns, ratings


def votes(text: str, rating: float) -> str:
    """Return what a record holds of a judge's only vote."""
    return json.dumps([{"vote": 0, "swapped": False, "text": text, "rating": rating, "flags": [], "error": None}])


def _conversations(count: int, flaw: float) -> Answers:
    columns, ratings = _judged(count, flaw)
    return Answers(columns, {"model": ratings, "reference": np.full(count, 5.0), "missing": np.zeros(count)})


def _hallucinations(count: int, flaw: float) -> Answers:
    columns, ratings = _judged(count, flaw)
    scores = {"score": ratings, "hallucination_rate": (ratings < 3).astype(float), "missing": np.zeros(count)}
    return Answers(columns, scores)


TASKS: Mapping[str, tuple[str, float, Callable[[int, float], Answers]]] = {
    "refcoco_val": ("grounding", 0.25, _grounding),
    "refcoco+_val": ("grounding", 0.2, _grounding),
    "refcocog_val": ("grounding", 0.15, _grounding),
    "coco_pope_random": ("pope", 0.2, _pope),
    "coco_pope_adversarial": ("pope", 0.19, _pope),
    "fox_ocr_en": ("ocr", 0.005, _pages),
    "llava_bench_wild": ("llava_bench", 0.002, _conversations),
    "mmhal_bench": ("mmhal", 0.003, _hallucinations),
}
"""Each task's benchmark, its share of the samples, and what answers it."""
