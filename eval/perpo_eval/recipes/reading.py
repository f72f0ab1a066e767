"""Recipes: a whole experiment in one YAML file. This reads and checks them; `perpo_eval.recipes.experiment` runs them.

    name: my-experiment
    model: tiny                     # what everything starts from
    seed: 0                         # of the questions (tiny world), the sampler and the trainer
    note: printed under the leaderboard
    data:                           # named sets of questions or preference records
      train: {file: train.jsonl, image_root: images}
      loose: {tiny: {images: 1250, loose: 0.6}}
      papers: {pdf: papers, settings: {eval_share: 0.1}}   # what perpo-data pdf makes of that folder
      pages: {of: papers, start: 0, count: 1000}           # some of its pages for training
      pages: {tiny: {pages: 600}}
      pairs: {sampled: train}       # candidates of the model above for the questions of train, drawn once
    sample: {num_candidates: 12}    # arguments of perpo-sample
    train: {learning_rate: 4.0e-4}  # arguments of perpo-train
    teach: {data: pages, train: {}} # what the model is taught first, all weights; experiments start from the result
    evaluate: {data: tiny}          # arguments of perpo-eval; its data may be the pages of papers that are held out
    experiments:
      base: {}                      # evaluated as it is
      sft: {data: loose, train: {method: sft}}
      dpo: {data: pairs, train: {method: dpo}}
      perpo: {data: train, rounds: 6, train: {method: perpo}}
    compare: {base: base, against: sft, benchmark: grounding}  # by default the first one of the suite

`rounds: R` cuts the data's questions into R equal parts; round k samples answers to part k from the
policy as it is then and trains on them, from there on, with part k of one learning-rate schedule.
Without rounds the data are trained on as they are; experiments share what was sampled once.
Paths start from the recipe's folder: those of data, `evaluate: data`, and a model whose name begins with a dot.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perpo.benchmarks.table import INFO
from perpo.boxes import BoxFormat
from perpo.common.arguments import arguments_from_mapping
from perpo.common.hints import did_you_mean
from perpo.common.numbers import COUNT, COUNT_OR_ZERO, SEED_32, Range
from perpo.errors import PerpoError
from perpo.records.store import slug
from perpo.rewards import load_reward
from perpo_eval.recipes.arguments import (
    evaluate_arguments,
    pdf_arguments,
    sample_arguments,
    train_arguments,
    usual_benchmark,
)
from perpo_eval.recipes.pages import check_pages
from perpo_eval.recipes.recipe import (
    DataFile,
    Experiment,
    PagesPart,
    PdfPages,
    Recipe,
    SampledData,
    Source,
    Teaching,
    TinyPages,
    TinyQuestions,
)

SHIPPED = Path(__file__).parent


_OPTIONAL: dict[str, Any] = {
    "model": "tiny", "seed": 0, "note": "", "data": {}, "sample": {}, "train": {}, "evaluate": {}, "compare": {},
    "teach": None,
}  # fmt: skip
# Set by the run itself, so a recipe may not.
_RESERVED = {
    "sample": {"model", "adapter", "questions", "image_root", "output", "seed"},
    "train": {
        "model", "adapter", "data", "image_root", "output_dir", "seed", "schedule_part", "resume_from_checkpoint",
    },
    "evaluate": {"model", "adapter", "name", "output", "json", "questions", "responses", "rescore"},
}  # fmt: skip


def find_recipe(name: str) -> Path:
    """Return a recipe's file: a path, or the name of a shipped one.

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
        path: The YAML file; paths in it are relative to its folder. Whether files are there is not asked yet.
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
    _whole(values["seed"], SEED_32, f"{where}: seed")
    if seed is not None:
        SEED_32.check(seed, "--seed")
        values["seed"] = seed
    experiments = {
        _folder_name(name, where): _experiment(part or {}, f"{where}: experiments: {name}")
        for name, part in _mapping(values["experiments"], f"{where}: experiments").items()
    }
    if not experiments:
        raise PerpoError(
            f"{where}: experiments is empty", "add one, such as base: {}, which evaluates the model as it is"
        )
    compare = _fields(values["compare"], f"{where}: compare", set(), {"base", "against", "benchmark"})
    recipe = Recipe(
        name=str(values["name"]),
        model=str(path.parent / str(values["model"])) if str(values["model"]).startswith(".") else str(values["model"]),
        seed=values["seed"],
        note=str(values["note"]).strip(),
        data={
            _folder_name(name, where): _source(part, f"{where}: data: {name}", path.parent)
            for name, part in _mapping(values["data"], f"{where}: data").items()
        },
        sample=_stage(values, "sample", where),
        train=_stage(values, "train", where),
        evaluate=_evaluate(values, where, path.parent),
        teach=_teaching(values["teach"], f"{where}: teach"),
        experiments=experiments,
        base=str(compare.get("base", next(iter(experiments)))),
        against=None if compare.get("against") is None else str(compare["against"]),
        benchmark=str(compare.get("benchmark", usual_benchmark(values["evaluate"]))),
    )
    _check(recipe, where)
    return recipe


def _check_sampled(recipe: Recipe, where: str) -> None:
    for name, source in recipe.data.items():
        if not isinstance(source, SampledData):
            continue
        asked = {other: kind for other, kind in recipe.data.items() if not isinstance(kind, SampledData)}
        if source.questions not in asked:
            raise PerpoError(
                f"{where}: data: {name} is sampled for '{source.questions}', which is no data with questions",
                did_you_mean(source.questions, asked),
            )
        for label, experiment in recipe.experiments.items():
            if experiment.data == name and experiment.rounds:
                raise PerpoError(
                    f"{where}: {label} samples in rounds for '{name}', but that data is already sampled",
                    f"give it `data: {source.questions}`, or no rounds",
                )


def _teaching(part: Any, where: str) -> Teaching | None:
    if part is None:
        return None
    part = _fields(part, where, {"data"}, {"train"})
    return Teaching(str(part["data"]), _stage(part, "train", where))


def _check(recipe: Recipe, where: str) -> None:
    _check_sampled(recipe, where)
    check_pages(recipe, where)
    if recipe.benchmark not in INFO:
        raise PerpoError(f"{where}: compare: there is no benchmark '{recipe.benchmark}'",
                         did_you_mean(recipe.benchmark, INFO))  # fmt: skip
    for label in filter(None, (recipe.base, recipe.against)):
        if label not in recipe.experiments:
            raise PerpoError(
                f"{where}: compare names '{label}', no experiment", did_you_mean(label, recipe.experiments)
            )
    for name, experiment in recipe.experiments.items():
        if experiment.train is None:
            if experiment.data or experiment.rounds:
                raise PerpoError(f"{where}: {name} has data but no train", "add train: {method: ...}")
        elif experiment.data not in recipe.data:
            raise PerpoError(f"{where}: {name} is trained on the data '{experiment.data}', which does not exist",
                             did_you_mean(str(experiment.data), recipe.data))  # fmt: skip
    experiments = recipe.experiments.values()
    trained = [experiment for experiment in experiments if experiment.train is not None]
    sampled = [experiment for experiment in experiments if experiment.rounds]
    nowhere, boxes = Path("nowhere"), BoxFormat("0-1")  # which ones, matters only when they are used
    # The parts for all are wrong or right even where nobody uses them yet.
    for experiment in trained or [Experiment()]:
        training = train_arguments(recipe, experiment, nowhere, nowhere, nowhere, None, 1)
        if experiment.rounds and not training.samples:
            raise PerpoError(
                f"{where}: {training.method} learns the answers in the data, so rounds of sampling have no effect",
                "leave rounds out, or use rft, which learns the best of the sampled answers",
            )
    for experiment in sampled or [Experiment()]:
        arguments = sample_arguments(recipe, experiment, nowhere, nowhere, nowhere, None, 1)
        load_reward(arguments.reward, boxes, boxes)
    evaluate_arguments(recipe, recipe.base, nowhere, None)


def _experiment(part: Any, where: str) -> Experiment:
    part = _fields(part, where, set(), {"data", "rounds", "sample", "train"})
    rounds = _whole(part.get("rounds", 0), COUNT_OR_ZERO, f"{where}: rounds")
    if part.get("sample") and not rounds:
        raise PerpoError(f"{where}: sample has no effect without rounds", "add rounds: 1")
    return Experiment(
        None if part.get("data") is None else str(part["data"]),
        rounds,
        _stage(part, "sample", where),
        _stage(part, "train", where) if "train" in part else None,
    )


def _evaluate(values: Mapping[str, Any], where: str, folder: Path) -> dict[str, Any]:
    arguments = _stage(values, "evaluate", where)
    made = _mapping(values["data"], f"{where}: data")  # pages of PDF files are named, and lie in the run's folder
    if isinstance(arguments.get("data"), str) and arguments["data"] not in ("tiny", "hub", *made):
        arguments["data"] = str(folder / arguments["data"])
    return arguments


_KINDS: dict[str, set[str]] = {
    "file": {"image_root"}, "tiny": set(), "sampled": set(), "pdf": {"settings"}, "of": {"start", "count"},
}  # fmt: skip
"""The kinds of data, and what else may stand beside each."""


def _source(part: Any, where: str, folder: Path) -> Source:
    part = _fields(part, where, set(), set(_KINDS).union(*_KINDS.values()))
    kinds = [kind for kind in _KINDS if kind in part]
    if len(kinds) != 1:
        raise PerpoError(
            f"{where} must have exactly one of {', '.join(_KINDS)}",
            "such as {file: train.jsonl, image_root: images}",
        )
    for name in part:
        if name != kinds[0] and name not in _KINDS[kinds[0]]:
            raise PerpoError(f"{where}: {name} has no effect with {kinds[0]}", "leave it out")
    if "pdf" in part:
        settings = dict(_mapping(part.get("settings") or {}, f"{where}: settings"))
        pdf_arguments(folder / str(part["pdf"]), settings, Path("nowhere"), where)
        return PdfPages(folder / str(part["pdf"]), settings)
    if "of" in part:
        start = _whole(part.get("start", 0), COUNT_OR_ZERO, f"{where}: start")
        return PagesPart(str(part["of"]), start, _whole(part.get("count"), COUNT, f"{where}: count"))
    if "sampled" in part:
        return SampledData(str(part["sampled"]))
    if "tiny" in part:
        asked = _mapping(part["tiny"], where)
        if "pages" in asked:
            return arguments_from_mapping(TinyPages, asked, where)
        return arguments_from_mapping(TinyQuestions, asked, where)
    file = folder / str(part["file"])
    return DataFile(file, folder / str(part["image_root"]) if "image_root" in part else file.parent)


def _folder_name(name: Any, where: str) -> str:
    """The name of an experiment or of data, each of which has a folder in the output."""
    if slug(str(name)) != str(name) or name in ("data", "results"):
        raise PerpoError(
            f"{where}: '{name}' cannot be used as the name of an experiment or of data",
            "names may hold letters, digits, dots, plus signs and hyphens; the names data and results are reserved",
        )
    return str(name)


def _whole(value: Any, allowed: Range, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise PerpoError(f"{where} must be a whole number from 0, found {value!r}", "such as 1")
    allowed.check(value, where)
    return value


def _stage(values: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """The arguments of one stage, without those that the run sets itself."""
    arguments = dict(_mapping(values.get(name) or {}, f"{where}: {name}"))
    for key in arguments:
        if key in _RESERVED[name]:
            raise PerpoError(f"{where}: {name}: {key} is set by the run itself", "leave it out")
    return arguments


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise PerpoError(
            f"{where}: expected names with values, found {type(value).__name__}", "one `name: value` a line"
        )
    return value


def _fields(value: Any, where: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    fields = dict(_mapping(value, where))
    for key in fields:
        if key not in required | optional:
            raise PerpoError(f"{where}: there is no field '{key}'", did_you_mean(str(key), required | optional))
    for key in sorted(required - set(fields)):
        raise PerpoError(f"{where}: {key} is missing", "see the shipped recipes for examples")
    return fields
