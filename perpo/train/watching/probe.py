"""probe.parquet: the log-probabilities of some lists' candidates before and after training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import TrainerCallback

from perpo.common.files import atomic_write_bytes
from perpo.train.lists import ChosenAnswers

if TYPE_CHECKING:
    from perpo.train.trainer import PreferenceTrainer

PROBE_FILE = "probe.parquet"
COLUMNS: dict[str, str] = {
    "record": "the record's number in the training data, from 1 on",
    "image_path": "its image, as the data name it",
    "question": "its question",
    "candidate": "the answer's place among those of the record that are used, from 0 on",
    "answer": "the answer",
    "reward": "its reward; null for `sft`",
    "tokens": "how many tokens it has, the end token included",
    "reference_logp": "its log-probability (nats, summed over its tokens) by the reference; null for `sft` and `rft`",
    "logp_before": "the same by the policy before the first step; null if a resumed run lacks the file",
    "logp_after": "the same by the policy after the last step; null while it trains",
}
_SCHEMA = pa.schema(
    [
        ("record", pa.int64()),
        ("image_path", pa.string()),
        ("question", pa.string()),
        ("candidate", pa.int64()),
        ("answer", pa.string()),
        ("reward", pa.float64()),
        ("tokens", pa.int64()),
        ("reference_logp", pa.float64()),
        ("logp_before", pa.float64()),
        ("logp_after", pa.float64()),
    ]
)
_IDENTITY = ("record", "image_path", "question", "candidate", "answer")


class Probe(TrainerCallback):
    """Measures the first lists before and after training; every process runs the same, the first one writes.

    Args:
        trainer: Knows the model, the reference and the lists.
        choices: Where the lists come from, in the same order.
        count: How many lists are measured.
        record: The run's record, which the file is named in.
        earlier: Directory of the run that is continued, which holds the values from before training.
    """

    def __init__(
        self,
        trainer: PreferenceTrainer,
        choices: Sequence[ChosenAnswers],
        count: int,
        record: dict[str, Any],
        earlier: Path | None,
    ) -> None:
        self.trainer = trainer
        self.choices = choices[:count]
        self.lists = trainer.dataset.lists[:count]
        self.path = Path(trainer.arguments.output_dir, PROBE_FILE)
        self.before = None if earlier is None else _read(earlier / PROBE_FILE)
        rows = sum(len(choice.answers) for choice in self.choices)
        record["probe"] = {"path": PROBE_FILE, "lists": len(self.choices), "rows": rows}
        self.rows: list[dict[str, Any]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the file anew, also for a run that goes on, maybe into another directory."""
        self.rows = self._rows()
        if state.global_step == 0:
            for row, (policy, reference) in zip(self.rows, self._logps(), strict=True):
                row |= {"reference_logp": reference, "logp_before": policy}
        elif self.before is not None and _same(self.rows, self.before):
            self.rows = self.before
        self._write(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for row, (policy, reference) in zip(self.rows, self._logps(), strict=True):
            row |= {"reference_logp": reference, "logp_after": policy}
        self._write(state)

    def _logps(self) -> list[tuple[float, float | None]]:
        """(policy, reference) of each row."""
        size = self.trainer.arguments.per_device_train_batch_size
        pairs: list[tuple[float, float | None]] = []
        for start in range(0, len(self.choices), size):
            stop = min(start + size, len(self.choices))
            policy, reference = self.trainer.logps_of(range(start, stop))
            for place, choice in enumerate(self.choices[start:stop]):
                known = [None] * len(policy[place]) if reference is None else reference[place]
                pairs += list(zip(policy[place], known, strict=True))[: len(choice.answers)]
        return pairs

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                **dict.fromkeys(COLUMNS),
                "record": choice.number,
                "image_path": choice.record.image_path,
                "question": choice.record.question,
                "candidate": place,
                "answer": answer,
                "reward": choice.rewards[place] if choice.rewards else None,
                "tokens": len(ids),
            }
            for choice, each in zip(self.choices, self.lists, strict=True)
            for place, (answer, ids) in enumerate(zip(choice.answers, each.answers, strict=True))
        ]

    def _write(self, state: Any) -> None:
        if state.is_world_process_zero:
            buffer = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(self.rows, _SCHEMA), buffer)
            atomic_write_bytes(self.path, buffer.getvalue())


def _read(path: Path) -> list[dict[str, Any]] | None:
    try:
        return pq.read_table(path, schema=_SCHEMA).to_pylist()
    except (OSError, pa.ArrowException):  # deleted or damaged: it is not known any more
        return None


def _same(rows: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> bool:
    return [[row[name] for name in _IDENTITY] for row in rows] == [[row[n] for n in _IDENTITY] for row in earlier]
