"""The arguments of a training run, checked as they are made. Needs no torch.

Named as in transformers' TrainingArguments wherever the meaning is the same. An argument that the
chosen method has no use for is refused, never ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from perpo.boxes import Frame, Order, Scale
from perpo.common.arguments import arg
from perpo.common.numbers import AboveZero, Count, CountOrZero, Range, Seed32, ShareBelowOne, ZeroOrMore, check_numbers
from perpo.errors import PerpoError
from perpo.methods import METHODS, MethodName, unused_by, which
from perpo.rewards.table import box_rewards, named, without_boxes

_MaxSteps = Annotated[int, Range(-1)]
_OF_LORA = ("adapter", "lora_r", "lora_alpha", "lora_dropout", "bits", "projector_only", "projector_lora")
# The methods that the help speaks of.
_OWN_ANSWERS = which(lambda method: not method.samples)
_ONE_ANSWER = which(lambda method: not method.ranks)
_BETA = which(lambda method: "beta" in method.takes)
_GAMMA = which(lambda method: "gamma" in method.takes)
_DROPOUT = which(lambda method: "lora_dropout" in method.takes)
_DROPOUT_HINT = f"with dropout, policy and reference would differ by chance; only {_DROPOUT} can use it"
# What one argument has no use for without another.
_NEEDS: dict[str, tuple[str, ...]] = {
    "eval_data": (
        "eval_image_root",
        "eval_steps",
        "eval_reward",
        "eval_box_scale",
        "eval_box_order",
        "eval_box_frame",
        "eval_truth_scale",
        "eval_truth_order",
        "eval_truth_frame",
        "eval_max_new_tokens",
        "per_device_eval_batch_size",
    ),
    "push_to_hub": ("hub_model_id",),
}


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """The arguments of `perpo-train`; each field's help says what it does.

    Raises:
        PerpoError: A number out of its range, or an argument that the method has no use for.
    """

    method: MethodName = arg("perpo", f"loss: {_ONE_ANSWER} learn from one answer, the others rank candidates")
    data: str = arg(
        help=f"preference records or pairs (JSON, CSV, Parquet); {_OWN_ANSWERS} also takes questions with answers"
    )
    output_dir: str = arg(help="folder for the adapter, the processor, training.json and TensorBoard events")
    model: str = arg("tiny", "tiny or tiny-ocr (embedded models), a folder in the Hugging Face layout, or a hub id")
    adapter: str | None = arg(None, "adapter to continue from; it is also the reference")
    image_root: str | None = arg(None, "folder that image paths start from (default: the folder of the data file)")

    beta: AboveZero | None = arg(None, f"scale of the scores in {_BETA} (default: 0.1)")
    gamma: ZeroOrMore | None = arg(None, f"power of the reward margins in {_GAMMA} (default: 0.5)")
    reference: Literal["start", "recorded"] | None = arg(
        None,
        "what the policy is compared with. start (the default): the model before training. recorded: the "
        "log-probabilities in the data, which must be sampled from exactly this model and adapter",
    )
    precompute_reference: bool = arg(
        False,
        "compute the reference's log-probabilities before training and keep them beside the data for later "
        "runs; always done with --lora_enable False",
    )
    allow_other_sampler: bool = arg(
        False,
        "train on candidates that another model or adapter sampled; the reference is still the model that "
        "training starts from",
    )
    num_candidates: CountOrZero = arg(0, "use the first N usable candidates of each record; 0 means all")
    keep_truncated: bool = arg(False, "also use answers that were cut at the token limit")
    max_length: Count | None = arg(
        None,
        "most tokens of image, prompt and answer together; data with longer ones are refused (default: the "
        "model's context)",
    )
    max_prompt_length: Count | None = arg(
        None, "most tokens of a prompt without its image; data with longer ones are refused"
    )

    lora_enable: bool = arg(True, "False trains the whole language model and the projector, without LoRA")
    lora_r: Count = arg(128, "rank of LoRA on the language model's linear layers")
    lora_alpha: Count = arg(256, "scale of LoRA; its update is multiplied by lora_alpha / lora_r")
    lora_dropout: ShareBelowOne = arg(0.0, f"dropout before LoRA; {_DROPOUT} only")
    learning_rate: AboveZero = arg(5e-6, "learning rate of LoRA")
    mm_projector_lr: ZeroOrMore = arg(5e-6, "learning rate of the projector; 0 leaves it as it is")
    projector_only: bool = arg(False, "train the projector alone; LoRA stays as it is")
    projector_lora: bool = arg(
        False, "train the projector by LoRA too, with the same lora_r and lora_alpha, in place of a copy of it"
    )
    per_device_train_batch_size: Count = arg(2, "records per forward pass")
    gradient_accumulation_steps: Count = arg(1, "forward passes per optimizer step")
    max_tokens_per_pass: Count | None = arg(
        None, "most tokens of a forward pass; a larger batch is split into several passes, with the same gradients"
    )
    group_by_modality_length: bool = arg(
        False, "put records of similar length into one batch, which needs less padding"
    )
    num_train_epochs: AboveZero = arg(1.0, "times through the data")
    max_steps: _MaxSteps = arg(-1, "optimizer steps; -1: as many as num_train_epochs needs")
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = arg(
        "cosine", "how the learning rates change"
    )
    warmup_steps: CountOrZero = arg(
        0, "optimizer steps until the full learning rate; not for lr_scheduler_type constant"
    )
    warmup_ratio: ShareBelowOne = arg(0.0, "warm-up as a share of all steps, rounded up; give this or warmup_steps")
    schedule_part: str = arg("1/1", "K/N: this run is the K-th of N equally long parts of one learning-rate schedule")
    weight_decay: ZeroOrMore = arg(0.0, "AdamW's weight decay, for matrices only")
    max_grad_norm: ZeroOrMore = arg(1.0, "clip the norm of the gradient to this; 0 means no clipping")
    bf16: bool | None = arg(
        None, "compute in bfloat16; trained weights stay in float32 (default: True on a GPU, False on the CPU)"
    )
    tf32: bool = arg(False, "let an NVIDIA GPU (Ampere or newer) multiply float32 matrices in TF32")
    gradient_checkpointing: bool = arg(False, "recompute activations instead of storing them")

    logging_steps: Count = arg(1, "optimizer steps between two log entries")
    save_strategy: Literal["no", "steps", "epoch"] = arg("steps", "when checkpoints are written")
    save_steps: CountOrZero = arg(100, "optimizer steps between two checkpoints; 0 means none")
    save_total_limit: Count | None = arg(2, "checkpoints to keep; none keeps all")
    resume_from_checkpoint: str | None = arg(
        None, "last: continue from the newest checkpoint in output_dir, if there is one; or the path of a checkpoint"
    )
    eval_data: str | None = arg(
        None, "held-out questions with answers; during training, the model's greedy answers to them are rewarded"
    )
    eval_image_root: str | None = arg(
        None, "folder that image paths in eval_data start from (default: the folder of eval_data)"
    )
    eval_steps: Count = arg(
        100, "optimizer steps between two validations; one more comes before the first step, one after the last"
    )
    eval_reward: str | None = arg(None, f"{named()} of yours (default: the reward of the training data)")
    eval_box_scale: Scale | None = arg(
        None, "unit of the numbers in answered boxes (default: as the training data say, else as the model's family)"
    )
    eval_box_order: Order | None = arg(None, "order of the four numbers (default: as for eval_box_scale)")
    eval_box_frame: Frame | None = arg(None, "picture that the boxes refer to (default: as for eval_box_scale)")
    eval_truth_scale: Scale | None = arg(
        None, "like eval_box_scale, for the true boxes in eval_data (default: as its rows say)"
    )
    eval_truth_order: Order | None = arg(None, "like eval_box_order, for the true boxes in eval_data")
    eval_truth_frame: Frame | None = arg(None, "like eval_box_frame, for the true boxes in eval_data")
    eval_max_new_tokens: Count = arg(64, "most tokens of an answer to eval_data")
    per_device_eval_batch_size: Count = arg(8, "questions of eval_data that are answered at once")
    probe_lists: CountOrZero = arg(
        8, "number of lists whose log-probabilities before and after training go to probe.parquet; 0 writes none"
    )

    report_to: Literal["tensorboard", "wandb", "none"] = arg("tensorboard", "where the log is sent, besides log.jsonl")
    estimate: str | None = arg(
        None, "GPU, such as H100: tell what this would cost (tokens, FLOPs, memory, hours) and run nothing"
    )
    run_name: str | None = arg(None, "name of the run in W&B and in the model card (default: the name of output_dir)")
    license: str | None = arg(None, "licence in the model card (default: unknown)")
    push_to_hub: bool = arg(False, "upload the result when training is done; the token is read from HF_TOKEN")
    hub_model_id: str | None = arg(
        None, "repository on the hub to upload to, such as me/my-model; a new one is private"
    )

    seed: Seed32 = arg(
        42, "seed for the adapter's first weights, the order of the data and dropout; from 0 to 2^32 - 1"
    )
    dataloader_num_workers: CountOrZero = arg(0, "processes that load images; 0: the training process loads them")
    bits: Literal[4, 16] = arg(16, "4: QLoRA, with the base in 4 bits (needs bitsandbytes and an NVIDIA GPU)")
    double_quant: bool = arg(True, "with --bits 4, quantise the scales too")
    quant_type: Literal["nf4", "fp4"] = arg("nf4", "with --bits 4, the 4-bit type")
    deepspeed: str | None = arg(
        None,
        "DeepSpeed configuration: a JSON file, or zero2, zero2_offload, zero3, zero3_offload (default: plain DDP)",
    )
    cache_dir: str | None = arg(None, "folder for models from the hub (default: the hub's own cache)")

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.max_steps == 0:
            raise PerpoError("--max_steps 0 trains nothing", "give -1 for whole epochs, or a number of steps")
        self._check_combinations()
        _ = self.part

    def _check_combinations(self) -> None:
        """Refuse what the method, or another argument, has no use for."""
        for name in unused_by(self.method):
            if getattr(self, name) != getattr(TrainArguments, name):  # the class holds the defaults
                hint = _DROPOUT_HINT if name == "lora_dropout" else f"leave --{name} out"
                raise PerpoError(f"--{name} has no effect with --method {self.method}", hint)
        self._check_pairs()
        if self.ranks and self.num_candidates == 1:
            raise PerpoError("--num_candidates 1 leaves nothing to compare", "give 2 or more, or 0 for all")
        if (self.warmup_steps or self.warmup_ratio) and self.lr_scheduler_type == "constant":
            raise PerpoError("--lr_scheduler_type constant has no warm-up", "use constant_with_warmup, or no warm-up")
        if self.warmup_steps and self.warmup_ratio:
            raise PerpoError("--warmup_steps and --warmup_ratio both set the warm-up", "give one of them")
        if self.save_strategy != "steps" and self.save_steps != TrainArguments.save_steps:
            raise PerpoError(f"--save_steps has no effect with --save_strategy {self.save_strategy}", "leave it out")
        self._check_what_trains()
        if self.projector_only and self.mm_projector_lr == 0:
            raise PerpoError(
                "--projector_only with --mm_projector_lr 0 trains nothing", "give a --mm_projector_lr above 0"
            )
        if self.projector_lora and self.mm_projector_lr == 0:
            raise PerpoError(
                "--projector_lora has no effect with --mm_projector_lr 0", "give a --mm_projector_lr above 0"
            )
        if self.projector_lora and self.bits == 4:
            raise PerpoError("--projector_lora was not tried on a base in 4 bits", "leave --projector_lora out")

    def _check_pairs(self) -> None:
        """Refuse what belongs to an argument that is not there."""
        for owner, names in _NEEDS.items():
            for name in names:
                if not getattr(self, owner) and getattr(self, name) != getattr(TrainArguments, name):
                    raise PerpoError(f"--{name} has no effect without --{owner}", f"give both, or leave --{name} out")
        if self.push_to_hub and self.hub_model_id is None:
            raise PerpoError("--push_to_hub needs --hub_model_id", "such as me/my-model")
        for name in (f"eval_{what}_{part}" for what in ("box", "truth") for part in ("scale", "order", "frame")):
            if without_boxes(self.eval_reward or "") and getattr(self, name) is not None:
                hint = f"leave it out, or choose {box_rewards()}"
                raise PerpoError(f"--{name} has no effect with --eval_reward {self.eval_reward}", hint)

    def _check_what_trains(self) -> None:
        """Refuse what has no meaning without LoRA, or with a base in 4 bits."""
        for switched, flag, names in (
            (not self.lora_enable, "--lora_enable False", _OF_LORA),
            (self.bits == 16, "--bits 16", ("double_quant", "quant_type")),
            (
                self.reference == "recorded",
                "--reference recorded",
                ("precompute_reference", "allow_other_sampler"),
            ),
        ):
            for name in names:
                if switched and getattr(self, name) != getattr(TrainArguments, name):
                    raise PerpoError(f"--{name} has no effect with {flag}", f"leave --{name} out")
        if self.reference == "recorded" and self.bf16 and not self.lora_enable:
            raise PerpoError(
                "--lora_enable False keeps the model's weights in float32, but the log-probabilities were recorded "
                "with weights in bfloat16",
                "leave --reference out",
            )
        if self.bits == 4 and self.reference == "recorded":
            raise PerpoError(
                "--bits 4 changes the model that gave the recorded log-probabilities", "leave --reference out"
            )

    @property
    def precomputes(self) -> bool:
        """Return whether the reference's log-probabilities are computed before training."""
        return self.precompute_reference or (self.ranks and not self.lora_enable and self.reference != "recorded")

    @property
    def ranks(self) -> bool:
        """Return whether the method compares candidates."""
        return METHODS[self.method].ranks

    @property
    def samples(self) -> bool:
        """Return whether the method learns sampled candidates, and not the data's own answers."""
        return METHODS[self.method].samples

    @property
    def dtype(self) -> Literal["float32", "bfloat16"]:
        """The type of the base's weights."""
        return "bfloat16" if self.bf16 else "float32"

    @property
    def part(self) -> tuple[int, int]:
        """`schedule_part` as (K, N), 1 <= K <= N.

        Raises:
            PerpoError: It is no such pair.
        """
        first, _, second = self.schedule_part.partition("/")
        if first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
            return int(first), int(second)
        raise PerpoError(f"--schedule_part expects K/N with 1 <= K <= N, got {self.schedule_part!r}", "such as 2/6")
