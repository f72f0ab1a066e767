"""Choose the engine that answers: our own model class, or any model that lmms-eval knows."""

from __future__ import annotations

from pathlib import Path

from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError
from perpo.models.checkpoints import adapter_digest, model_config, resolve_model
from perpo.models.families import FAMILIES
from perpo.models.keeping import let_go
from perpo_eval.engines.base import EvalEngine
from perpo_eval.engines.lmms import lmms_engine, lmms_name
from perpo_eval.engines.own import own_engine
from perpo_eval.wanted import MOST_ERRORS, DecodingWanted, EngineWanted, Reading


def check_engine(wanted: EngineWanted, reading: Reading, decoding: DecodingWanted) -> None:
    """Refuse what no engine could run, before anything is loaded.

    Args:
        wanted: What is to answer.
        reading: How it writes boxes.
        decoding: How it chooses tokens.

    Raises:
        PerpoError: An unknown engine, or arguments that it has no use for.
    """
    if wanted.own:
        if wanted.model_args:
            raise PerpoError("--model_args is for --engine lmms:<model>", "give --dtype, --device and --batch_size")
        model_type = model_config(resolve_model(wanted.checkpoint)).get("model_type", "")
        if reading.family is not None and model_type in FAMILIES:
            raise PerpoError("--family is for --engine lmms:<model> and --responses", "a checkpoint says its own")
        if wanted.max_error_share != MOST_ERRORS and wanted.engine == "perpo":
            raise PerpoError(
                "--max_error_share is for --engine vllm, server and lmms:<model>",
                "a failure of perpo's engine ends the run",
            )
        if wanted.adapter is not None:
            adapter_digest(wanted.adapter)
        return
    name = lmms_name(wanted.engine)
    from lmms_eval.models import AVAILABLE_SIMPLE_MODELS, MODEL_REGISTRY_V2

    try:
        MODEL_REGISTRY_V2.get_manifest(name)
    except Exception:  # what it raises for an unknown name has changed between versions
        raise PerpoError(f"lmms-eval knows no model '{name}'", did_you_mean(name, AVAILABLE_SIMPLE_MODELS)) from None
    placed = wanted.dtype is not None or wanted.device is not None
    twice = wanted.model is not None and "pretrained" in wanted.given_to_model
    for flags, given, instead in (
        ("--adapter is", wanted.adapter is not None, "merge the adapter into its base with perpo-train merge"),
        ("--temperature is", decoding.drawn, "an lmms-eval model draws as its tasks say"),
        ("--stop_on_repetition is", decoding.stop_on_repetition, "leave it out: loops are counted for any engine"),
        ("--dtype and --device are", placed, "give them in --model_args"),
        ("--model beside pretrained= is", twice, "give one of the two"),
    ):
        if given:
            raise PerpoError(f"{flags} for --engine perpo", instead)
    for key, value in wanted.given_to_model.items():
        if Path(value, "adapter_config.json").is_file():
            raise PerpoError(
                f"--model_args {key}={value} is an adapter, but it could not be checked whether {name} loads all of it",
                "merge the adapter into its base with perpo-train merge, and give the result as --model",
            )


def load_engine(wanted: EngineWanted, reading: Reading) -> EvalEngine:
    """Load what answers.

    Raises:
        PerpoError: The model cannot be loaded.
    """
    if wanted.own:
        return own_engine(wanted, reading)
    let_go()
    return lmms_engine(wanted, reading)
