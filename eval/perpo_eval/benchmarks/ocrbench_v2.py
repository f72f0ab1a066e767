"""Full pages of OCRBench v2. How they are asked and scored."""

from __future__ import annotations

from typing import Any

from perpo.answers import text_answer
from perpo.benchmarks import ocrbench_v2, prompts
from perpo.boxes import ImageSize
from perpo.models.families import Family
from perpo_eval.benchmarks.base import Benchmark, Scored, TaskSpec
from perpo_eval.benchmarks.ocr import PAGE_ROWS
from perpo_eval.scorers.ocrbench_v2 import score_full_page

_INFO = ocrbench_v2.OCRBENCH_V2


def _score(response: str, target: Any, size: ImageSize, family: Family) -> Scored:
    answer = text_answer(response, target)
    # The chat template ends before a blank or a line break, which some tokenizers give to the answer. The truth is
    # taken as it is: the official script strips nothing.
    text = (answer or "").strip()
    return Scored(None if answer is None else text, score_full_page(text, target), answer is not None)


OCRBENCH_V2 = Benchmark(
    info=_INFO,
    tasks=tuple(
        TaskSpec(
            f"ocrbench_v2_{lang}", _INFO.name, "ocrbench_v2", lang, _INFO.max_new_tokens, None, "perpo-data ocrbench"
        )
        for lang in ("en", "cn")
    ),
    rows=PAGE_ROWS,
    prompt=lambda family, style: prompts.PAGE.template,
    default_query=prompts.PAGE.usual,
    score=_score,
    example="a",
    version="3",
    sources={"scorer": "perpo_eval.scorers.ocrbench_v2", "scores of pages": "perpo_eval.scorers.ocr"},
)
