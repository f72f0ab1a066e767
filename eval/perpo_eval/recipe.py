"""Recipes: a whole experiment in one YAML file. This reads and checks them; `perpo_eval.experiment` runs them.

    name: my-experiment
    model: tiny                     # what everything starts from
    seed: 0                         # of the questions (tiny world), the sampler and the trainer
    note: printed under the leaderboard
    data:                           # named sets of questions or preference records
      train: {file: train.jsonl, image_root: images}
      loose: {tiny: {images: 1500, loose: 0.6}}
    sample: {num_candidates: 12}    # arguments of perpo-sample
    train: {learning_rate: 4.0e-4}  # arguments of perpo-train
    evaluate: {data: tiny}          # arguments of perpo-eval
    experiments:
      base: {}                      # evaluated as it is
      sft: {data: loose, train: {method: sft}}
      perpo: {data: train, rounds: 6, train: {method: perpo}}
    compare: {base: base, against: sft}

`rounds: R` cuts the data's questions into R equal parts; round k samples answers to part k from the
policy as it is then and trains on them, from there on, with part k of one learning-rate schedule.
Without rounds the data are trained on as they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perpo.cli.arguments import arguments_from_mapping
from perpo.errors import PerpoError
from perpo.nearest import did_you_mean

SHIPPED = Path(__file__).parent / "recipes"


@dataclass(frozen=True, kw_only=True)
class TinyQuestions:
    """Questions about the tiny world: `images` pictures, answers loose for a share of the shapes."""

    images: int
    per_image: int = 2
    loose: float = 0.0


@dataclass(frozen=True)
class DataSource:
    """Where one set of data comes from: a file with its image root, or the tiny world."""

    file: Path | None = None
    image_root: Path | None = None
    tiny: TinyQuestions | None = None


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
    data: dict[str, DataSource]
    sample: dict[str, Any]
    train: dict[str, Any]
    evaluate: dict[str, Any]
    experiments: dict[str, Experiment]
    base: str
    against: str | None

    def sha256(self) -> str:
        """Digest of all that the results depend on; the order of the experiments is no part of it."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True, default=str).encode()).hexdigest()


_OPTIONAL: dict[str, Any] = {
    "model": "tiny", "seed": 0, "note": "", "data": {}, "sample": {}, "train": {}, "evaluate": {}, "compare": {},
}  # fmt: skip
# Set by the run itself, so a recipe may not.
_RESERVED = {
    "sample": {"model", "adapter", "questions", "image_root", "output", "seed"},
    "train": {"model", "adapter", "data", "image_root", "output_dir", "seed", "schedule_part"},
    "evaluate": {"model", "adapter", "name", "output", "json"},
}


def find_recipe(name: str) -> Path:
    """A recipe's file: a path, or the name of a shipped one.

    Raises:
        PerpoError: There is neither.
    """
    shipped = {path.stem: path for path in SHIPPED.glob("*.yaml")}
    if Path(name).is_file():
        return Path(name)
    if name in shipped:
        return shipped[name]
    raise PerpoError(f"there is no recipe {name}: expected a YAML file or one of {', '.join(sorted(shipped))}",
                     did_you_mean(name, shipped))  # fmt: skip


def read_recipe(path: Path, *, seed: int | None = None) -> Recipe:
    """Read and check a recipe; every argument of every stage is checked before anything runs.

    Args:
        path: The YAML file; data files in it are relative to its folder.
        seed: Replaces the recipe's own.

    Raises:
        PerpoError: No YAML, an unknown or missing field, or a stage's argument that is wrong.
    """
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PerpoError(
            f"the recipe {path} cannot be read: {' '.join(str(error).split())}", "check the file"
        ) from error
    where = f"recipe {path.name}"
    raw = _fields(raw, where, {"name", "experiments"}, set(_OPTIONAL))
    values = _OPTIONAL | raw
    if seed is not None:
        values["seed"] = seed
    if not isinstance(values["seed"], int) or isinstance(values["seed"], bool):
        raise PerpoError(f"{where}: seed must be a whole number, found {values['seed']!r}", "such as seed: 0")
    experiments = {
        str(name): _experiment(part or {}, f"{where}: experiments: {name}")
        for name, part in _mapping(values["experiments"], f"{where}: experiments").items()
    }
    compare = _fields(values["compare"], f"{where}: compare", set(), {"base", "against"})
    recipe = Recipe(
        name=str(values["name"]),
        model=str(values["model"]),
        seed=values["seed"],
        note=str(values["note"]).strip(),
        data={
            str(name): _source(part, f"{where}: data: {name}", path.parent)
            for name, part in _mapping(values["data"], f"{where}: data").items()
        },
        sample=_stage(values, "sample", where),
        train=_stage(values, "train", where),
        evaluate=_stage(values, "evaluate", where),
        experiments=experiments,
        base=str(compare.get("base", next(iter(experiments)))),
        against=compare.get("against"),
    )
    _check(recipe, where)
    return recipe


def _check(recipe: Recipe, where: str) -> None:
    from perpo_eval.experiment import evaluate_arguments, sample_arguments, train_arguments

    for label in filter(None, (recipe.base, recipe.against)):
        if label not in recipe.experiments:
            raise PerpoError(
                f"{where}: compare names '{label}', no experiment", did_you_mean(label, recipe.experiments)
            )
    nowhere = Path("nowhere")
    for name, experiment in recipe.experiments.items():
        if experiment.train is None:
            if experiment.data or experiment.rounds:
                raise PerpoError(f"{where}: {name} has data but no train", "add train: {method: ...}")
        elif experiment.data not in recipe.data:
            raise PerpoError(f"{where}: {name} is trained on the data '{experiment.data}', which is not there",
                             did_you_mean(str(experiment.data), recipe.data))  # fmt: skip
        else:
            train_arguments(recipe, experiment, nowhere, nowhere, nowhere, None, 1)
        if experiment.rounds:
            sample_arguments(recipe, experiment, nowhere, nowhere, nowhere, None, 1).check()
    evaluate_arguments(recipe, recipe.base, nowhere, None)


def _experiment(part: Any, where: str) -> Experiment:
    part = _fields(part, where, set(), {"data", "rounds", "sample", "train"})
    rounds = part.get("rounds", 0)
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 0:
        raise PerpoError(f"{where}: rounds must be a whole number from 0, found {rounds!r}", "such as rounds: 6")
    if part.get("sample") and not rounds:
        raise PerpoError(f"{where}: sample without rounds samples nothing", "add rounds: 1")
    return Experiment(
        part.get("data"),
        rounds,
        _stage(part, "sample", where),
        _stage(part, "train", where) if "train" in part else None,
    )


def _source(part: Any, where: str, folder: Path) -> DataSource:
    part = _fields(part, where, set(), {"file", "image_root", "tiny"})
    if ("file" in part) == ("tiny" in part):
        raise PerpoError(f"{where} must have either file or tiny", "such as {file: train.jsonl, image_root: images}")
    if "tiny" in part:
        return DataSource(tiny=arguments_from_mapping(TinyQuestions, _mapping(part["tiny"], where), where))
    file = folder / str(part["file"])
    if not file.is_file():
        raise PerpoError(f"{where}: there is no file {file}", "paths in a recipe start from the recipe's folder")
    return DataSource(file, folder / str(part.get("image_root", file.parent.relative_to(folder))))


def _stage(values: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """The arguments of one stage, without those that the run sets itself."""
    found = dict(_mapping(values.get(name) or {}, f"{where}: {name}"))
    for key in found:
        if key in _RESERVED[name]:
            raise PerpoError(f"{where}: {name}: {key} is set by the run itself", "leave it out")
    return found


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise PerpoError(
            f"{where}: expected names with values, found {type(value).__name__}", "one `name: value` a line"
        )
    return value


def _fields(value: Any, where: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    found = dict(_mapping(value, where))
    for key in found:
        if key not in required | optional:
            raise PerpoError(f"{where}: there is no field '{key}'", did_you_mean(str(key), required | optional))
    for key in sorted(required - set(found)):
        raise PerpoError(f"{where}: {key} is missing", "see the recipes that are shipped")
    return found
