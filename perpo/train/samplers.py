"""Check whether preference records were sampled from the model that is trained on them. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perpo.data import PreferenceRecord, Question
from perpo.errors import PerpoError
from perpo.train.arguments import TrainArguments

_WEIGHTS, _ADAPTER = "weights_sha256", "adapter_sha256"


def check_sampler(args: TrainArguments, records: Sequence[Question], model: Mapping[str, Any]) -> str | None:
    """Hold the records against the model and adapter that training starts from.

    Records that do not say what sampled them are taken as they are.

    Args:
        args: The run's arguments.
        records: What is trained on; for sft, which learns the truths, nothing is asked.
        model: What training.json says of the start: its digests.

    Returns:
        What is to be known if some were sampled from something else, or None.

    Raises:
        PerpoError: Some were sampled from another base, or none from the adapter, and that is not allowed. Or the
            recorded log-probabilities are to be the reference's, and are not in every record.
    """
    if args.reference == "recorded":
        _check_recorded(records, model, args.dtype)
    made = [each.sampling for each in records if isinstance(each, PreferenceRecord) and each.sampling]
    made = [each for each in made if each.get(_WEIGHTS) is not None]
    bases = [each for each in made if each[_WEIGHTS] != model[_WEIGHTS]]
    adapters = [each for each in made if each[_WEIGHTS] == model[_WEIGHTS] and each.get(_ADAPTER) != model[_ADAPTER]]
    if not args.samples or not (bases or adapters):
        return None
    # Rounds that were put together have some of the last adapter, which training goes on from.
    refused = bases or (adapters if len(adapters) == len(made) else [])
    if refused and not args.allow_other_sampler:
        raise PerpoError(
            f"{len(refused)} of {len(records)} records were sampled from {_name(refused[0], bool(bases))}, and "
            f"training starts from {_start(args, bool(bases))}",
            "give the --model and --adapter that they were sampled from; or --allow_other_sampler True, to learn from "
            "another model's answers: log-probabilities in the records are not the reference's then",
        )
    return (
        f"{len(bases) + len(adapters)} of {len(records)} records were sampled from another model or adapter than "
        "training starts from: the reference is the latter, whatever log-probabilities they hold"
    )


def _name(sampling: Mapping[str, Any], is_base: bool) -> str:
    name = f"the model {sampling.get('model', 'that is not named')} (weights {sampling[_WEIGHTS][:12]}...)"
    if is_base:
        return name
    adapter = sampling.get(_ADAPTER)
    return "the model without an adapter" if adapter is None else f"the adapter of SHA-256 {adapter[:12]}..."


def _start(args: TrainArguments, is_base: bool) -> str:
    if is_base:
        return f"{args.model}, which has other weights"
    return "the model without an adapter" if args.adapter is None else f"{args.adapter}, which is another"


def _check_recorded(records: Sequence[Question], model: Mapping[str, Any], dtype: str) -> None:
    """Recorded log-probabilities are the reference's only if the starting policy sampled them, as precisely."""
    for number, each in enumerate(records, 1):
        assert isinstance(each, PreferenceRecord)
        sampling = each.sampling or {}
        for key in (_WEIGHTS, _ADAPTER):
            if sampling.get(key) != model[key]:
                raise PerpoError(
                    f"record {number} was not sampled from the model and adapter that training starts from",
                    "leave --reference out, or give the --model and --adapter that it was sampled from",
                )
        if sampling.get("dtype") != dtype:
            raise PerpoError(
                f"record {number} was sampled in {sampling.get('dtype', 'an unknown type')}, "
                f"and training computes in {dtype}",
                "leave --reference out, or choose --bf16 to suit the records",
            )
