"""The kinds of benchmark: how their rows are read, what is asked, and how an answer is scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from perpo.answers import answer_of
from perpo.benchmarks import prompts
from perpo.benchmarks.metrics import LLAVA_BENCH_CATEGORIES, MMHAL_TYPES, score_names
from perpo.benchmarks.prompts import AS_WRITTEN, LMMS_EVAL_GROUNDING, Asking
from perpo.boxes import ImageSize
from perpo.errors import PerpoError
from perpo.models.families import Family
from perpo_eval.documents import Row, RowFormat
from perpo_eval.scorers.grounding import score_box
from perpo_eval.scorers.ocr import score_page
from perpo_eval.scorers.pope import parse_answer, score_answer

PromptStyle = Literal["paper", "lmms_eval"]


@dataclass(frozen=True)
class Scored:
    """What became of one answer.

    Attributes:
        prediction: The answer as read (for JSON), or None if it could not be read.
        scores: A number for each score; None where it does not apply or could not be had.
        readable: Whether the response holds an answer that could be read.
    """

    prediction: Any
    scores: dict[str, float | None]
    readable: bool


@dataclass(frozen=True)
class Benchmark:
    """One kind of benchmark.

    Attributes:
        name: A key of `perpo.benchmarks.metrics.BENCHMARKS`.
        rows: How its rows are read.
        prompt: The question for a family in a style, with `{query}` in it.
        default_query: What is asked where a row does not say.
        score: Scores a response against the target, given the size of the image.
        has_boxes: Whether answers refer to a frame.
    """

    name: str
    rows: RowFormat
    prompt: Callable[[Family, PromptStyle], str]
    default_query: str
    score: Callable[[str, Any, ImageSize, Family], Scored]
    has_boxes: bool = False

    def question(self, query: str, template: str) -> str:
        """The user's turn: `query` in the place that `template` has for it."""
        return Asking(template, self.default_query)(query)

    def asked(self, doc: Mapping[str, Any], template: str) -> str:
        """The user's turn for a document: its own question as it is written, or what it names in the template."""
        return self.question(doc["query"], "{query}" if doc["as_written"] else template)


def _grounding_problem(row: Row) -> str | None:
    texts, box = row["answer"], row["bbox"]
    if texts is None and not _own_question(row):
        return "it has neither expressions (answer) nor a question"
    if texts is not None and (not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts)):
        return f"answer is {texts!r}; expected a list of expressions, or null where the question is asked as it is"
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)) or min(box[2:]) <= 0:
        return f"bbox is {box!r:.60}; expected x, y, width, height in pixels"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _grounding_samples(row: Row) -> list[tuple[str, str, Any]]:
    x, y, width, height = row["bbox"]
    box = [x, y, x + width, y + height]
    texts = [_own_question(row)] if row["answer"] is None else row["answer"]
    # A row may hold the same sentence twice; its place keeps the two apart.
    return [(f"{row['question_id']}/{place}", text, box) for place, text in enumerate(texts)]


def _own_question(row: Row) -> str:
    """The whole question of a row without expressions; RefCOCO's rows have another one beside theirs, for captions."""
    question = row.get("question")
    return question.strip() if isinstance(question, str) else ""


def _grounding_prompt(family: Family, style: PromptStyle) -> str:
    if style == "lmms_eval" and family.box_format.scale != "0-1":
        raise PerpoError(
            f"lmms-eval's question asks for numbers from 0 to 1, and boxes of {family.model_type} are read as "
            f"{family.box_format.scale}",
            "leave --prompt_style out",
        )
    template = family.grounding_prompt if style == "paper" else LMMS_EVAL_GROUNDING
    return template.replace("{expression}", "{query}")


def _grounding_score(response: str, target: Any, size: ImageSize, family: Family) -> Scored:
    frames = (family.box_format.frame, *family.other_frames)
    scored = score_box(response, target, size, family.box_format, frames)
    return Scored(scored.prediction, scored.scores, scored.prediction is not None)


GROUNDING = Benchmark(
    name="grounding",
    rows=RowFormat(
        "RefCOCO",
        ("question_id", "image", "answer", "bbox", "file_name"),
        "file_name",
        _grounding_problem,
        _grounding_samples,
        as_written=lambda row: row["answer"] is None,
    ),
    prompt=_grounding_prompt,
    default_query="",
    score=_grounding_score,
    has_boxes=True,
)


def _pope_problem(row: Row) -> str | None:
    if not isinstance(row["question"], str) or not row["question"].strip():
        return f"question is {row['question']!r}; expected a text"
    if row["answer"] not in ("yes", "no"):
        return f"answer is {row['answer']!r}; expected yes or no"
    return None


def _pope_score(response: str, target: Any, size: ImageSize, family: Family) -> Scored:
    scores: dict[str, float | None] = dict(score_answer(response, target))
    return Scored(parse_answer(response), scores, not scores["parse_fail"])


POPE = Benchmark(
    name="pope",
    rows=RowFormat(
        "POPE",
        ("question_id", "image", "question", "answer", "image_source"),
        "image_source",
        _pope_problem,
        lambda row: [(str(row["question_id"]), row["question"].strip(), row["answer"])],
    ),
    prompt=lambda family, style: prompts.POPE.template,
    default_query=prompts.POPE.usual,
    score=_pope_score,
)


def _ocr_problem(row: Row) -> str | None:
    if not isinstance(row["answer"], str) or not row["answer"].strip():
        return f"answer is {row['answer']!r:.60}; expected the text of the page"
    if not isinstance(row["question"], str):
        return f"question is {row['question']!r:.60}; expected a text, or an empty one for the usual prompt"
    return None


def _ocr_score(response: str, target: Any, size: ImageSize, family: Family) -> Scored:
    answer = answer_of(response, "text")
    # The chat template ends before a blank or a line break, which some tokenizers give to the answer.
    text, truth = (answer or "").strip(), target.strip()
    page, swapped = score_page(text, truth), score_page(text, truth, swapped=True)
    scores = {name: getattr(page, name) for name in ("edit_distance", "f1", "precision", "recall", "bleu", "meteor")}
    scores |= {f"{name}:swapped": getattr(swapped, name) for name in ("precision", "recall", "bleu", "meteor")}
    return Scored(None if answer is None else text, scores, answer is not None)


OCR_PAGES = Benchmark(
    name="ocr",
    rows=RowFormat(
        "a page",
        ("question_id", "image", "question", "answer", "file_name"),
        "file_name",
        _ocr_problem,
        lambda row: [(str(row["question_id"]), row["question"].strip(), row["answer"])],
    ),
    prompt=lambda family, style: prompts.PAGE.template,
    default_query=prompts.PAGE.usual,
    score=_ocr_score,
)


def _text_problem(row: Row, *names: str) -> str | None:
    bad = next((name for name in names if not isinstance(row[name], str) or not row[name].strip()), None)
    return bad and f"{bad} is {row[bad]!r:.60}; expected a text"


def _llava_bench_problem(row: Row) -> str | None:
    if row["category"] not in LLAVA_BENCH_CATEGORIES:
        return f"category is {row['category']!r:.40}; expected {', '.join(LLAVA_BENCH_CATEGORIES)}"
    return _text_problem(row, "question", "caption", "reference")


def _mmhal_problem(row: Row) -> str | None:
    if row["question_type"] not in MMHAL_TYPES:
        return f"question_type is {row['question_type']!r:.40}; expected one of {', '.join(MMHAL_TYPES)}"
    names = row["image_content"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return f"image_content is {names!r:.60}; expected a list of names"
    return _text_problem(row, "question", "gt_answer")


def _unjudged(name: str) -> Callable[[str, Any, ImageSize, Family], Scored]:
    """A judge scores later (`perpo_eval.judged`): until then every score is None."""

    def score(response: str, target: Any, size: ImageSize, family: Family) -> Scored:
        return Scored(None, dict.fromkeys(score_names(name)), answer_of(response, "text") is not None)

    return score


LLAVA_BENCH = Benchmark(
    name="llava_bench",
    rows=RowFormat(
        "LLaVA-Bench-in-the-Wild",
        ("question_id", "image", "question", "category", "caption", "reference", "file_name"),
        "file_name",
        _llava_bench_problem,
        lambda row: [
            (
                str(row["question_id"]),
                row["question"],
                {name: row[name] for name in ("category", "caption", "reference")},
            )
        ],
    ),
    prompt=lambda family, style: AS_WRITTEN.template,
    default_query=AS_WRITTEN.usual,
    score=_unjudged("llava_bench"),
)

MMHAL = Benchmark(
    name="mmhal",
    rows=RowFormat(
        "MMHal-Bench",
        ("question_id", "image", "question", "question_type", "image_content", "gt_answer", "file_name"),
        "file_name",
        _mmhal_problem,
        lambda row: [
            (
                str(row["question_id"]),
                row["question"],
                {
                    "category": row["question_type"],
                    "image_content": row["image_content"],
                    "reference": row["gt_answer"],
                },
            )
        ],
    ),
    prompt=lambda family, style: AS_WRITTEN.template,
    default_query=AS_WRITTEN.usual,
    score=_unjudged("mmhal"),
)

BENCHMARKS = {benchmark.name: benchmark for benchmark in (GROUNDING, POPE, OCR_PAGES, LLAVA_BENCH, MMHAL)}
