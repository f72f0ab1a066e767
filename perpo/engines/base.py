"""Engines: questions about pictures in, answers out.

perpo-sample, validation during training and perpo-eval's own engine ask through this protocol and know nothing else of
who answers. A new engine is one file in this folder, and one line in `perpo.engines.choice`. Needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from perpo.common.numbers import Count, Seed64, ShareAboveZero, ZeroOrMore, check_numbers
from perpo.data.images import open_image
from perpo.errors import PerpoError
from perpo.texts.repetition import ends_in_loop

if TYPE_CHECKING:
    from PIL import Image

    from perpo.data import Question
    from perpo.models.families import Family


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Settings by which tokens are chosen, checked as they are made; each field is called as the flag is.

    Attributes:
        max_new_tokens: Longest answer, the end token included.
        num_candidates: Answers to each question.
        temperature: Divides the logits; 0 takes the most probable token.
        top_p: Draw from the fewest tokens whose probabilities reach this.
        seed: Of the random numbers.
        logps: Whether log-probabilities are wanted. An engine that is not asked for them may go a faster way.
        stop_on_repetition: Whether an answer ends where it loops (`perpo.texts.repetition`).

    Raises:
        PerpoError: A value is out of its range.
    """

    max_new_tokens: Count
    num_candidates: Count = 1
    temperature: ZeroOrMore = 0.0
    top_p: ShareAboveZero = 1.0
    seed: Seed64 = 0
    logps: bool = True
    stop_on_repetition: bool = False

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True)
class Query:
    """A question about a picture, as an engine is asked.

    Attributes:
        question: The user's turn.
        image: The picture, as `perpo.data.images.open_image` gives it. Queries that share a picture hold one object.
        draw: Picks the random numbers together with the seed, so that an answer depends on no other query.
        file: Where the picture was read from, if it is a file that others may read for themselves.
    """

    question: str
    image: Image.Image
    draw: int = 0
    file: Path | None = None


@dataclass(frozen=True)
class NoAnswer:
    """A query that got no answer: it is missing, and no empty answer.

    Attributes:
        why: The reason, in one sentence.
        ends: The error that ends the run when what was answered is kept; None where other queries may go on.
    """

    why: str
    ends: PerpoError | None = None


@dataclass(frozen=True)
class Answer:
    """One answer as text.

    Attributes:
        text: Without control tokens (`perpo.models.control_tokens`) and the space around it: what is trained on.
        truncated: Whether it has no end token, as it was cut: by the token limit, or where it looped.
        logp: Sum of the log-probabilities (nats, at temperature 1) of its tokens, with the end token
            unless truncated; None where `perpo.models.loaded.answers_token_ids` of the text gives other
            tokens than were sampled, as training could not use it then, and where it was not asked for.
        opened: The mark of a thought that the prompt ended with, so that the text begins within it; else empty.
        whole: All that was said, the space around it too; None where that is `text`.
        tokens: How many were generated, the end token included; None where that is not known.
        stopped: Whether it was cut where it looped (`Decoding.stop_on_repetition`); then `truncated` too.
    """

    text: str
    truncated: bool
    logp: float | None
    opened: str = ""
    whole: str | None = None
    tokens: int | None = None
    stopped: bool = False

    @property
    def said(self) -> str:
        """Return what rewards read: the text with the mark, without which a thought that was cut would look like an
        answer.
        """
        return self.opened + self.text

    @property
    def looped(self) -> bool:
        """Return whether it ends in a loop, whatever ended it."""
        return ends_in_loop(self.text if self.whole is None else self.whole)

    @property
    def finish_reason(self) -> Literal["stop", "length", "repetition"]:
        """Return why it ends: the model ended it, the token limit cut it, or it looped and was stopped."""
        if self.stopped:
            return "repetition"
        return "length" if self.truncated else "stop"


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """Facts about an engine that records hold, and that its users must know.

    Attributes:
        name: The kind of engine, such as "hf".
        model: The model as the user named it.
        by_batch: Whether an answer may depend on what else is in its batch.
        dtype: Type of the weights; None where that is not known.
        weights_sha256: Of the base; None where the weights are not at hand.
        adapter_sha256: Of the adapter, if there is one.
        family: What is known of the model's family, or None.
        processor: The class that makes tokens of pictures, or None.
        attention: How attention is computed, or None.
        device: Where the model is, as torch calls it; None where that is another machine.
        served: What is known of the server, or of another program's engine, that answers; None where ours does.
        stops_loops: Whether it can stop an answer that loops.
    """

    name: str
    model: str
    by_batch: bool
    dtype: str | None = None
    weights_sha256: str | None = None
    adapter_sha256: str | None = None
    family: Family | None = None
    processor: str | None = None
    attention: str | None = None
    device: str | None = None
    served: Mapping[str, Any] | None = None
    stops_loops: bool = False

    def check_stopping(self, *, wanted: bool) -> None:
        """Refuse to stop answers that loop where the engine cannot.

        Raises:
            PerpoError: It is wanted, and it cannot.
        """
        if wanted and not self.stops_loops:
            raise PerpoError(
                f"the engine {self.name} cannot stop an answer that loops",
                "leave --stop_on_repetition out: answers that end in a loop are counted anyhow",
            )


class Engine(Protocol):
    """A model that is ready to answer."""

    @property
    def info(self) -> EngineInfo:
        """Return what records say of it."""
        ...

    def check(self, questions: Sequence[Question], image_root: Path, decoding: Decoding) -> None:
        """Refuse questions of a file that could not be answered, before the first is asked.

        Args:
            questions: All of them, with their truths.
            image_root: Folder that their image paths start from.
            decoding: How they are to be answered.

        Raises:
            PerpoError: One does not fit the model's context together with an answer; or a text spells what steers
                the model.
        """
        ...

    def prompt(self, question: str) -> str:
        """Return what the model reads before it answers, with a placeholder for the picture.

        Raises:
            PerpoError: The question spells what steers the model.
        """
        ...

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Return how long prompts are in tokens; pictures of one size count alike."""
        ...

    def answers(self, queries: Sequence[Query], decoding: Decoding) -> Sequence[list[Answer] | NoAnswer]:
        """Answer one batch.

        Args:
            queries: What is asked.
            decoding: How tokens are chosen.

        Returns:
            For each query its answers, `decoding.num_candidates` of them; or why there are none.

        Raises:
            PerpoError: A query does not fit the model's context together with an answer.
            RuntimeError: Memory does not suffice; `perpo.engines.batches.BatchLimit` then asks for less at once.
        """
        ...


def ask(
    engine: Engine, numbered: Sequence[tuple[int, Question]], image_root: Path, decoding: Decoding
) -> Sequence[list[Answer] | NoAnswer]:
    """Answer one batch of a file's questions.

    Args:
        engine: What answers.
        numbered: Questions with their index in the file, which picks their random numbers.
        image_root: Folder that their image paths start from.
        decoding: How tokens are chosen.

    Returns:
        For each question its answers, or why there are none.
    """
    queries = []
    for index, question in numbered:
        file = image_root / question.image_path
        queries.append(Query(question.question, open_image(file), index, file))
    return engine.answers(queries, decoding)


def first_seed(decoding: Decoding, draw: int) -> int:
    """Return the seed of a query's first candidate; candidate i has this plus i, as vLLM counts.

    Where `draw` counts questions, no two candidates of a run share a seed. Where it is a digest (perpo-eval), and
    between runs of different seeds, they share one by chance alone (2^-32 and 2^-21 for a pair).
    """
    run = int.from_bytes(hashlib.sha256(str(decoding.seed).encode()).digest()[:4]) >> 11
    place = draw * decoding.num_candidates
    return (run << 32) + place % 2**32  # below 2^53, which is what every reader of JSON keeps
