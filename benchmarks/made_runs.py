"""Two made-up runs over the same samples, as large as wanted: what the dashboard is measured and tested with.

Boxes, answers and pages are drawn at random; scores follow from them by the formulas of IoU, edit distance and
POPE's counts, and the metrics from the scores as `perpo.scores` says. The pictures are made up too.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from rapidfuzz.distance import Levenshtein

from perpo.boxes import iou
from perpo.records import SCHEMA_VERSION, GroupResult, Metric, ModelInfo, RunRecord, TaskResult, sample_key
from perpo.scores import metrics_of
from perpo.store import Run, slug, write_run

WIDTH, HEIGHT = 640, 480
FLAWS = {"base": 0.3, "perpo": 0.2}
"""The two runs, and how far their answers are off."""

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


def write_pair(
    root: Path,
    samples: int = 100_000,
    *,
    pictures: int = 200,
    names: Sequence[str] = tuple(FLAWS),
    texts: Sequence[str] = (),
) -> tuple[Run, Run]:
    """Store two runs under `root`, and their pictures in `root`/pictures.

    Args:
        root: The results folder.
        samples: Samples of each run, about.
        pictures: Different pictures, each shared by many samples.
        names: What the two runs are called.
        texts: What the second run says to the first samples of every task, and what is asked there.
    """
    images = _pictures(root / "pictures", pictures)
    one, two = (
        _write_run(root, name, flaw, samples, images, texts, said=place == 1)
        for place, (name, flaw) in enumerate(zip(names, FLAWS.values(), strict=True))
    )
    return one, two


def _write_run(
    root: Path, name: str, flaw: float, samples: int, images: list[dict], texts: Sequence[str], *, said: bool
) -> Run:
    parts, results = [], []
    for task, (benchmark, share, answer) in TASKS.items():
        count = max(round(share * samples), len(texts) + 1)
        found = answer(count, flaw)
        replaced = list(texts) if said else []
        found.columns["response"] = [*replaced, *list(found.columns["response"])[len(replaced) :]]
        found.columns["question"] = [*texts, *list(found.columns["question"])[len(texts) :]]
        shown = [images[place % len(images)] for place in range(count)]
        parts.append(_table(task, found, shown))
        results.append(_result(task, benchmark, found, _clusters(shown)))
    groups = [_group(benchmark, results, parts) for benchmark in dict.fromkeys(r.benchmark for r in results)]
    table = pa.concat_tables(parts).combine_chunks()
    return write_run(root, _record(name, results, groups), table)


def _pictures(folder: Path, count: int) -> list[dict[str, Any]]:
    """Smooth coloured noise as JPEG files; what the records say of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, found = np.random.default_rng(0), []
    for place in range(count):
        coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        data = io.BytesIO()
        Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(data, "JPEG")
        path = folder / f"{place:05d}.jpg"
        path.write_bytes(data.getvalue())
        digest = hashlib.sha256(data.getvalue()).hexdigest()
        found.append({"sha256": digest, "path": f"{folder.name}/{path.name}", "width": WIDTH, "height": HEIGHT})
    return found


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
        "box_frame": [None] * count,
    }
    return Answers(columns, scores)


TASKS: Mapping[str, tuple[str, float, Callable[[int, float], Answers]]] = {
    "refcoco_val": ("grounding", 0.25, _grounding),
    "refcoco+_val": ("grounding", 0.2, _grounding),
    "refcocog_val": ("grounding", 0.15, _grounding),
    "coco_pope_random": ("pope", 0.2, _pope),
    "coco_pope_adversarial": ("pope", 0.195, _pope),
    "fox_ocr_en": ("ocr", 0.005, _pages),
}
"""Each task's benchmark, its share of the samples, and what answers it."""


def _clusters(shown: Sequence[Mapping[str, Any]]) -> NDArray:
    return np.array([image["sha256"] for image in shown])


def _table(task: str, found: Answers, shown: list[dict[str, Any]]) -> pa.Table:
    count = len(shown)
    asked = found.columns["question"]
    kinds = {"parse_ok": pa.bool_()}
    columns = {name: pa.array(values, kinds.get(name, pa.string())) for name, values in found.columns.items()}
    columns |= {
        "sample_key": pa.array([sample_key("made up", None, task, str(n), asked[n]) for n in range(count)]),
        "task": pa.array([task] * count),
        "cluster_id": pa.array(_clusters(shown)),
        "image": pa.array(shown),
        "prompt": pa.array([f"USER: <image>\n{question} ASSISTANT:" for question in asked]),
        "tokens_out": pa.array(np.full(count, 12, np.int32)),
        "latency_ms": pa.array(np.full(count, 1.5)),
        "finish_reason": pa.array(["stop"] * count),
        "error": pa.nulls(count, pa.string()),
        "judge": pa.nulls(count, pa.string()),
        "scores": _scores(found.scores, count),
    }
    return pa.table(columns)


def _scores(held: Mapping[str, NDArray], count: int) -> pa.StructArray:
    """Every score that any task has; null where it does not apply."""
    names = list(dict.fromkeys(name for _, _, answer in TASKS.values() for name in answer(2, 0.2).scores))
    blank = np.full(count, np.nan)
    return pa.StructArray.from_arrays([pa.array(held.get(name, blank), from_pandas=True) for name in names], names)


def _result(task: str, benchmark: str, found: Answers, clusters: NDArray) -> TaskResult:
    count = len(clusters)
    frame = "original" if benchmark == "grounding" else None
    return TaskResult(
        task=task,
        benchmark=benchmark,
        task_version="1",
        dataset="made up",
        revision=None,
        data_sha256=hashlib.sha256(f"{task} {count}".encode()).hexdigest(),
        split=task.split("_")[-1],
        prompt="{query}",
        max_new_tokens=64,
        box_frame=frame,
        note="made up",
        n_total=count,
        n_scored=count,
        n_parse_fail=int((~np.asarray(found.columns["parse_ok"])).sum()),
        n_error=0,
        cluster_key="image sha256",
        metrics=_metrics(benchmark, found.scores, clusters, np.full(count, task)),
    )


def _group(benchmark: str, results: Sequence[TaskResult], parts: Sequence[pa.Table]) -> GroupResult:
    own = [part for part, result in zip(parts, results, strict=True) if result.benchmark == benchmark]
    table = pa.concat_tables(own)
    scores = table["scores"].combine_chunks()
    values = {f.name: scores.field(f.name).to_numpy(zero_copy_only=False).astype(float) for f in scores.type}
    clusters, tasks = (table[name].to_numpy() for name in ("cluster_id", "task"))
    names = [result.task for result in results if result.benchmark == benchmark]
    return GroupResult(benchmark, benchmark, names, _metrics(benchmark, values, clusters, tasks))


def _metrics(benchmark: str, scores: Mapping[str, NDArray], clusters: NDArray, tasks: NDArray) -> list[Metric]:
    found = []
    for metric in metrics_of(benchmark, list(scores)):
        e = metric.estimate(scores, clusters, tasks)
        numbers = (e.value, e.stderr, e.ci_low, e.ci_high, e.ci_method, e.n, e.n_clusters)
        found.append(Metric(metric.name, *numbers, higher_is_better=metric.higher_is_better, unit="fraction"))
    return found


def _record(name: str, results: list[TaskResult], groups: list[GroupResult]) -> RunRecord:
    number = list(FLAWS).index(name) if name in FLAWS else len(name) % 50
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=f"20260101T0000{number:02d}Z-paper-{slug(name)}-{hashlib.sha256(name.encode()).hexdigest()[:6]}",
        name=name,
        status="complete",
        created_utc=f"2026-01-01T00:00:{number:02d}+00:00",
        duration_s=60.0,
        command="made up",
        code={"version": "0", "commit": None, "dirty": None},
        packages={},
        hardware={"machine": "made up", "cpus": 1, "device": "cpu"},
        model=ModelInfo("made-up", None, "elsewhere", None, None, None, None, None, None, "float32", None),
        training_run=None,
        suite={"name": "paper", "version": "1", "sha256": "0" * 64},
        generation={"limit": None, "temperature": 0.0, "top_p": None, "seed": 0},
        tasks=results,
        groups=groups,
        judge=None,
        samples=None,
        source="measured",
    )
