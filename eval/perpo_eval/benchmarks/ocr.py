"""Pages of text, transcribed. How they are asked and scored."""

from __future__ import annotations

from typing import Any

from perpo.answers import text_answer
from perpo.benchmarks import ocr, prompts
from perpo.boxes import ImageSize
from perpo.models.families import Family
from perpo.texts.normal import normal
from perpo_eval.benchmarks.base import TINY_PAGE_TOKENS, TINY_TOKENS, Benchmark, Row, RowFormat, Scored, TaskSpec
from perpo_eval.scorers.ocr import edit_distance, score_page

_INFO = ocr.OCR_PAGES


def _tasks() -> tuple[TaskSpec, ...]:
    name, limit = _INFO.name, _INFO.max_new_tokens
    return (
        TaskSpec("tinypages_test", name, "tinypages", "test", TINY_TOKENS),
        TaskSpec("tinydense_test", name, "tinydense", "test", TINY_PAGE_TOKENS, named_in=("paper",)),
        *(TaskSpec(f"fox_ocr_{lang}", name, "fox_ocr", lang, limit, None, "perpo-data fox") for lang in ("en", "cn")),
    )


def _problem(row: Row) -> str | None:
    if not isinstance(row["answer"], str) or not row["answer"].strip():
        return f"answer is {row['answer']!r:.60}; expected the text of the page"
    if not isinstance(row["question"], str):
        return f"question is {row['question']!r:.60}; expected a text, or an empty one for the usual prompt"
    return None


def _score(response: str, target: Any, size: ImageSize, family: Family) -> Scored:
    answer = text_answer(response, target)
    # The chat template ends before a blank or a line break, which some tokenizers give to the answer.
    text, truth = (answer or "").strip(), target.strip()
    page, swapped = score_page(text, truth), score_page(text, truth, swapped=True)
    scores = {name: getattr(page, name) for name in ("edit_distance", "f1", "precision", "recall", "bleu", "meteor")}
    scores |= {f"{name}:swapped": getattr(swapped, name) for name in ("precision", "recall", "bleu", "meteor")}
    scores[ocr.NORMALISED] = edit_distance(normal(text), normal(truth))
    return Scored(None if answer is None else text, scores, answer is not None)


PAGE_ROWS = RowFormat(
    "a page",
    ("question_id", "image", "question", "answer", "file_name"),
    "file_name",
    _problem,
    lambda row: [(str(row["question_id"]), row["question"].strip(), row["answer"])],
    has_layout=True,
)
"""The rows of every benchmark of pages."""

OCR_PAGES = Benchmark(
    info=_INFO,
    tasks=_tasks(),
    rows=PAGE_ROWS,
    prompt=lambda family, style: prompts.PAGE.template,
    default_query=prompts.PAGE.usual,
    score=_score,
    example="a",
    version="3",
    sources={"scorer": "perpo_eval.scorers.ocr", "normal form": "perpo.texts.normal"},
)
