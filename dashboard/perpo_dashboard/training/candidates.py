"""Lists of candidates: how their rewards spread, what best-of-N would give, and one list looked at. No Streamlit."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from perpo.data import data_sha256, read_preferences
from perpo.errors import PerpoError
from perpo.stats import clustered_mean

BINS = 20
_PROBED = ("record", "image_path", "question", "answer", "reward", "tokens")
_LOGPS = ("reference_logp", "logp_before", "logp_after")


@dataclass(frozen=True)
class Preferences:
    """Preference records as columns.

    Attributes:
        table: A row per record: image_path, question, answer, image_id, answers_gen, truncated, reference_logps, and
            how boxes are written (box_scale, box_order, box_frame, box_resize).
        rewards: (candidates,) those of all records one after the other.
        starts: (records + 1,) where each record's rewards begin.
        reward_name: What was measured.
    """

    table: pa.Table
    rewards: NDArray
    starts: NDArray
    reward_name: str

    @property
    def counts(self) -> NDArray:
        """(records,) candidates of each."""
        return np.diff(self.starts)

    @property
    def spreads(self) -> NDArray:
        """(records,) the best reward minus the worst."""
        starts = self.starts[:-1]
        return np.maximum.reduceat(self.rewards, starts) - np.minimum.reduceat(self.rewards, starts)

    def record(self, number: int) -> dict[str, Any]:
        """Return the record of a number, from 1 on, with its `rewards`."""
        (row,) = self.table.slice(number - 1, 1).to_pylist()
        return row | {"rewards": self.rewards[self.starts[number - 1] : self.starts[number]].tolist()}


def read_lists(file: Path, sha256: str) -> Preferences:
    """Return the preference data that somebody trained on.

    Raises:
        PerpoError: They are not what was trained on any more, or no preference data.
    """
    if data_sha256(file) != sha256:
        raise PerpoError(
            f"{file} is not the file that was used for training (its sha256 differs)", "sample into a folder of its own"
        )
    records = read_preferences(file)
    columns = ["image_path", "question", "answer", "answers_gen", "truncated", "reference_logps"]
    columns += ["box_scale", "box_order", "box_frame", "box_resize"]
    table = pa.table(
        {name: pa.array([getattr(record, name) for record in records]) for name in columns}
        | {"image_id": pa.array([str(record.image_id) for record in records])}
    )
    starts = np.concatenate([[0], np.cumsum([len(record.rewards) for record in records])])
    rewards = np.array([reward for record in records for reward in record.rewards])
    return Preferences(table, rewards, starts, records[0].reward_name)


def histogram(rewards: NDArray) -> tuple[NDArray, NDArray]:
    """(BINS + 1,) edges over [0, 1] and (BINS,) shares of the candidates between them."""
    counts, edges = np.histogram(rewards, bins=BINS, range=(0.0, 1.0))
    return edges, counts / max(len(rewards), 1)


@dataclass(frozen=True)
class BestOf:
    """The reward that choosing the best of n candidates gives, for n = 1 to N.

    Attributes:
        best: (N,) expected reward of the best of n, a mean over the records.
        low: (N,) where its 95% interval begins, clustered by image; NaN where it is not defined.
        high: (N,) where it ends.
        worst: (N,) expected reward of the worst of n.
        records: How many records it is a mean of: those with exactly N candidates, the most common number.
    """

    best: NDArray
    low: NDArray
    high: NDArray
    worst: NDArray
    records: int


def best_of(lists: Preferences) -> BestOf:
    """Expected best and worst reward of n candidates drawn without replacement from a record's N.

    With rewards sorted upwards, r_(i) is the best of n in C(i - 1, n - 1) of the C(N, n) draws.
    """
    size = Counter(lists.counts.tolist()).most_common(1)[0][0]
    held = np.flatnonzero(lists.counts == size)
    rewards = np.sort(lists.rewards[lists.starts[held][:, None] + np.arange(size)], axis=1)
    chances = _chances(size)
    best, worst = rewards @ chances.T, rewards[:, ::-1] @ chances.T
    images = lists.table["image_id"].combine_chunks().take(pa.array(held)).to_numpy(zero_copy_only=False).astype(str)
    estimates = [clustered_mean(np.clip(column, 0.0, 1.0), images) for column in best.T]
    low, high = (np.array([np.nan if e is None else e for e in ends], dtype=float) for ends in _ends(estimates))
    return BestOf(best.mean(axis=0), low, high, worst.mean(axis=0), len(held))


def _ends(estimates: Sequence[Any]) -> tuple[list[float | None], list[float | None]]:
    return [each.ci_low for each in estimates], [each.ci_high for each in estimates]


def _chances(size: int) -> NDArray:
    """(N, N) the chance that the i-th smallest of N is the best of n drawn: C(i - 1, n - 1) / C(N, n)."""
    from scipy.special import comb

    n, i = np.arange(1, size + 1)[:, None], np.arange(1, size + 1)[None, :]
    return comb(i - 1, n - 1) / comb(size, n)


@dataclass(frozen=True)
class Candidate:
    """One answer of a list; what is not known is None.

    Attributes:
        answer: The text.
        reward: In [0, 1].
        truncated: Whether it was cut at the token limit.
        tokens: How many it has, the end token included.
        reference: Its log-probability (nats) by the reference.
        before: By the policy before training.
        after: By the policy after it.
    """

    answer: str
    reward: float | None
    truncated: bool | None = None
    tokens: int | None = None
    reference: float | None = None
    before: float | None = None
    after: float | None = None

    @property
    def change(self) -> float | None:
        """Return what training added to its log-probability."""
        return None if self.after is None or self.before is None else self.after - self.before


def read_probe(file: Path) -> dict[int, list[dict[str, Any]]]:
    """Return the rows of a probe.parquet by the number of their record.

    Raises:
        PerpoError: It cannot be read.
    """
    try:
        rows = pq.read_table(file, columns=[*_PROBED, *_LOGPS]).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise PerpoError(f"{file} cannot be read: {error}", "train again with --probe_lists") from error
    rows_by_record: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        rows_by_record[row["record"]].append(row)
    return dict(rows_by_record)


def candidates(record: dict[str, Any] | None, probed: Sequence[dict[str, Any]]) -> list[Candidate]:
    """Return a list's candidates, the best first, with what is known of their log-probabilities.

    Args:
        record: As `Preferences.record` gives it; None where the data are not at hand.
        probed: The probe's rows of it, which may be fewer: what was not trained on was not measured.
    """
    if record is None:
        return _ranked([_probed(row, row["reward"], None, None) for row in probed])
    rows: dict[str, deque[dict[str, Any]]] = defaultdict(deque)
    for row in probed:
        rows[row["answer"]].append(row)
    n = len(record["answers_gen"])
    truncated, logps = record["truncated"] or [None] * n, record["reference_logps"] or [None] * n
    return _ranked(
        [
            _probed(rows[answer].popleft(), reward, cut, logp)
            if rows[answer] and not (cut and len(probed) < n)  # it was left out
            else Candidate(answer, reward, cut, reference=logp)
            for answer, reward, cut, logp in zip(
                record["answers_gen"], record["rewards"], truncated, logps, strict=True
            )
        ]
    )


def _probed(row: dict[str, Any], reward: float | None, cut: bool | None, logp: float | None) -> Candidate:
    reference = logp if row["reference_logp"] is None else row["reference_logp"]
    return Candidate(row["answer"], reward, cut, row["tokens"], reference, row["logp_before"], row["logp_after"])


def _ranked(candidate_list: list[Candidate]) -> list[Candidate]:
    return sorted(candidate_list, key=lambda each: -1.0 if each.reward is None else each.reward, reverse=True)


def pairs_in_order(candidate_list: Sequence[Candidate]) -> tuple[int, int]:
    """Return how many pairs training moved the way their rewards ask for, and how many have different rewards.

    A pair is in order where the better answer's log-probability gained more than the worse one's.
    """
    known = [
        (each.reward, each.change) for each in candidate_list if each.reward is not None and each.change is not None
    ]
    pairs = [(a, b) for place, a in enumerate(known) for b in known[place + 1 :] if a[0] != b[0]]
    return sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs), len(pairs)
