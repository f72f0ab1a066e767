"""Questions with truths as they are asked: for sampling and for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpo.boxes import ImageSize
from perpo.data import Question, data_sha256
from perpo.data.images import image_size


@dataclass(frozen=True)
class Asked:
    """A question that is asked, and what is known of its image."""

    question: Question
    image_size: ImageSize
    image_sha256: str

    @property
    def sample(self) -> dict[str, Any]:
        """What a reward function is given."""
        return vars(self.question) | {"image_size": self.image_size}


def asked_of(questions: Sequence[Question], image_root: Path) -> list[Asked]:
    """The questions with what is to be known of their images."""
    images: dict[str, tuple[ImageSize, str]] = {}
    for name in {question.image_path for question in questions}:
        path = image_root / name
        images[name] = image_size(path), data_sha256(path)
    return [Asked(question, *images[question.image_path]) for question in questions]
