"""The reference's log-probabilities, computed once before training and kept beside the data.

The file's name and first line hold a digest of what they depend on: data, base, adapter, precision and processor. Each
row depends on its image, prompt and answers too, by a digest of its own. Rows are on the disk as they come: a run that
was killed goes on, and the next one with the same model and data computes none.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import distributed
from transformers import TrainerCallback

from perpo.common.files import check_writable
from perpo.common.journal import Journal
from perpo.common.locks import in_turn
from perpo.data.images import PICTURES_VERSION
from perpo.errors import PerpoError
from perpo.models.checkpoints import files_digest, local_directory, resolve_model
from perpo.models.loaded import LoadedModel
from perpo.models.prefix import base_model
from perpo.train.arguments import TrainArguments
from perpo.train.callbacks import NotFinite
from perpo.train.distributed import world_size
from perpo.train.lists import ListDataset, TokenizedList

if TYPE_CHECKING:
    from perpo.train.trainer import PreferenceTrainer


class ReferenceCache:
    """One file of log-probabilities for one reference and one data file.

    Args:
        args: The run's arguments; `data` says where the file lies.
        record: The run's record, with the digests of data, base and adapter.
        loaded: The model.

    Raises:
        PerpoError: The data's folder cannot be written.
    """

    def __init__(self, args: TrainArguments, record: Mapping[str, Any], loaded: LoadedModel) -> None:
        parts = {
            "data": record["data"]["sha256"],
            "weights": record["model"]["weights_sha256"],
            "adapter": record["model"]["adapter_sha256"],
            "config": files_digest(_configs(args)),
            "dtype": str(base_model(loaded.model).dtype),
            "computing": (args.bf16, args.tf32, args.deepspeed is not None),
            "packages": {name: version(name) for name in ("peft", "torch", "transformers")},
            "bits": (args.bits, args.quant_type, args.double_quant) if args.bits == 4 else None,
            "processor": loaded.processor.to_json_string(),
            "image_processor": type(loaded.processor.image_processor).__name__,  # of which PIL's differs from torch's
            "pictures": PICTURES_VERSION,
            "pads_images": loaded.family.pads_images,
        }
        self.key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        self.path = Path(f"{args.data}.reference-{self.key[:12]}.jsonl")
        check_writable(self.path.parent)

    def fill(self, trainer: PreferenceTrainer, dataset: ListDataset) -> int:
        """Give the dataset's lists their reference log-probabilities; compute those that the file lacks.

        All processes call it, when the trainer's model is ready to run.

        Args:
            trainer: Runs the reference.
            dataset: The lists; changed in place.

        Returns:
            How many lists were computed, by all processes together.

        Raises:
            PerpoError: Rows are missing, and a model that is trained as a whole has already learnt something;
                or the file is damaged or in use.
        """
        ids = [_row_id(each) for each in dataset.lists]
        with ExitStack() as stack:
            first = world_size() == 1 or distributed.get_rank() == 0
            if first:  # another training on the same data may be computing the same
                lock = self.path.with_name(f".{self.path.name}.lock")
                stack.enter_context(in_turn(lock, f"another training, which fills {self.path}"))
            journal = stack.enter_context(Journal(self.path, self.key)) if first else None
            known = _from_first(self._rows(journal) if journal else None)
            places = {key: place for place, key in enumerate(ids) if key not in known}
            if places and trainer.state.global_step > 0 and not trainer.policy.has_adapter:
                raise PerpoError(
                    f"{self.path} lacks {len(places)} lists. They cannot be computed any more, because the weights are "
                    "already trained",
                    "restore the file, or start again in another --output_dir",
                )
            for rows in _computed(trainer, dataset, list(places.values())):
                lost = [place for place, logps in rows if not all(map(math.isfinite, logps))]
                if lost:
                    raise NotFinite("reference", 1, [dataset.lists[place].number for place in lost])
                added = [{"id": ids[place], "logps": logps} for place, logps in dict(rows).items()]
                known |= {row["id"]: row["logps"] for row in added}
                if journal is not None:
                    journal.append(added)
        dataset.lists = [
            replace(each, reference_logps=known[key]) for each, key in zip(dataset.lists, ids, strict=True)
        ]
        return len(places)

    def _rows(self, journal: Journal) -> dict[str, list[float]]:
        rows = {key: row.get("logps") for key, row in journal.done().items()}
        for logps in rows.values():
            if not isinstance(logps, list) or not all(isinstance(each, float) for each in logps):
                raise PerpoError(f"{self.path} is damaged", "delete it; its content is computed again")
        return rows  # type: ignore[return-value]  # checked above


def _configs(args: TrainArguments) -> list[Path]:
    """What says how the weights are run."""
    configs = [local_directory(resolve_model(args.model)) / "config.json"]
    return configs if args.adapter is None else [*configs, Path(args.adapter, "adapter_config.json")]


class Precompute(TrainerCallback):
    """Fills in the references when the model is ready to run, before the first step.

    Args:
        cache: Where they are kept.
        trainer: Whose training lists need them.
    """

    def __init__(self, cache: ReferenceCache, trainer: PreferenceTrainer) -> None:
        self.cache = cache
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer."""
        self.cache.fill(self.trainer, self.trainer.dataset)


def _computed(
    trainer: PreferenceTrainer, dataset: ListDataset, places: Sequence[int]
) -> Iterator[list[tuple[int, list[float]]]]:
    """Batches of (place, log-probabilities) of all processes together, each of which computes its share."""
    processes, rank = trainer.args.world_size, trainer.args.process_index
    together = trainer.args.train_batch_size * processes
    for start in range(0, len(places), together):
        here = places[start : start + together]
        mine = here[rank::processes] or here[:1]  # ZeRO's processes run together, also where one has nothing to do
        logps = trainer.reference_logps_of(dataset, mine)
        rows = [(place, values[: len(dataset.lists[place].answers)]) for place, values in zip(mine, logps, strict=True)]
        yield [row for part in _from_all(rows) for row in part]


def _row_id(item: TokenizedList) -> str:
    parts = [files_digest([item.image_path]), item.prompt, item.answers]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _from_first(value: Any) -> Any:
    """The first process's value, in all of them."""
    if world_size() > 1:
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        (value,) = values
    return value


def _from_all(value: Any) -> Sequence[Any]:
    """All processes' values, in all of them."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values
