"""Functions that the task files of judged benchmarks call; lmms-eval's own command line gets the numbers of perpo-eval.

The judge is named by environment variables there: $PERPO_JUDGE_MODEL and $PERPO_JUDGE_BASE_URL, and its key as for
perpo-eval. Without them the metrics are not a number; the published files are read from the folder that $PERPO_DATA
names, else from the hub.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from perpo.common.files import cache_folder
from perpo_eval.benchmarks.base import Benchmark
from perpo_eval.benchmarks.llava_bench import LLAVA_BENCH
from perpo_eval.benchmarks.mmhal import MMHAL
from perpo_eval.judge.from_flags import judge_of
from perpo_eval.judge.verdicts import Judge
from perpo_eval.rows.documents import documents, parquet_documents
from perpo_eval.rows.published import PUBLISHED
from perpo_eval.rows.tiny_data import tiny_parquet
from perpo_eval.tasks.functions import DATA_FOLDER, Doc
from perpo_eval.wanted import JudgeWanted

if TYPE_CHECKING:
    from datasets import Dataset

JUDGE_MODEL, JUDGE_BASE_URL = "PERPO_JUDGE_MODEL", "PERPO_JUDGE_BASE_URL"

Answered = dict[str, str]
"""A question, its answer, and what the judge is told besides."""


def _text(doc: Doc) -> str:
    return str(doc["query"])


def _results(benchmark: Benchmark) -> Callable[[Doc, list[str]], dict[str, Answered]]:
    names = [metric.name for metric in benchmark.info.metrics if ":" not in metric.name]

    def process_results(doc: Doc, results: list[str]) -> dict[str, Answered]:
        # They are judged together, when all of them are there.
        answered = {"question": doc["query"], "response": results[0], "target": doc["target"]}
        return {name: answered.copy() for name in names}

    return process_results


llava_bench_text = mmhal_text = _text
llava_bench_results, mmhal_results = _results(LLAVA_BENCH), _results(MMHAL)


def _judge() -> Judge | None:
    model = os.environ.get(JUDGE_MODEL)
    if not model:
        print(f"note: ${JUDGE_MODEL} names no judge, so there are no scores", file=sys.stderr)
        return None
    address = os.environ.get(JUDGE_BASE_URL) or JudgeWanted.base_url
    return judge_of(JudgeWanted(model=model, base_url=address), str(cache_folder()))


def _aggregation(benchmark: Benchmark, name: str) -> Callable[[Sequence[Answered]], float]:
    metric = benchmark.info.by_name[name]

    def aggregate(answers: Sequence[Answered]) -> float:
        judge = _judge()
        if judge is None:
            return float("nan")
        rows = [{"sample_key": str(number), **answer} for number, answer in enumerate(answers)]
        (scored,), _ = judge.judge([(benchmark.name, rows)])
        scores = [row["scores"] for row in scored]
        columns = {name: np.array([each[name] for each in scores], np.float64) for name in benchmark.info.score_names()}
        images = np.arange(len(rows)).astype(str)  # the value is the same whatever they are
        value = metric.estimate(columns, images, np.zeros(len(rows))).value
        return float("nan") if value is None else value

    return aggregate


llava_bench_relative_score, llava_bench_model, llava_bench_reference, llava_bench_missing = (
    _aggregation(LLAVA_BENCH, name) for name in ("relative_score", "model", "reference", "missing")
)
mmhal_score, mmhal_hallucination_rate, mmhal_missing = (
    _aggregation(MMHAL, name) for name in ("score", "hallucination_rate", "missing")
)


def _published(benchmark: Benchmark) -> Callable[[Any], Dataset]:
    def docs(pointer: Dataset) -> Dataset:
        published = PUBLISHED[str(pointer.split)]
        files, _ = published.get(os.environ.get(DATA_FOLDER) or "hub")
        return documents(published.rows(files), benchmark.rows, str(files[0]))

    return docs


def _tiny(benchmark: Benchmark) -> Callable[[Any], Dataset]:
    return lambda pointer: parquet_documents(tiny_parquet(str(pointer.split)), benchmark.rows)


published_llava_bench, published_mmhal = _published(LLAVA_BENCH), _published(MMHAL)
tiny_llava_bench, tiny_mmhal = _tiny(LLAVA_BENCH), _tiny(MMHAL)
