"""Make the arguments that a recipe's stages are called with, and say what their results depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.common.arguments import arguments_from_mapping
from perpo.common.redact import clean
from perpo.data.images import PICTURES_VERSION
from perpo.errors import PerpoError
from perpo.methods import unused_by
from perpo.models.checkpoints import (
    adapter_digest,
    local_directory,
    resolve_model,
    settings_digests,
    weights_digest,
)
from perpo.prepare.arguments import PdfArguments
from perpo.sample.arguments import SampleArguments
from perpo.train.arguments import TrainArguments
from perpo_eval.arguments import EvalArguments
from perpo_eval.rows.suites import SUITES

if TYPE_CHECKING:
    from perpo_eval.recipes.recipe import Experiment, Recipe, Teaching

# The results depend on what these lead to, not on where it lies.
_PLACES = {
    "model", "adapter", "data", "questions", "image_root", "output", "output_dir", "resume_from_checkpoint",
    "cache_dir", "allow_other_sampler",
}  # fmt: skip


_TEACHING = "sft"
"""The method that teaches a model before its experiments."""


def sample_arguments(
    recipe: Recipe, experiment: Experiment, data: Path, image_root: Path, output: Path, adapter: Path | None, part: int
) -> SampleArguments:
    """Return arguments of the sampling stage of round `part`."""
    values = recipe.sample | experiment.sample
    values |= {"model": recipe.model, "adapter": adapter and str(adapter), "seed": recipe.seed * 1000 + part}
    values |= {"questions": str(data), "image_root": str(image_root), "output": str(output)}
    arguments = arguments_from_mapping(SampleArguments, values, f"recipe {recipe.name}: sample")
    if arguments.processes > 1:
        raise PerpoError(
            f"recipe {recipe.name}: sample: processes is {arguments.processes}, and a recipe runs in one process",
            "leave it out, sample from servers (engine: server), or run perpo-sample by itself",
        )
    return arguments


def method_of(recipe: Recipe, experiment: Experiment) -> str:
    """Return the name of the training method of an experiment."""
    return (recipe.train | (experiment.train or {})).get("method", TrainArguments.method)


def train_arguments(
    recipe: Recipe, experiment: Experiment, data: Path, image_root: Path, output: Path, adapter: Path | None, part: int
) -> TrainArguments:
    """Return arguments of the training stage of round `part`.

    Raises:
        PerpoError: The recipe trains all weights, which the stages after it could not pick up.
    """
    own, method = experiment.train or {}, method_of(recipe, experiment)
    # What only some methods take may stand in the recipe's common part.
    values = {name: value for name, value in recipe.train.items() if name not in unused_by(method)} | own
    values |= {"model": recipe.model, "adapter": adapter and str(adapter), "seed": recipe.seed}
    values |= {"data": str(data), "image_root": str(image_root), "output_dir": str(output)}
    values |= {"schedule_part": f"{part}/{max(experiment.rounds, 1)}", "resume_from_checkpoint": "last"}
    arguments = arguments_from_mapping(TrainArguments, values, f"recipe {recipe.name}: train")
    if not arguments.lora_enable:
        raise PerpoError(
            f"recipe {recipe.name}: train: lora_enable: false writes no adapter, but later stages need one",
            "run perpo-train alone, and give its result to perpo-eval as --model",
        )
    return arguments


def teaching_arguments(
    recipe: Recipe, teaching: Teaching, data: Path, image_root: Path, output: Path
) -> TrainArguments:
    """Return arguments of the training before all experiments: SFT of all weights, with what the recipe says of it.

    Raises:
        PerpoError: It trains an adapter, which later stages would not start from.
    """
    values = {"method": _TEACHING, "lora_enable": False} | teaching.train
    values |= {"model": recipe.model, "seed": recipe.seed, "resume_from_checkpoint": "last"}
    values |= {"data": str(data), "image_root": str(image_root), "output_dir": str(output)}
    arguments = arguments_from_mapping(TrainArguments, values, f"recipe {recipe.name}: teach")
    if arguments.lora_enable or arguments.method != _TEACHING:
        raise PerpoError(f"recipe {recipe.name}: teach trains all weights by sft", "leave method and lora_enable out")
    return arguments


def pdf_arguments(folder: Path, settings: dict[str, Any], output: Path, where: str) -> PdfArguments:
    """Return arguments of perpo-data pdf.

    Raises:
        PerpoError: One is unknown, wrong, or set by the run itself.
    """
    for name in ("pdf", "output", "overwrite"):
        if name in settings:
            raise PerpoError(f"{where}: {name} is set by the run itself", "leave it out")
    values = settings | {"pdf": str(folder), "output": str(output), "overwrite": True}
    arguments = arguments_from_mapping(PdfArguments, values, where)
    arguments.check()
    return arguments


def evaluate_arguments(recipe: Recipe, name: str, output: Path, adapter: Path | None) -> EvalArguments:
    """Return arguments of the evaluation of the experiment called `name`."""
    values = recipe.evaluate | {"model": recipe.model, "adapter": adapter and str(adapter)}
    return arguments_from_mapping(
        EvalArguments, values | {"name": name, "output": str(output)}, f"recipe {recipe.name}: evaluate"
    )


def usual_benchmark(evaluate: Any) -> str:
    """Return the first benchmark of the suite; a suite that does not exist is refused with the other arguments."""
    suite = evaluate.get("suite", EvalArguments.suite) if isinstance(evaluate, Mapping) else EvalArguments.suite
    return SUITES.get(str(suite), SUITES[EvalArguments.suite])[0]


def stage_key(arguments: SampleArguments | TrainArguments | EvalArguments, data: str) -> dict[str, Any]:
    """Return what the result of a stage depends on, by name: its arguments, with digests in place of paths.

    Args:
        arguments: The stage's; the model and the adapter must be there.
        data: Digest of the data.

    Raises:
        PerpoError: The model or the adapter is not there.
    """
    values = clean({name: value for name, value in asdict(arguments).items() if name not in _PLACES})
    values |= _precision(arguments)
    directory = local_directory(resolve_model(arguments.model or "tiny"))
    weights, adapter = weights_digest(directory), adapter_digest(arguments.adapter) if arguments.adapter else None
    values |= settings_digests(directory, arguments.adapter)
    return values | {"model": weights, "adapter": adapter, "data": data, "pictures": PICTURES_VERSION}


def _precision(arguments: SampleArguments | TrainArguments | EvalArguments) -> dict[str, Any]:
    """The type of the numbers, which the machine decides where no argument does."""
    from perpo.models.loading import chosen_dtype

    if isinstance(arguments, TrainArguments):
        return {"bf16": chosen_dtype(None, None) == "bfloat16"} if arguments.bf16 is None else {}
    if isinstance(arguments, EvalArguments) and arguments.engine != "perpo":
        return {}
    return {"dtype": chosen_dtype(arguments.dtype, arguments.device)}
