"""The parts of a benchmark: its tasks, its rows, its question, its scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from perpo.benchmarks.base import BenchmarkInfo
from perpo.benchmarks.prompts import Asking
from perpo.boxes import ImageSize
from perpo.models.families import Family
from perpo.prepare.hub.rows import HubTask

PromptStyle = Literal["paper", "lmms_eval"]
Row = Mapping[str, Any]

TINY_TOKENS = 64
"""Where answers to the tiny world's questions are cut."""

TINY_PAGE_TOKENS = 240
"""Where answers to its dense pages are cut."""


@dataclass(frozen=True)
class Scored:
    """One answer as it was scored.

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
    """The way in which a benchmark's rows are read.

    Attributes:
        name: Whose columns they are, for messages.
        columns: What a row must have, the image among them.
        image_name: The column that names the image.
        problem: What is wrong with a row that has its columns, or None.
        samples: What a row asks: (source id, query, target) of each of its samples.
        as_written: Whether a row's queries are whole questions, which are asked as they are.
        has_layout: Whether a row may say in `layout` how its page is laid out.
    """

    name: str
    columns: tuple[str, ...]
    image_name: str
    problem: Callable[[Row], str | None]
    samples: Callable[[Row], list[tuple[str, str, Any]]]
    as_written: Callable[[Row], bool] = lambda row: False
    has_layout: bool = False


@dataclass(frozen=True)
class TaskSpec:
    """One task.

    Attributes:
        name: As in the task files.
        benchmark: A key of `perpo_eval.benchmarks.table.BENCHMARKS`.
        dataset: Name of the data set, such as refcoco+.
        split: Name of the split.
        max_new_tokens: Where an answer is cut.
        hub: Its rows on the hub, or None.
        build: The command that makes its file.
        named_in: Suites that run it only where it is named: the embedded default was not taught it.
    """

    name: str
    benchmark: str
    dataset: str
    split: str
    max_new_tokens: int
    hub: HubTask | None = None
    build: str = ""
    named_in: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """Return what it is averaged with: its benchmark, or nothing but itself (a file of one's own, a language)."""
        alone = (self.name, "fox_ocr", "ocrbench_v2", "tinydense")
        return self.name if self.dataset in alone else self.benchmark

    @property
    def tiny(self) -> bool:
        """Return whether the tiny world draws it."""
        return self.dataset.startswith(("refshapes", "tiny"))


@dataclass(frozen=True)
class Benchmark:
    """One kind of benchmark: what asks and scores it.

    Attributes:
        info: What is known of it besides.
        tasks: Its tasks that have names of their own.
        rows: How its rows are read.
        prompt: The question for a family in a style, with `{query}` in it.
        default_query: What is asked where a row does not say.
        score: Scores a response against the target, given the size of the image.
        example: A target, of which the names of the scores are learnt.
        version: Of its scores: runs of one version may be compared. It counts up whenever an answer can get another
            score than before.
        sources: The modules that read and score its answers, beside its own two files, by what they do.
    """

    info: BenchmarkInfo
    tasks: tuple[TaskSpec, ...]
    rows: RowFormat
    prompt: Callable[[Family, PromptStyle], str]
    default_query: str
    score: Callable[[str, Any, ImageSize, Family], Scored]
    example: Any = None
    version: str = "2"
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As in records, a key of `perpo.benchmarks.table.INFO`."""
        return self.info.name

    @property
    def has_boxes(self) -> bool:
        """Return whether answers refer to a frame."""
        return self.info.has_boxes

    def question(self, query: str, template: str) -> str:
        """Return the user's turn: `query` in the place that `template` has for it."""
        return Asking(template, self.default_query)(query)

    def asked(self, doc: Mapping[str, Any], template: str) -> str:
        """Return the user's turn for a document: its own question as it is written, or what it names in the
        template.
        """
        return self.question(doc["query"], "{query}" if doc["as_written"] else template)


def own_question(row: Row) -> str:
    """Return the whole question of a row without expressions; RefCOCO's rows have another one beside theirs, for
    captions.
    """
    question = row.get("question")
    return question.strip() if isinstance(question, str) else ""
