"""OmniDocBench's text and reading order. How its pages are asked and scored."""

from __future__ import annotations

import json
from typing import Any

from perpo.answers import answer_of
from perpo.benchmarks import omnidocbench_simple, prompts
from perpo.boxes import ImageSize
from perpo.models.families import Family
from perpo_eval.benchmarks.base import Benchmark, Row, RowFormat, Scored, TaskSpec
from perpo_eval.benchmarks.ocr import PAGE_ROWS
from perpo_eval.scorers.omnidocbench_simple import score_page_blocks

_INFO = omnidocbench_simple.OMNIDOCBENCH_SIMPLE
_EXAMPLE = {"language": next(iter(omnidocbench_simple.LANGUAGES)), "blocks": []}


def _problem(row: Row) -> str | None:
    try:
        target = json.loads(row["answer"])
        blocks, language = target["blocks"], target["language"]
        whole = isinstance(language, str) and all(_is_block(block) for block in blocks)
    except (TypeError, ValueError, KeyError):
        whole = False
    if not whole:
        return f"answer is {row['answer']!r:.60}; expected the language and blocks of a page, as JSON"
    return PAGE_ROWS.problem(row)


def _is_block(block: Any) -> bool:
    texts = isinstance(block["category"], str) and isinstance(block["text"], str)
    return texts and isinstance(block["order"], int | None)


def _score(response: str, target: Any, size: ImageSize, family: Family) -> Scored:
    answer = answer_of(response, "text")
    scores = score_page_blocks(answer or "", target)
    of_languages = {f"text_edit:{name}": scores.get(f"text_edit:{name}") for name in omnidocbench_simple.LANGUAGES}
    told = {name: scores[name] for name in ("text_edit", "reading_order", "page_edit")}
    return Scored(None if answer is None else answer.strip(), told | of_languages, answer is not None)


OMNIDOCBENCH_SIMPLE = Benchmark(
    info=_INFO,
    tasks=(
        TaskSpec(
            "omnidocbench_pages",
            _INFO.name,
            "omnidocbench",
            "pages",
            _INFO.max_new_tokens,
            None,
            "perpo-data omnidocbench",
        ),
    ),
    rows=RowFormat(
        "a page with its blocks",
        PAGE_ROWS.columns,
        PAGE_ROWS.image_name,
        _problem,
        lambda row: [(str(row["question_id"]), row["question"].strip(), json.loads(row["answer"]))],
    ),
    prompt=lambda family, style: prompts.MARKDOWN_PAGE.template,
    default_query=prompts.MARKDOWN_PAGE.usual,
    score=_score,
    example=_EXAMPLE,
    sources={
        "scorer": "perpo_eval.scorers.omnidocbench_simple",
        "blocks": "perpo.texts.page_blocks",
        "formulas in lines": "perpo.texts.inline_formulas",
    },
)
