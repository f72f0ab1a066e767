"""The parts of a recipe: its questions, its data, its experiments."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perpo.common.numbers import Count, Share


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
class SampledData:
    """Preference records: candidates that the recipe's model gives once for the questions of other data."""

    questions: str


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
    data: dict[str, DataFile | TinyQuestions | TinyPages | SampledData]
    sample: dict[str, Any]
    train: dict[str, Any]
    evaluate: dict[str, Any]
    experiments: dict[str, Experiment]
    base: str
    against: str | None
    benchmark: str
