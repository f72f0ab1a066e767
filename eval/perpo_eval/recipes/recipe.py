"""The parts of a recipe: its questions, its data, its experiments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perpo.common.hints import did_you_mean
from perpo.common.numbers import Count, Share
from perpo.errors import PerpoError


@dataclass(frozen=True, kw_only=True)
class TinyQuestions:
    """Questions about the tiny world: `images` pictures, answers loose for a share of the shapes."""

    images: Count
    per_image: Count = 2
    loose: Share = 0.0


@dataclass(frozen=True, kw_only=True)
class TinyPages:
    """Dense pages of the tiny world, with a question each; `sloppy` is the share of slips in their transcripts."""

    pages: Count
    sloppy: Share = 0.0


@dataclass(frozen=True)
class DataFile:
    """Questions or preference records in a file, and the folder that their image paths start from."""

    file: Path
    image_root: Path


@dataclass(frozen=True)
class PdfPages:
    """Pages of a folder of PDF files: questions for training, and rows for evaluation of documents that are held out.

    Attributes:
        folder: The PDF files.
        settings: Arguments of perpo-data pdf.
    """

    folder: Path
    settings: dict[str, Any]


@dataclass(frozen=True)
class PagesPart:
    """Some of the questions about pages of PDF files, in their order: `count` of them, from number `start`, from 0."""

    of: str
    start: int
    count: int


@dataclass(frozen=True)
class Teaching:
    """A training of all weights of the recipe's model, before all else; experiments start from the result."""

    data: str
    train: dict[str, Any]


@dataclass(frozen=True)
class SampledData:
    """Preference records: candidates that the recipe's model gives once for the questions of other data."""

    questions: str


Source = DataFile | TinyQuestions | TinyPages | PdfPages | PagesPart | SampledData
"""Where a named set of questions or records of a recipe is from."""


@dataclass(frozen=True)
class Experiment:
    """One row of the leaderboard: what it is trained on and how; without `train`, the model as it is."""

    data: str | None = None
    rounds: int = 0
    sample: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] | None = None


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; see the module's docstring for the fields."""

    name: str
    model: str
    seed: int
    note: str
    data: dict[str, Source]
    sample: dict[str, Any]
    train: dict[str, Any]
    evaluate: dict[str, Any]
    experiments: dict[str, Experiment]
    base: str
    teach: Teaching | None
    against: str | None
    benchmark: str


def choose(recipe: Recipe, only: Sequence[str]) -> list[str]:
    """Return the experiments to run, in the recipe's order.

    Raises:
        PerpoError: One of `only` is none of the recipe's.
    """
    for name in only:
        if name not in recipe.experiments:
            raise PerpoError(
                f"the recipe {recipe.name} has no experiment '{name}'", did_you_mean(name, recipe.experiments)
            )
    return [name for name in recipe.experiments if name in only or not only]
