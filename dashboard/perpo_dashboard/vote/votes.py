"""Blind votes: which questions are asked, in which order and on which side, and what people answered. No Streamlit.

votes.jsonl beside the records holds three kinds of lines: a study (which two runs, which questions), a vote, and that
a voter opened a result. Lines are only added. Of two votes of one person on one question the later counts, and none
that came after the person had seen the names.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, Discriminator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from perpo.common.times import in_utc
from perpo.errors import PerpoError
from perpo.results.samples import Scores
from perpo_dashboard.shared import json_lines

VOTES_FILE = "votes.jsonl"
Choice = Literal["left", "right", "tie", "both bad"]
Outcome = Literal["first", "second", "tie", "both bad"]
OUTCOMES: tuple[Outcome, ...] = ("first", "second", "tie", "both bad")
_STRICT = ConfigDict(extra="forbid", strict=True)


class AskedSample(NamedTuple):
    """A sample that people are asked about."""

    task: str
    sample_key: str


def _time(text: str) -> str:
    in_utc(text)  # raises ValueError where it is none, and the line counts as unread
    return text


@checked(frozen=True, config=_STRICT)
class Study:
    """A blind vote: what is asked.

    Attributes:
        id: Names it in addresses; says nothing about the runs.
        created_utc: When it was set up, ISO 8601.
        seed: Shuffles questions and sides; also drew the questions.
        runs: Ids of the two runs.
        samples_sha256: Of their samples.parquet, so that nobody votes on other answers.
        questions: What is asked, in no order that matters.
        alike: Questions of these tasks that were left out because both runs gave the same answer.
    """

    id: str
    created_utc: Annotated[str, AfterValidator(_time)]
    seed: int
    runs: tuple[str, str]
    samples_sha256: tuple[str, str]
    questions: Annotated[tuple[AskedSample, ...], Field(min_length=1)]
    alike: int
    kind: Literal["study"] = "study"

    @property
    def day(self) -> date:
        """The day in UTC on which it was set up."""
        return in_utc(self.created_utc).date()

    @property
    def tasks(self) -> list[str]:
        """The tasks that it asks about, by name."""
        return sorted({question.task for question in self.questions})


@checked(frozen=True, config=_STRICT)
class Vote:
    """An answer of somebody to a question; `left` is the id of the run whose answer stood there."""

    study: str
    voter: str
    task: str
    sample_key: str
    left: str
    choice: Choice
    created_utc: str
    kind: Literal["vote"] = "vote"


@checked(frozen=True, config=_STRICT)
class Opened:
    """Somebody saw the result, and with it the names."""

    study: str
    voter: str
    created_utc: str
    kind: Literal["opened"] = "opened"


_LINE: TypeAdapter[Study | Vote | Opened] = TypeAdapter(Annotated[Study | Vote | Opened, Discriminator("kind")])


@dataclass(frozen=True)
class Ballots:
    """The content of a votes.jsonl.

    Attributes:
        studies: By id, the oldest first.
        votes: Per study and voter the vote that counts on each question.
        late: Per study, votes that do not count because their voter had opened the result before.
        seen: (study, voter) of who opened a result.
        unread: Lines that make no sense.
    """

    studies: dict[str, Study]
    votes: dict[str, dict[str, dict[AskedSample, Vote]]]
    late: Counter[str]
    seen: set[tuple[str, str]]
    unread: int

    def of(self, study: Study, voter: str) -> dict[AskedSample, Vote]:
        """Return what somebody voted so far."""
        return self.votes.get(study.id, {}).get(voter, {})

    def outcomes(self, study: Study) -> dict[str, dict[AskedSample, Outcome]]:
        """Per voter, by name, what won each question."""
        votes_by_voter = self.votes.get(study.id, {})
        return {
            voter: {q: outcome(study, vote) for q, vote in votes_by_voter[voter].items()}
            for voter in sorted(votes_by_voter)
        }


def read(path: Path) -> Ballots:
    """Return the votes so far; none where there is no file.

    Raises:
        PerpoError: The file cannot be read.
    """
    rows, unread = json_lines.read(path)
    studies: dict[str, Study] = {}
    asked: dict[str, set[AskedSample]] = {}
    votes: dict[str, dict[str, dict[AskedSample, Vote]]] = defaultdict(lambda: defaultdict(dict))
    late: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    for row in map(_parsed, rows):
        if isinstance(row, Study):
            studies[row.id] = row
            asked[row.id] = set(row.questions)
        elif isinstance(row, Opened):
            seen.add((row.study, row.voter))
        elif (
            row is None
            or AskedSample(row.task, row.sample_key) not in asked.get(row.study, ())
            or (row.left not in studies[row.study].runs)
        ):
            unread += 1
        elif (row.study, row.voter) in seen:
            late[row.study] += 1
        else:
            votes[row.study][row.voter][AskedSample(row.task, row.sample_key)] = row
    return Ballots(studies, {study: dict(voters) for study, voters in votes.items()}, late, seen, unread)


def _parsed(row: dict[str, Any]) -> Study | Vote | Opened | None:
    try:
        return _LINE.validate_json(json.dumps(row))
    except ValidationError:
        return None


def add(path: Path, row: Study | Vote | Opened) -> None:
    """Keep it for good.

    Raises:
        PerpoError: The file cannot be written.
    """
    json_lines.append(path, asdict(row))


def now() -> str:
    """Return the time as it is written."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def outcome(study: Study, vote: Vote) -> Outcome:
    """Return what won, whichever side it stood on."""
    if vote.choice in ("tie", "both bad"):
        return vote.choice  # type: ignore[return-value]
    return "first" if (vote.choice == "left") == (vote.left == study.runs[0]) else "second"


def majority(outcomes: Iterable[Outcome]) -> Outcome:
    """Return what most voters of a question say; a tie where no answer has more of them than all others."""
    (first, most), *others = Counter(outcomes).most_common(2)
    return "tie" if others and others[0][1] == most else first


@dataclass(frozen=True)
class Pool:
    """Samples that two runs both answered: (n,) columns; `alike` says where the answers are the same text."""

    keys: NDArray
    tasks: NDArray
    clusters: NDArray
    alike: NDArray

    def take(self, places: NDArray) -> Pool:
        """Return some of them, by places or as a mask."""
        return Pool(self.keys[places], self.tasks[places], self.clusters[places], self.alike[places])


def pool_of(first: Scores, second: Scores, said: tuple[pa.Array, pa.Array]) -> Pool:
    """Return the samples that both runs answered.

    Args:
        first: A run's samples, by key.
        second: Another one's.
        said: The responses of both, in the same orders.

    Raises:
        PerpoError: There are none.
    """
    _, ours, theirs = np.intersect1d(first.keys, second.keys, assume_unique=True, return_indices=True)
    one, other = said[0].take(pa.array(ours)), said[1].take(pa.array(theirs))
    good = pc.and_(one.is_valid(), other.is_valid()).to_numpy(zero_copy_only=False)
    good &= first.tasks[ours] == second.tasks[theirs]
    if not good.any():
        raise PerpoError("the two runs have no sample in common", "choose runs of the same suite and data")
    trimmed = [pc.utf8_trim_whitespace(column) for column in (one, other)]
    alike = pc.equal(*trimmed).fill_null(False).to_numpy(zero_copy_only=False)
    return Pool(first.keys[ours], first.tasks[ours], first.clusters[ours], alike).take(good)


def draw(pool: Pool, count: int, seed: int) -> tuple[AskedSample, ...]:
    """Return `count` questions by chance, or all: as many of each task as of every other, on different images first."""
    order = np.random.default_rng(seed).permutation(len(pool.keys))
    order = order[np.argsort(_turns(pool.clusters[order]), kind="stable")]
    order = order[np.argsort(_turns(pool.tasks[order]), kind="stable")]
    return tuple(AskedSample(str(pool.tasks[place]), str(pool.keys[place])) for place in order[:count])


def _turns(labels: NDArray) -> NDArray:
    """For each place how often its label came before."""
    _, codes = np.unique(labels, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], codes[order])
    turns = np.empty(len(labels), dtype=int)
    turns[order] = np.arange(len(labels)) - starts
    return turns


def new_study(
    runs: tuple[str, str], samples_sha256: tuple[str, str], pool: Pool, *, count: int, seed: int, ask_alike: bool
) -> Study:
    """Return a study of two runs.

    Args:
        runs: Their ids.
        samples_sha256: Of their samples.
        pool: What may be asked.
        count: Questions at most.
        seed: For draw, order and sides.
        ask_alike: Whether questions with the same answer twice are asked too.

    Raises:
        PerpoError: Nothing is left to ask.
    """
    asked = pool if ask_alike else pool.take(~pool.alike)
    if not len(asked.keys):
        raise PerpoError("both runs gave the same answer to every question", "choose other runs or tasks")
    alike = 0 if ask_alike else int(pool.alike.sum())
    questions = draw(asked, count, seed)
    return Study(secrets.token_hex(4), now(), seed, runs, samples_sha256, questions, alike)


def ballot(study: Study, voter: str) -> list[tuple[AskedSample, bool]]:
    """Return the questions in a voter's own order, each with whether the first run's answer stands on the left.

    It does in half of them, and the same voter always gets the same order.
    """
    text = json.dumps([study.id, study.seed, voter])
    chance = np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))
    first_left = chance.permutation(np.arange(len(study.questions)) % 2 == 0)
    return [(study.questions[place], bool(first_left[place])) for place in chance.permutation(len(study.questions))]


def next_question(order: Sequence[tuple[AskedSample, bool]], done: dict[AskedSample, Vote]) -> int | None:
    """Return the place of the first question that has no vote, or None."""
    return next((place for place, (question, _) in enumerate(order) if question not in done), None)
