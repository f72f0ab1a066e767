"""Training runs: names, curves, settings, and where the files lie that they speak of. No Streamlit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perpo.boxes import BoxFormat
from perpo.errors import PerpoError
from perpo.methods import METHODS
from perpo.models.families import FAMILIES, with_bounds
from perpo.records.training_record import read_log, read_record

_PARTS = ("best", "checkpoint-")
_STAGES = ("adapter", "train")
"""Last folders of a recipe's trainings, which say nothing."""


class LoggedMetric(NamedTuple):
    """An entry of the log: what people call it, its unit, whether 0 to 1 is its range, and what it means."""

    title: str
    unit: str
    fraction: bool
    help: str


METRICS: dict[str, LoggedMetric] = {
    "loss": LoggedMetric("Loss", "loss", False, "The loss, as a mean since the entry before."),
    "pair_accuracy": LoggedMetric(
        "Pair accuracy",
        "share of the pairs",
        True,
        "Weighted share of the pairs that the policy orders as the rewards do.",
    ),
    "margin": LoggedMetric("Margin", "nats x beta", False, "beta times the weighted mean of s_better - s_worse."),
    "kl": LoggedMetric("KL to the reference", "nats an answer", False, "Estimated on the candidates."),
    "eval_reward": LoggedMetric("Validation: reward", "mean reward", True, "Greedy answers to held-out questions."),
    "eval_acc_50": LoggedMetric("Validation: Acc@0.5", "share of the answers", True, "Share with IoU of 0.5 or more."),
    "learning_rate": LoggedMetric("Learning rate", "rate", False, "The learning rate of the schedule."),
    "grad_norm": LoggedMetric("Gradient norm", "norm", False, "Norm of the gradient before clipping."),
    "no_spread": LoggedMetric(
        "Lists without spread",
        "share of the lists",
        True,
        "Lists whose rewards are all equal, so that nothing can be learnt.",
    ),
}
"""The curves, in the order in which they are shown."""


@dataclass(frozen=True)
class Training:
    """A folder that perpo-train wrote to.

    Attributes:
        folder: Where it lies.
        record: Its training.json (`perpo.records.training_record.TrainingRecord`).
        log: The entries of its log.jsonl, the oldest first.
    """

    folder: Path
    record: dict[str, Any]
    log: list[dict[str, Any]]

    @cached_property
    def curves(self) -> dict[str, dict[str, tuple[NDArray, NDArray]]]:
        """By metric, over "step" and "epoch": (n,) places and (n,) values, NaN where a number was not finite."""
        curves_by_metric: dict[str, dict[str, tuple[NDArray, NDArray]]] = {}
        for name in METRICS:
            entries = [entry for entry in self.log if name in entry]
            values = np.array([_number(entry[name]) for entry in entries], dtype=float)
            curves_by_metric[name] = {}
            for over in ("step", "epoch"):
                places = np.array([_number(entry.get(over)) for entry in entries], dtype=float)
                known = np.isfinite(places)
                curves_by_metric[name][over] = places[known], values[known]
        return curves_by_metric

    def curve(self, name: str, over: str) -> tuple[NDArray, NDArray]:
        """Return one of `curves`."""
        return self.curves[name][over]

    def argument(self, name: str) -> str:
        """Return an argument that is a text; empty where the record has none."""
        value = self.record["arguments"].get(name)
        return value if isinstance(value, str) else ""

    @property
    def samples(self) -> bool:
        """Return whether it learnt sampled candidates, as any method may that is not known here."""
        method = METHODS.get(self.argument("method"))
        return method is None or method.samples

    def last(self, name: str) -> float | None:
        """Return the last value of a metric; None where the log has none."""
        values = self.curve(name, "step")[1]
        return float(values[-1]) if len(values) and np.isfinite(values[-1]) else None


def read_training(folder: Path) -> Training:
    """Return a training and its log.

    Raises:
        PerpoError: One of the files is damaged, missing, or of another version.
    """
    try:
        record, log = read_record(folder), read_log(folder)
    except OSError as error:
        raise PerpoError(f"{folder} cannot be read: {error}", "train again, or ignore this folder") from error
    if record is None:
        raise PerpoError(f"{folder} holds no training.json", "give a folder that perpo-train wrote to")
    return Training(folder, record, [entry for entry in log if isinstance(entry, dict)])


def names_of(folders: Iterable[Path], root: Path) -> dict[str, Path]:
    """Trainings by their folder's path below `root`; what belongs to another one (best/, checkpoints) is left out."""
    all_folders = set(folders)
    whole = [f for f in all_folders if not (f.parent in all_folders and f.name.startswith(_PARTS))]
    return {folder.relative_to(root).as_posix(): folder for folder in sorted(whole)}


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return each name without the first folders that all share and without a recipe's last one, where they stay
    apart.
    """
    parts = {name: name.split("/") for name in names}
    levels = zip(*(each[:-1] for each in parts.values()), strict=False)
    shared = len([*takewhile(lambda folders: len(set(folders)) == 1, levels)])
    plain = {name: each[shared:] for name, each in parts.items()}
    shorter = {name: each[:-1] if len(each) > 1 and each[-1] in _STAGES else each for name, each in plain.items()}
    chosen = shorter if len(set(map(tuple, shorter.values()))) == len(shorter) else plain
    return {name: "/".join(each) for name, each in chosen.items()}


def smoothed(values: NDArray, weight: float) -> NDArray:
    """Return an exponential moving average that does not start from 0: m_t = w m_{t-1} + (1 - w) v_t, over 1 - w^t.

    Args:
        values: (n,) numbers; NaN stays NaN and is passed over.
        weight: In [0, 1); 0 leaves all as it is.
    """
    averages, mean, power = np.full(len(values), np.nan), 0.0, 1.0
    for place, value in enumerate(values):
        if np.isfinite(value):
            mean, power = weight * mean + (1 - weight) * value, power * weight
            averages[place] = mean / (1 - power)
    return averages


def thinned(places: NDArray, values: NDArray, most: int = 1000) -> tuple[NDArray, NDArray, int]:
    """Return a curve of `most` points or fewer: means of so many neighbours as the third number says; 1 where nothing
    is.
    """
    size = -(-len(values) // most) if len(values) else 1
    if size <= 1:
        return places, values, 1
    starts = np.arange(0, len(values), size)
    good = np.isfinite(values)
    count = np.add.reduceat(good.astype(float), starts)
    total = np.add.reduceat(np.where(good, values, 0.0), starts)
    means = np.divide(total, count, out=np.full(len(starts), np.nan), where=count > 0)
    ends = np.minimum(starts + size, len(values)) - 1
    return places[ends], means, size


def differing(records: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the arguments in which trainings differ: by argument, then by training; None where one does not have
    it.
    """
    arguments = {name: record["arguments"] for name, record in records.items()}
    known = dict.fromkeys(argument for each in arguments.values() for argument in each)
    table = {argument: {name: each.get(argument) for name, each in arguments.items()} for argument in known}
    return {argument: row for argument, row in table.items() if len({json.dumps(v) for v in row.values()}) > 1}


def moved(path: str, training: Training) -> Path:
    """Return where a path of a training's record is now.

    Records name paths as they were seen from the folder that perpo-train ran in. What the end of the output
    directory's path has kept tells how that folder has moved, or where it was, and every path moves with it.
    """
    recorded, here = Path(training.argument("output_dir")).parts, training.folder.parts
    same = 0
    while same < min(len(recorded), len(here)) and recorded[-1 - same] == here[-1 - same]:
        same += 1
    old, new = Path(*recorded[: len(recorded) - same]), Path(*here[: len(here) - same])
    return new / Path(path).relative_to(old) if same and Path(path).is_relative_to(old) else Path(path)


def inside(path: Path, roots: Sequence[Path]) -> Path | None:
    """Return the file itself, if it lies in one of the folders that files may be read from; no link leads out of
    them.
    """
    try:
        real = path.resolve(strict=True)
    except (OSError, ValueError, RuntimeError):  # not there, no path at all, or links in a circle
        return None
    return real if any(real.is_relative_to(root.resolve()) for root in roots) and real.is_file() else None


def box_format(folder: Path) -> BoxFormat | None:
    """Return how the model that was trained writes boxes, by what lies in its folder; None where that does not say."""
    adapter, whole, processor = (
        _json(folder / name) for name in ("adapter_config.json", "config.json", "processor_config.json")
    )
    library = str(_object(adapter.get("auto_mapping")).get("parent_library", ""))
    model_type = str(whole.get("model_type") or library.removeprefix("transformers.models.").split(".")[0])
    if model_type not in FAMILIES:
        return None
    return with_bounds(FAMILIES[model_type], _object(processor.get("image_processor"))).boxes


def _json(file: Path) -> dict[str, Any]:
    try:
        return _object(json.loads(file.read_bytes()))
    except (OSError, ValueError):
        return {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    """A number of a log; NaN where a value is none, or larger than any float."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
    except OverflowError:
        return float("nan")
