"""An adapter put on its base, with every one of its weights in the place that it was trained for."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, equal
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from perpo.common.processes import is_first_process
from perpo.errors import PerpoError
from perpo.models.hub import first_line
from perpo.records.training_record import ADAPTER_WEIGHTS, TRAINING_FILE

_PREFIX = "base_model.model."
_OTHER_MODEL = "give the model that the adapter was trained on"
_SHOWN = 3


def put_adapter(model: Any, adapter: str | Path, name: str = "default", *, trainable: bool = False) -> PeftModel:
    """Put an adapter on a model, all of it or none.

    Names of modules that earlier versions of transformers gave are mapped as transformers maps those of checkpoints.

    Args:
        model: The base, or a PeftModel that gets a further adapter.
        adapter: Directory that `perpo-train` (or PEFT) wrote.
        name: What it is called in the PeftModel.
        trainable: Whether its weights will be trained.

    Raises:
        PerpoError: The adapter cannot be read, or it and the model do not fit each other in every weight.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    transforms = get_model_conversion_mapping(base, add_legacy=False)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        _rename_modules(config, renamings)
        _warn_of(adapter, config, base)
        config.inference_mode = not trainable
        config.base_model_name_or_path = base.name_or_path  # what is written again names no directory of a machine
        if isinstance(model, PeftModel):
            model.add_adapter(name, config)
        else:
            model = get_peft_model(model, config, name)
        weights = load_file(Path(adapter, ADAPTER_WEIGHTS))
    except Exception as error:  # the libraries raise many kinds for damaged files
        raise PerpoError(f"the adapter {adapter} does not fit the model: {first_line(error)}", _OTHER_MODEL) from error
    _check_patterns(model, name, adapter)
    fill_adapter(model, weights, adapter, name, renamings)
    return model


def fill_adapter(
    model: PeftModel,
    weights: Mapping[str, Tensor],
    where: str | Path,
    name: str = "default",
    renamings: list[WeightRenaming] | None = None,
) -> None:
    """Put weights into an adapter that the model has.

    Args:
        model: The model.
        weights: As PEFT writes them.
        where: The directory that they are from, for messages.
        name: The adapter's name.
        renamings: From names of earlier versions of transformers to today's.

    Raises:
        PerpoError: A weight of the adapter is missing, or of another shape, or one of `weights` has no place.
    """
    own = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    expected = get_peft_model_state_dict(model, own, name, save_embedding_layers=False)
    given = _renamed(weights, expected, renamings or [])
    for key in given.keys() - expected.keys():  # PEFT adds embeddings: the base's, and trained ones a second time
        same = given.get(key.replace(".modules_to_save.", ".")) if ".modules_to_save." in key else own.get(key)
        if same is not None and shape_of(same) == given[key].shape and equal(same.cpu(), given[key].to(same.dtype)):
            del given[key]
    if problems := _problems(expected, given):
        raise PerpoError(f"the adapter {where} does not fit the model: {'; '.join(problems)}", _hint(expected, given))
    report: Any = set_peft_model_state_dict(model, given, adapter_name=name)
    if left := report.unexpected_keys:  # PEFT renames once more, and must not lose any
        raise PerpoError(f"the adapter {where} does not fit the model: PEFT did not take {left[0]}", _OTHER_MODEL)
    if moved := len(given.keys() - weights.keys()):
        say_once(f"note: {moved} weights of the adapter {where} have names from an older transformers and are renamed")


def _rename_modules(config: Any, renamings: list[WeightRenaming]) -> None:
    """Rename what a config names by its whole path; a pattern, or the last part of a name, stays as it is."""
    for field in ("target_modules", "exclude_modules", "modules_to_save"):
        if isinstance(names := getattr(config, field, None), (list, set)):
            setattr(config, field, type(names)(_of_today(each, renamings) for each in names))
    for field in ("rank_pattern", "alpha_pattern"):
        if isinstance(values := getattr(config, field, None), dict):
            setattr(config, field, {_of_today(each, renamings): value for each, value in values.items()})


def _of_today(name: str, renamings: list[WeightRenaming]) -> str:
    """A name with all renamings in turn, as transformers does it; its own function for that is not in all versions."""
    for each in renamings:
        name, _ = each.rename_source_key(name)
    return name


def _renamed(
    weights: Mapping[str, Tensor], expected: Mapping[str, Any], renamings: list[WeightRenaming]
) -> dict[str, Tensor]:
    def today(key: str) -> str:
        renamed = _PREFIX + _of_today(key.removeprefix(_PREFIX), renamings)
        return renamed if key.startswith(_PREFIX) and key not in expected and renamed in expected else key

    return {today(key): value for key, value in weights.items()}


def _check_patterns(model: PeftModel, name: str, adapter: str | Path) -> None:
    """Refuse ranks and scales for modules that are not adapted, for they would be those of all others."""
    config = model.peft_config[name]
    adapted: list[str] = getattr(model.base_model, "targeted_module_names", [])
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, field, None) or {}:
            if not any(re.match(rf"(.*\.)?({pattern})$", module) for module in adapted):
                raise PerpoError(
                    f"the adapter {adapter} does not fit the model: the model has no module called {pattern}, which "
                    f"{field} in adapter_config.json names",
                    _OTHER_MODEL,
                )


def _warn_of(adapter: str | Path, config: Any, base: Any) -> None:
    """Say which settings are not known here, and if it says that another base is its own (unless digests decide)."""
    written = json.loads(Path(adapter, "adapter_config.json").read_text(encoding="utf-8"))
    known = {field.name for field in fields(config)}
    if unknown := sorted(name for name, value in written.items() if value and name not in known):
        say_once(f"warning: the adapter {adapter} has settings that this PEFT does not know: {', '.join(unknown)}")
    named, here = (Path(each or "").name for each in (config.base_model_name_or_path, base.name_or_path))
    if named and here and named != here and not Path(adapter, TRAINING_FILE).is_file():
        say_once(f"warning: the adapter {adapter} says that it was trained on {named}, but it is used with {here}")


def say_once(text: str) -> None:
    """Say it on stderr, of several processes in the first alone."""
    if is_first_process():
        print(text, file=sys.stderr)


def _problems(expected: Mapping[str, Any], given: Mapping[str, Tensor]) -> list[str]:
    """What does not fit, in words, with some names."""
    missing, unused = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    both = sorted(expected.keys() & given.keys())
    other = [
        f"{key} {tuple(given[key].shape)} for {tuple(shape_of(expected[key]))}"
        for key in both
        if given[key].shape != shape_of(expected[key])
    ]
    return [
        f"{len(names)} of {total} {what}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        for names, total, what in (
            (missing, len(expected), "weights that its adapter_config.json names are missing"),
            (unused, len(given), "weights in it do not belong to any module of the model"),
            (other, len(both), "weights have another shape"),
        )
        if names
    ]


def _hint(expected: Mapping[str, Any], given: Mapping[str, Tensor]) -> str:
    """What it looks like, by a weight that has no place and the same one among those that are missing."""
    unused, missing = sorted(given.keys() - expected.keys()), sorted(expected.keys() - given.keys())
    if missing and not unused:
        return (
            "some of its weights are not in its file: check that the file is complete and that adapter_config.json "
            "belongs to it"
        )
    if not unused:
        return "it was trained on a model of another size: give that model"
    theirs, ours = max(
        ((_head(key, other), _head(other, key)) for key in unused[:_SHOWN] for other in missing),
        key=lambda pair: -len(pair[0]) - len(pair[1]),
        default=(unused[0], _PREFIX),
    )
    names = f"its names begin with {theirs[:-1]}, not with {ours[:-1]}"
    if not (theirs and ours):
        names = (
            f"the names of its weights {f'have an extra {theirs[:-1]}' if theirs else f'lack {ours[:-1]}'} at "
            "their start"
        )
    if not unused[0].startswith(_PREFIX) or unused[0].count(_PREFIX) > 1:
        return f"{names}; it was saved without PEFT, or inside a wrapper"
    if theirs == f"{_PREFIX}model." and ours.startswith(theirs):
        return f"{names}; it was trained on a language model alone, for example with a text trainer"
    if theirs != unused[0]:
        return f"{names}; it comes from another version of transformers, or from another model"
    return _OTHER_MODEL


def _head(key: str, other: str) -> str:
    """What a name begins with, up to the parts that both names end with."""
    parts, others = key.split("."), other.split(".")
    same = 0
    while same < min(len(parts), len(others)) and parts[-1 - same] == others[-1 - same]:
        same += 1
    return "".join(f"{part}." for part in parts[: len(parts) - same])


def shape_of(parameter: Tensor) -> torch.Size:
    """Return a parameter's shape, also where ZeRO-3 has parted it."""
    return getattr(parameter, "ds_shape", parameter.shape)
