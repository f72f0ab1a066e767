"""What answers: our own model class, or any model that lmms-eval knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError
from perpo.models.checkpoints import (
    adapter_digest,
    model_config,
    resolve_model,
)
from perpo.models.families import FAMILIES
from perpo_eval.arguments import MOST_ERRORS
from perpo_eval.engines.base import EvalEngine
from perpo_eval.engines.lmms import given_to_model, lmms_engine, lmms_name
from perpo_eval.engines.own import own_engine

if TYPE_CHECKING:
    from perpo_eval.arguments import EvalArguments


def check_engine(args: EvalArguments) -> None:
    """Refuse what no engine could run, before anything is loaded.

    Raises:
        PerpoError: An unknown engine, or arguments that it has no use for.
    """
    if args.engine == "perpo":
        if args.model_args:
            raise PerpoError("--model_args is for --engine lmms:<model>", "give --dtype, --device and --batch_size")
        model_type = model_config(resolve_model(args.model or "tiny")).get("model_type", "")
        if args.family is not None and model_type in FAMILIES:
            raise PerpoError("--family is for --engine lmms:<model> and --responses", "a checkpoint says its own")
        if args.max_error_share != MOST_ERRORS:
            raise PerpoError(
                "--max_error_share is for --engine lmms:<model>", "a failure of perpo's engine ends the run"
            )
        if args.adapter is not None:
            adapter_digest(args.adapter)
        return
    name = lmms_name(args.engine)
    from lmms_eval.models import AVAILABLE_SIMPLE_MODELS, MODEL_REGISTRY_V2

    try:
        MODEL_REGISTRY_V2.get_manifest(name)
    except Exception:  # what it raises for an unknown name has changed between versions
        raise PerpoError(f"lmms-eval knows no model '{name}'", did_you_mean(name, AVAILABLE_SIMPLE_MODELS)) from None
    twice = args.model is not None and "pretrained" in given_to_model(args)
    for flags, given, instead in (
        ("--adapter is", args.adapter is not None, "merge it into its base: perpo-train merge"),
        ("--temperature is", args.temperature > 0, "an lmms-eval model draws as its tasks say"),
        ("--dtype and --device are", args.dtype is not None or args.device is not None, "give them in --model_args"),
        ("--model beside pretrained= is", twice, "give one of the two"),
    ):
        if given:
            raise PerpoError(f"{flags} for --engine perpo", instead)
    for key, value in given_to_model(args).items():
        if Path(value, "adapter_config.json").is_file():
            raise PerpoError(
                f"--model_args {key}={value} is an adapter, and nothing would tell whether {name} loads all of it",
                "merge it into its base (perpo-train merge), and give that as --model",
            )


def load_engine(args: EvalArguments) -> EvalEngine:
    """Load what answers.

    Raises:
        PerpoError: The model cannot be loaded.
    """
    return own_engine(args) if args.engine == "perpo" else lmms_engine(args)
