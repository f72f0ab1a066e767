"""Referring expressions: a box for an expression. How they are asked and scored."""

from __future__ import annotations

import math
from typing import Any

from perpo.benchmarks import grounding
from perpo.benchmarks.prompts import LMMS_EVAL_GROUNDING
from perpo.boxes import ImageSize
from perpo.errors import PerpoError
from perpo.models.families import Family
from perpo.prepare.hub.rows import hub_tasks
from perpo_eval.benchmarks.base import Benchmark, PromptStyle, Row, RowFormat, Scored, TaskSpec, own_question
from perpo_eval.scorers.grounding import SIZES, score_box

_INFO = grounding.GROUNDING
_SPLITS = {"": ("val", "testA", "testB"), "+": ("val", "testA", "testB"), "g": ("val", "test")}


def _tasks() -> tuple[TaskSpec, ...]:
    """Return the tiny world's splits and the eight RefCOCO splits, the columns of the paper's table."""
    specs, hub, limit = [], hub_tasks(), _INFO.max_new_tokens
    for flavour, splits in _SPLITS.items():
        for split in splits:
            specs.append(TaskSpec(f"refshapes{flavour}_{split}", _INFO.name, f"refshapes{flavour}", split, limit))
            name = f"refcoco{flavour}_{split}"
            build = f"perpo-data refer --datasets refcoco{flavour}"
            specs.append(TaskSpec(name, _INFO.name, f"refcoco{flavour}", split, limit, hub[name], build))
    return tuple(specs)


def _problem(row: Row) -> str | None:
    texts, box = row["answer"], row["bbox"]
    if texts is None and not own_question(row):
        return "it has neither a list of expressions (answer) nor a question"
    if texts is not None and (not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts)):
        return f"answer is {texts!r}; expected a list of expressions, or null if the question is asked as it is"
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)) or min(box[2:]) <= 0:
        return f"bbox is {box!r:.60}; expected x, y, width, height in pixels"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _samples(row: Row) -> list[tuple[str, str, Any]]:
    x, y, width, height = row["bbox"]
    box = [x, y, x + width, y + height]
    texts = [own_question(row)] if row["answer"] is None else row["answer"]
    # A row may hold the same sentence twice; its place keeps the two apart.
    return [(f"{row['question_id']}/{place}", text, box) for place, text in enumerate(texts)]


def _prompt(family: Family, style: PromptStyle) -> str:
    if style == "lmms_eval" and family.box_format.scale != "0-1":
        raise PerpoError(
            f"the question of lmms-eval asks for numbers from 0 to 1, but boxes of {family.model_type} are read in "
            f"the scale {family.box_format.scale}",
            "leave --prompt_style out",
        )
    template = family.grounding_prompt if style == "paper" else LMMS_EVAL_GROUNDING
    return template.replace("{expression}", "{query}")


def _score(response: str, target: Any, size: ImageSize, family: Family) -> Scored:
    frames = (family.box_format.frame, *family.other_frames)
    if None in size:  # truths of one's own without pictures: both boxes count pixels, or both are shares of the sides
        scored = score_box(response, target, (1, 1), family.box_format, frames)
        unknown = [*family.other_frames, *(SIZES if family.box_format.scale != "pixels" else ())]
        scores = scored.scores | dict.fromkeys(f"acc@0.5:{name}" for name in unknown)
        return Scored(scored.prediction, scores, scored.prediction is not None)
    scored = score_box(response, target, size, family.box_format, frames)
    return Scored(scored.prediction, scored.scores, scored.prediction is not None)


GROUNDING = Benchmark(
    info=_INFO,
    tasks=_tasks(),
    rows=RowFormat(
        "RefCOCO",
        ("question_id", "image", "answer", "bbox", "file_name"),
        "file_name",
        _problem,
        _samples,
        as_written=lambda row: row["answer"] is None,
    ),
    prompt=_prompt,
    default_query="",
    score=_score,
    example=[0.0, 0.0, 1.0, 1.0],
    sources={
        "scorer": "perpo_eval.scorers.grounding",
        "boxes": "perpo.boxes.frames",
        "box text": "perpo.boxes.text",
        "box formats": "perpo.boxes.formats",
        "families": "perpo.models.families",
    },
)
