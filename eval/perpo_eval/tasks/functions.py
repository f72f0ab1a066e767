"""Functions that the task files call. For lmms-eval's own command line: the family is LLaVA's, the prompt the paper's.

`perpo-eval` asks and scores with the same functions of `perpo_eval.benchmarks`, with the model's own family.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.errors import PerpoError
from perpo.models.families import FAMILIES
from perpo_eval.benchmarks.base import Benchmark
from perpo_eval.benchmarks.grounding import GROUNDING
from perpo_eval.benchmarks.ocr import OCR_PAGES
from perpo_eval.benchmarks.ocrbench_v2 import OCRBENCH_V2
from perpo_eval.benchmarks.olmocr_no_math import OLMOCR_NO_MATH
from perpo_eval.benchmarks.omnidocbench_simple import OMNIDOCBENCH_SIMPLE
from perpo_eval.benchmarks.pope import POPE
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.rows.documents import hub_documents, parquet_documents
from perpo_eval.rows.media import recent_image
from perpo_eval.rows.suites import TASKS
from perpo_eval.rows.tiny_data import tiny_parquet

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL import Image

_LLAVA = FAMILIES["llava"]
DATA_FOLDER = "PERPO_DATA"
"""The environment variable that names the folder of what the hub does not have as rows."""

_PARTS = ("acc@0.5:", "pass_rate:", "text_edit:")

Doc = Mapping[str, Any]


def doc_to_visual(doc: Doc) -> list[Image.Image]:
    """Return the image of a document."""
    return [recent_image(doc["image_file"])]


def _texts(benchmark: Benchmark) -> Callable[[Doc], str]:
    def doc_to_text(doc: Doc) -> str:
        return benchmark.asked(doc, benchmark.prompt(_LLAVA, "paper"))

    return doc_to_text


def _results(benchmark: Benchmark) -> Callable[[Doc, list[str]], dict[str, Any]]:
    # By size, frame and type of test perpo-eval alone reports; lmms-eval has no place for what applies to some samples.
    metrics = [metric for metric in benchmark.info.metrics if not metric.name.startswith(_PARTS)]

    def process_results(doc: Doc, results: list[str]) -> dict[str, Any]:
        size = (doc["width"], doc["height"])
        scores = benchmark.score(results[0], json.loads(doc["target"]), size, _LLAVA).scores
        held = [metric for metric in metrics if metric.needs() <= set(scores)]
        # A metric that is a ratio of sums is handed its parts.
        return {m.name: {name: scores[name] for name in m.needs()} if m.top else scores[m.name] for m in held}

    return process_results


grounding_text, grounding_results = _texts(GROUNDING), _results(GROUNDING)
pope_text, pope_results = _texts(POPE), _results(POPE)
ocr_text, ocr_results = _texts(OCR_PAGES), _results(OCR_PAGES)
olmocr_text, olmocr_results = _texts(OLMOCR_NO_MATH), _results(OLMOCR_NO_MATH)
omnidocbench_text, omnidocbench_results = _texts(OMNIDOCBENCH_SIMPLE), _results(OMNIDOCBENCH_SIMPLE)
ocrbench_text, ocrbench_results = _texts(OCRBENCH_V2), _results(OCRBENCH_V2)


def mean(scores: Sequence[float | None]) -> float:
    """Return the aggregation of every score that is a mean; not a number without scores (METEOR without WordNet)."""
    held = [score for score in scores if score is not None]
    return sum(held) / len(held) if held else float("nan")


def _ratio(benchmark: Benchmark, name: str) -> Callable[[Sequence[Mapping[str, float]]], float]:
    metric = benchmark.info.by_name[name]

    def aggregate(parts: Sequence[Mapping[str, float]]) -> float:
        above = sum(weight * part[score] for part in parts for score, weight in metric.top.items())
        below = sum(weight * part[score] for part in parts for score, weight in metric.bottom.items())
        if not metric.bottom:
            below = float(len(parts))
        return above / below if below else float("nan")

    return aggregate


pope_precision, pope_recall, pope_f1 = (_ratio(POPE, name) for name in ("precision", "recall", "f1"))
pope_yes_ratio, pope_f1_strict = _ratio(POPE, "yes_ratio"), _ratio(POPE, "f1:strict")

olmocr_pass_rate = _ratio(OLMOCR_NO_MATH, "pass_rate")


def hub_grounding(dataset: Dataset) -> Dataset:
    """Return the documents of the hub's RefCOCO rows (process_docs)."""
    return hub_documents(dataset, GROUNDING.rows)


def hub_pope(dataset: Dataset) -> Dataset:
    """Return the documents of the hub's POPE rows (process_docs)."""
    return hub_documents(dataset, POPE.rows)


def tiny_grounding(pointer: Dataset) -> Dataset:
    """Return the documents of the tiny world's expressions (process_docs); the split's name says which task."""
    return parquet_documents(tiny_parquet(_task(pointer)), GROUNDING.rows)


def tiny_pope(pointer: Dataset) -> Dataset:
    """Return the documents of the tiny world's yes/no questions (process_docs)."""
    return parquet_documents(tiny_parquet(_task(pointer)), POPE.rows)


def tiny_ocr(pointer: Dataset) -> Dataset:
    """Return the documents of the tiny world's pages (process_docs)."""
    return parquet_documents(tiny_parquet(_task(pointer)), OCR_PAGES.rows)


def folder_ocr(pointer: Dataset) -> Dataset:
    """Return the documents of pages that lie in the folder named by $PERPO_DATA (process_docs)."""
    task = _task(pointer)
    folder = os.environ.get(DATA_FOLDER)
    file = Path(folder or ".") / f"{task}.parquet"
    if folder is None or not file.is_file():
        raise PerpoError(
            f"{file.name} is not in the folder that ${DATA_FOLDER} names ({folder or 'not set'})",
            f"build it with {TASKS[task].build}, and set the variable to its --output",
        )
    return parquet_documents(file, BENCHMARKS[TASKS[task].benchmark].rows)


def _task(pointer: Dataset) -> str:
    # A split's name has no plus.
    return str(pointer.split).replace("plus", "+")
