"""What a benchmark is: its rows, its question, its scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from perpo.benchmarks.prompts import Asking
from perpo.boxes import ImageSize
from perpo.models.families import Family

PromptStyle = Literal["paper", "lmms_eval"]
Row = Mapping[str, Any]


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
class RowFormat:
    """How a benchmark's rows are read.

    Attributes:
        name: Whose columns they are, for messages.
        columns: What a row must have, the image among them.
        image_name: The column that names the image.
        problem: What is wrong with a row that has its columns, or None.
        samples: What a row asks: (source id, query, target) of each of its samples.
        as_written: Whether a row's queries are whole questions, which are asked as they are.
    """

    name: str
    columns: tuple[str, ...]
    image_name: str
    problem: Callable[[Row], str | None]
    samples: Callable[[Row], list[tuple[str, str, Any]]]
    as_written: Callable[[Row], bool] = lambda row: False


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


def own_question(row: Row) -> str:
    """The whole question of a row without expressions; RefCOCO's rows have another one beside theirs, for captions."""
    question = row.get("question")
    return question.strip() if isinstance(question, str) else ""
