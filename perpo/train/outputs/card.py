"""The model card: README.md beside an adapter or a merged model, with what was measured and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from perpo.methods import METHODS
from perpo.records.training_record import ADAPTER_WEIGHTS, public_record
from perpo.train.arguments import TrainArguments
from perpo.train.resuming import FREE

MODEL_CARD_FILE = "README.md"
_METRICS = {
    "reward": ("mean_reward", "mean reward"),
    "acc_50": ("accuracy", "share of boxes with IoU >= 0.5"),
    "unreadable": ("unreadable", "share of answers that hold none"),
}


def write_card(directory: str | Path, record: Mapping[str, Any], step: int) -> None:
    """Write README.md into a checkpoint's directory, over what PEFT put there.

    Args:
        directory: The checkpoint.
        record: training.json of its run; directories of the machine are left out.
        step: The optimizer step of the weights; scores of other steps are left out too.
    """
    public = public_record(record)
    name = _name(public, step)
    score = next((each for each in (public["validation"] or {}).get("scores", []) if each["step"] == step), None)
    is_adapter = (Path(directory) / ADAPTER_WEIGHTS).is_file()
    data = ModelCardData(
        base_model=public["model"]["name"],
        library_name="peft" if is_adapter else "transformers",
        license=public["arguments"].get("license") or "unknown",
        pipeline_tag="image-text-to-text",
        tags=["perpo", "vision-language", public["arguments"]["method"]],
        model_name=name,
        eval_results=_results(public["validation"], score) if score else None,
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(public, name, step, score, is_adapter)}").save(
        Path(directory) / MODEL_CARD_FILE
    )


def _name(public: Mapping[str, Any], step: int) -> str:
    name = public["arguments"].get("run_name") or Path(public["arguments"]["output_dir"]).name
    return name if step == public["steps"] else f"{name}, step {step}"


def _results(validation: Mapping[str, Any], score: Mapping[str, Any]) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type="held-out",
            dataset_name=validation["data"],
            metric_type=kind,
            metric_name=f"{text} ({validation['reward_name']})",
            metric_value=score[key],
        )
        for key, (kind, text) in _METRICS.items()
        if score[key] is not None
    ]


def _text(public: Mapping[str, Any], name: str, step: int, score: Mapping[str, Any] | None, is_adapter: bool) -> str:
    model, data, arguments = public["model"], public["data"], public["arguments"]
    start = f", continued from the adapter {model['adapter']}" if model["adapter"] else ""
    counts = data["counts"] or {}
    used = f" ({counts['lists']} records, {counts['candidates']} answers)" if "lists" in counts else ""
    lines = [
        f"# {name}",
        "",
        f"{'An adapter for' if is_adapter else 'A model made from'} `{model['name']}` (SHA-256 of the weights: "
        f"`{model['weights_sha256']}`){start}.",
        "",
        f"- Method: {METHODS[arguments['method']].card_line}.",
        f"- Data: `{data['path']}`{used}, SHA-256 `{data['sha256']}`.",
        f"- Optimizer steps: {step}.",
        f"- Licence: {arguments.get('license') or 'unknown; that of the base and of the data apply'}.",
        "",
        *_measured(public["validation"], score),
        "## Settings",
        "",
        *_settings(arguments),
        "",
        f"Made with perpo {(public['code'] or {}).get('version')}; training.json beside this file has all of it.",
    ]
    return "\n".join(lines) + "\n"


def _measured(validation: Mapping[str, Any] | None, score: Mapping[str, Any] | None) -> list[str]:
    if validation is None or score is None:
        return []
    first = validation["scores"][0]
    rows = [
        f"| {text} | {first[key]:.4f} | {score[key]:.4f} |"
        for key, (_, text) in _METRICS.items()
        if score[key] is not None
    ]
    return [
        f"## Measured on {validation['questions']} held-out questions of `{validation['data']}`",
        "",
        f"Greedy answers; the reward is {validation['reward_name']}.",
        "",
        f"| | step {first['step']} | step {score['step']} |",
        "|---|---|---|",
        *rows,
        "",
    ]


def _settings(arguments: Mapping[str, Any]) -> list[str]:
    """The arguments that change the weights and were given, and the main ones in any case."""
    always = ("learning_rate", "mm_projector_lr", "lora_r", "lora_alpha", "num_train_epochs", "seed")
    defaults = {name: getattr(TrainArguments, name, None) for name in arguments}
    return [
        f"- {name}: {value}"
        for name, value in arguments.items()
        if name not in FREE and name != "method" and (name in always or value != defaults[name])
    ]
