"""The flags of the authors' training command, and what each of them is here. Needs no torch.

One table says it for the program and for docs/training.md: `python -m perpo.train.authors.flags` prints it as Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from perpo.errors import PerpoError


@dataclass(frozen=True)
class SeedFlag:
    """A flag of the authors' code as it is called here.

    Attributes:
        means: What it does, in a line of Markdown.
        argument: The argument of perpo-train that it sets, or None.
        values: The values that it may have, each with what the argument becomes (None leaves it); None for any.
        checked: Whether its value is compared with the model or the run; see `perpo.train.authors.checks`.
        in_command: Whether the authors' command has it; their code declares the others.
        idle: Whether, by the other flags' values, there is nothing that it could act on; it is then left out, and said.
    """

    means: str
    argument: str | None = None
    values: Mapping[str, str | None] | None = None
    checked: bool = False
    in_command: bool = True
    idle: Callable[[Mapping[str, str]], bool] = lambda said: False


def _checked(means: str, *, in_command: bool = True) -> SeedFlag:
    return SeedFlag(means, checked=True, in_command=in_command)


def _declared(means: str, argument: str | None = None, values: Mapping[str, str | None] | None = None) -> SeedFlag:
    return SeedFlag(means, argument, values, in_command=False)


def _validates_nothing(said: Mapping[str, str]) -> bool:
    return "no" in (said.get("evaluation_strategy"), said.get("eval_strategy")) and "eval_data" not in said


def _quantises_nothing(said: Mapping[str, str]) -> bool:
    return said.get("bits", "16") == "16"


_ADAMW: dict[str, str | None] = {"adamw_torch": None}
_ADAMW_MEANS = "must be `adamw_torch`, which is what trains"
_OF_4_BITS = "of `--bits 4`, where it is so; left out, and said, without it"
_STRATEGY = "`no`, or `steps` with `--eval_data` and `--eval_steps`"
_LENGTH = "most tokens of image, prompt and answer; data with longer ones are refused, nothing is truncated"

SEED_FLAGS: dict[str, SeedFlag] = {
    "lora_enable": SeedFlag(
        "`False` trains the whole language model, and the projector, in place of LoRA", "lora_enable"
    ),
    "lora_r": SeedFlag("rank of LoRA", "lora_r"),
    "lora_alpha": SeedFlag("scale of LoRA", "lora_alpha"),
    "mm_projector_lr": SeedFlag("learning rate of the projector", "mm_projector_lr"),
    "deepspeed": SeedFlag("DeepSpeed's configuration: a JSON file, or a shipped one such as `zero3`", "deepspeed"),
    "model_name_or_path": SeedFlag("the model, in the Hugging Face layout or that of LLaVA's own code", "model"),
    "version": _checked(
        "the conversation: the model's chat template must write a turn so (`v1`: `USER:`, `ASSISTANT:`)"
    ),
    "ours_data_path": SeedFlag("the preference records", "data"),
    "vision_tower": _checked(
        "must be like the model's own tower: patch size, image size and width by the `config.json` of a directory; "
        "of a name, the patch and image size that it says (`...-patch14-336`). An original LLaVA checkpoint that does "
        "not hold its tower is read with this one"
    ),
    "tune_mm_mlp_adapter": SeedFlag(
        "`True` trains the projector alone", "projector_only", {"true": "True", "false": None}
    ),
    "freeze_backbone": _checked(
        "LoRA leaves the backbone as it is, so either holds; `True` is refused with `--lora_enable False`"
    ),
    "mm_projector_type": _checked("must be the model's: `mlp2x_` and the `projector_hidden_act` of its `config.json`"),
    "mm_vision_select_layer": _checked("must be the model's `vision_feature_layer`"),
    "mm_use_im_start_end": _checked("whether the prompt has `<im_start>` and `<im_end>` around the image"),
    "mm_use_im_patch_token": _checked("whether the tokenizer has `<im_patch>`"),
    "image_aspect_ratio": _checked(
        "must be what is done with the model's images: `pad` for LLaVA-1.5, `anyres` for LLaVA-NeXT, the "
        "`vision_aspect_ratio` of its `config.json` for LLaVA-OneVision"
    ),
    "group_by_modality_length": SeedFlag("batches of similar lengths", "group_by_modality_length"),
    "bf16": SeedFlag(
        "compute in bfloat16; the lone `v` that the command's `\\v` leaves behind it is left out, and said", "bf16"
    ),
    "output_dir": SeedFlag("where everything is written", "output_dir"),
    "num_train_epochs": SeedFlag("times through the data", "num_train_epochs"),
    "per_device_train_batch_size": SeedFlag("records per forward pass", "per_device_train_batch_size"),
    "per_device_eval_batch_size": SeedFlag(
        "questions of a validation that are answered at once; left out, and said, where there is none",
        "per_device_eval_batch_size",
        idle=_validates_nothing,
    ),
    "gradient_accumulation_steps": SeedFlag("forward passes per optimizer step", "gradient_accumulation_steps"),
    "evaluation_strategy": _checked(_STRATEGY),
    "save_strategy": SeedFlag("when checkpoints are written", "save_strategy"),
    "save_steps": SeedFlag("optimizer steps between two checkpoints", "save_steps"),
    "save_total_limit": SeedFlag("checkpoints to keep", "save_total_limit"),
    "learning_rate": SeedFlag("learning rate", "learning_rate"),
    "weight_decay": SeedFlag("AdamW's weight decay", "weight_decay"),
    "warmup_steps": SeedFlag("steps until the full learning rate", "warmup_steps"),
    "lr_scheduler_type": SeedFlag("how the learning rates change", "lr_scheduler_type"),
    "logging_steps": SeedFlag("optimizer steps between two log entries", "logging_steps"),
    "tf32": SeedFlag("TF32 on NVIDIA GPUs from Ampere on; refused where there is none", "tf32"),
    "model_max_length": SeedFlag(_LENGTH, "max_length"),
    "gradient_checkpointing": SeedFlag("recompute activations", "gradient_checkpointing"),
    "dataloader_num_workers": SeedFlag("processes that load images", "dataloader_num_workers"),
    "lazy_preprocess": SeedFlag("must be `True`: images are loaded when they are needed", None, {"true": None}),
    "report_to": SeedFlag("where metrics go", "report_to"),
    "run_name": SeedFlag("what metrics call the run", "run_name"),
    "beta": SeedFlag("scale of the scores", "beta"),
    "perpo_gamma": SeedFlag("power of the reward margins", "gamma"),
    "best_of_n": SeedFlag("use the first N usable candidates of a record", "num_candidates"),
    "lora_dropout": _declared("`sft` and `rft` only: policy and reference would differ by chance", "lora_dropout"),
    "lora_bias": _declared("must be `none`: a trained bias would change the reference too", None, {"none": None}),
    "bits": _declared("16, or 4 for QLoRA", "bits"),
    "double_quant": SeedFlag(_OF_4_BITS, "double_quant", in_command=False, idle=_quantises_nothing),
    "quant_type": SeedFlag(_OF_4_BITS, "quant_type", in_command=False, idle=_quantises_nothing),
    "lora_weight_path": _declared("adapter to continue from; empty is none", "adapter"),
    "image_folder": _declared("folder that image paths start from; empty is that of the data", "image_root"),
    "max_grad_norm": _declared("clip the gradient's norm to this", "max_grad_norm"),
    "max_steps": _declared("optimizer steps; -1 is whole epochs", "max_steps"),
    "seed": _declared("seed of the random numbers", "seed"),
    "warmup_ratio": _declared("warm-up as a share of all steps", "warmup_ratio"),
    "max_prompt_length": _declared(
        "most tokens of a prompt, its image not counted; data with longer ones are refused", "max_prompt_length"
    ),
    "max_length": _declared(_LENGTH, "max_length"),
    "optim": _declared(_ADAMW_MEANS, None, _ADAMW),
    "optimizer_type": _declared(_ADAMW_MEANS, None, _ADAMW),
    "local_rank": _checked("must be the launcher's `LOCAL_RANK`, or -1 without one", in_command=False),
    "cache_dir": _declared("folder for models from the hub", "cache_dir"),
    "freeze_mm_mlp_adapter": _declared(
        "`True` is `--mm_projector_lr 0`", "mm_projector_lr", {"true": "0", "false": None}
    ),
    "eval_strategy": _checked(_STRATEGY, in_command=False),
}
"""The flags of the command, in its order, then those that the authors' code declares besides."""


@dataclass
class SeedWords:
    """A command line in our own words.

    Attributes:
        words: Our flags and their values.
        checks: Values by flag that are to be compared with the model and the run.
        notes: What the user should know.
    """

    words: list[str] = field(default_factory=list)
    checks: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def translate(argv: Sequence[str]) -> SeedWords:
    """Turn the flags of the authors' command into ours; all other words stay.

    Raises:
        PerpoError: A flag lacks its value or has one that cannot be had here, or two flags set one argument.
    """
    translation, setters = SeedWords(), dict[str, str]()
    given_flags = _flags(argv)
    values = {each.name: each.values[0] for each in given_flags if each.values}
    for position, each in enumerate(given_flags):
        flag = SEED_FLAGS.get(each.name, SeedFlag("", each.name or None))
        if each.words == ["--version"]:  # the program's own
            flag = SeedFlag("", each.name)
        if each.name == "bf16" and each.values[1:] == ["v"]:
            translation.notes.append(_about_stray_v(last=position == len(given_flags) - 1))
            each.words.pop()
        if flag.idle(values):
            translation.notes.append(f"{' '.join(each.words)} is left out, because it has no effect here")
            continue
        words = each.words if flag.argument == (each.name or None) else _translated(each, flag, translation)
        translation.words += words
        if flag.argument and words and setters.setdefault(flag.argument, each.name) != each.name:
            raise PerpoError(
                f"--{setters[flag.argument]} and --{each.name} both set {flag.argument}", "give one of them"
            )
    return translation


@dataclass
class _Given:
    """A flag as it was given (its name is "" for words before the first): all of its words, its values alone."""

    name: str
    words: list[str]
    values: list[str]


def _flags(argv: Sequence[str]) -> list[_Given]:
    given_flags = [_Given("", [], [])]
    for word in argv:
        if word.startswith("--"):
            name, has_value, value = word[2:].partition("=")
            given_flags.append(_Given(name, [word], [value] if has_value else []))
        else:
            given_flags[-1].words.append(word)
            given_flags[-1].values.append(word)
    return given_flags


def _translated(given: _Given, flag: SeedFlag, translation: SeedWords) -> list[str]:
    """What a flag becomes in our words; a check is taken down in `translation`."""
    if not given.values and not (flag.values and "true" in flag.values):
        raise PerpoError(f"--{given.name} expects a value", "see docs/training.md")
    value, *surplus = given.values or ["True"]
    ours = _ours(given.name, flag, value)
    if flag.checked:
        translation.checks[given.name] = value
    return [*([] if ours is None else [f"--{flag.argument}={ours}"]), *surplus]  # what is too much is refused later


def _ours(name: str, flag: SeedFlag, value: str) -> str | None:
    """The value of our argument, or None where there is nothing to set."""
    if flag.values is None:
        return (value or None) if flag.argument else None
    known = value.lower() if "true" in flag.values else value
    if known not in flag.values:
        expected = " or ".join(each.capitalize() if each in ("true", "false") else each for each in flag.values)
        raise PerpoError(f"--{name} expects {expected}, got {value!r}", f"--{name}: {flag.means}")
    return flag.values[known]


def _about_stray_v(*, last: bool) -> str:
    slip = "'v' after --bf16 comes from the \\v in the authors' README, where \\ at the end of the line was intended"
    if last:
        raise PerpoError(f"{slip}; the shell ended the command there", r"put \ in place of \v")
    return f"{slip}; it is left out"


def seed_table(*, in_command: bool) -> str:
    """Return the flags as a Markdown table: those of the command, or the others."""
    rows = ["| flag | here |", "|---|---|"]
    for name, flag in SEED_FLAGS.items():
        if flag.in_command == in_command:
            stands = f"`--{flag.argument}`: " if flag.argument not in (None, name) else ""
            kind = "checked: " if flag.checked else ""
            rows.append(f"| `--{name}` | {stands}{kind}{flag.means} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(f"{seed_table(in_command=True)}\n\n{seed_table(in_command=False)}")
