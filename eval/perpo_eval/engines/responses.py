"""Answers, and the journal that keeps each one from the moment it is given.

A journal belongs to one way of answering: the weights, the adapter, the processor, the type of the numbers
and how tokens are drawn. An answer in it is found by the digest of its question, its image and its token
limit. So a run that was killed continues, and a checkpoint that was trained again at the same place never
meets old answers. Each process of a run writes a journal of its own; all are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perpo.common.journal import Journal, drop_rows, finished_rows
from perpo.data.rows import read_rows
from perpo.errors import PerpoError

_FOLDER = ".responses"


@dataclass(frozen=True)
class Response:
    """One answer.

    Attributes:
        text: What was said, without special tokens, cut at a stop string.
        prompt: What the model read; None where that is not known.
        tokens_out: Generated tokens, the end token included, or None.
        finish_reason: "stop" (end token or stop string), "length" (cut at the token limit), "repetition" (cut as it
            looped), or None.
        latency_ms: Wall time of its batch divided by the batch's size, or None.
        batch_limit: At most so many questions were asked at once then; None where that changes no answer.
        error: Why there is no answer (`text` is "" then), or None.
        question: What was asked, of an answer that was made elsewhere; None for what the task asks.
    """

    text: str
    prompt: str | None = None
    tokens_out: int | None = None
    finish_reason: str | None = None
    latency_ms: float | None = None
    batch_limit: int | None = None
    error: str | None = None
    question: str | None = None


def response_key(question: str, image_sha256: str, settings: str) -> str:
    """Return what an answer depends on beside the model: the user's turn, the image, and how tokens are chosen."""
    return hashlib.sha256("\x1f".join((question, image_sha256, settings)).encode()).hexdigest()


class ResponseJournal:
    """The answers of one way of answering, in a hidden folder of the results.

    Args:
        output: The results folder.
        identity: All that answers depend on beside question, image and token limit.
        rank: This process's number; it writes to a file of its own.

    Raises:
        PerpoError: Another process has this journal open.
    """

    def __init__(self, output: Path, identity: Mapping[str, Any], rank: int = 0) -> None:
        self._key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._folder = output / _FOLDER
        self._own = Journal(self._folder / f"{self._key[:24]}.{rank}.jsonl", self._key)

    def answers(self) -> dict[str, Response]:
        """Return every answer and failure so far, of all processes and all earlier runs, by its key; an answer counts
        more.
        """
        responses: dict[str, Response] = {}
        for file in self._files():
            for key, row in finished_rows(file, self._key).items():
                response = Response(**{name: value for name, value in row.items() if name != "id"})
                if response.error is None or key not in responses:
                    responses[key] = response
        return responses

    def append(self, answers: Mapping[str, Response]) -> None:
        """Keep answers; when it returns they are on the disk."""
        self._own.append({"id": key, **asdict(response)} for key, response in answers.items())

    def close(self) -> None:
        """Let another process open it."""
        self._own.close()

    def forget(self, keys: Iterable[str]) -> None:
        """Drop answers that a stored run holds; files without any other are deleted. Closes the journal."""
        self.close()
        used = set(keys)
        for file in self._files():
            drop_rows(file, self._key, used)
        with suppress(OSError):  # it holds other journals
            self._folder.rmdir()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._key[:24]}.*.jsonl"))


def read_responses(path: Path) -> dict[str, Response]:
    """Read answers that were made elsewhere.

    Args:
        path: JSON lines (or a list) with `sample_key` and `response`, and `question` where it is known what was asked.

    Returns:
        The responses by their sample key.

    Raises:
        PerpoError: A row without the two, two answers to one sample, or a question that is none.
    """
    responses: dict[str, Response] = {}
    for number, row in enumerate(read_rows(path), start=1):
        key, text = (row.get(name) if isinstance(row, Mapping) else None for name in ("sample_key", "response"))
        if not isinstance(key, str) or not isinstance(text, str):
            raise PerpoError(
                f"{path}, row {number}: expected sample_key and response, both texts; found {row!r:.80}",
                "perpo-eval --questions FILE writes the questions with their sample_key",
            )
        if key in responses:
            raise PerpoError(f"{path}, row {number}: a second response to sample {key[:12]}...", "keep one of them")
        question = row.get("question")
        if question is not None and (not isinstance(question, str) or not question.strip()):
            raise PerpoError(
                f"{path}, row {number}: expected the question that was asked as `question`, found {question!r:.40}",
                "leave it out",
            )
        responses[key] = Response(text, question=question)
    return responses
